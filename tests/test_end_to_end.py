"""A model goes in, a measured frontier comes out: real jobs on the embedded model."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backend import methods, plan
from backend.errors import (
    DataError,
    ModelError,
    OutOfReachError,
    RecipeError,
    ResourceError,
    SettingError,
    UnknownNameError,
)
from backend.estimate import Estimate, check_room
from backend.methods.base import DecodeMethod, LayerMethod, Stage
from backend.models import artefact
from backend.recipes import Recipe
from backend.service import Filter, Service, Texts
from tests.compressed import brief

ROOT = Path(__file__).parents[1]


METHODS = methods.catalogue()
MENDING = {key for key, cls in METHODS.items() if cls.stage == Stage.REPAIR}  # nothing alone
LEARNING = {
    key: Recipe((brief(cls()),)).text()
    for key, cls in METHODS.items()
    if key not in MENDING and brief(cls()) != cls()
}
"""Methods that learn by many steps, each with few."""
BITS = 14.0
SMOKE = {"tier": "smoke", "speed": ""}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def service(home):
    """Its jobs are calibrated on an eighth of the text: no fact here hangs on how well they fit."""
    with pytest.MonkeyPatch.context() as patch, Service(home) as opened:
        patch.setattr(plan, "CALIBRATION", plan.CALIBRATION | {"windows": 8})
        yield opened


@pytest.fixture(scope="module")
def swept(service):
    """Every method once, at a budget that most reach, and the dense model; quality only."""
    found = service.sweep([key for key in METHODS if key not in LEARNING], [BITS], **SMOKE)
    refused = {one.recipe.partition("@")[0]: one.reason for one in found.refusals}
    assert refused.keys() >= MENDING
    beyond = [key for key in refused if key not in MENDING]  # taken at their own level
    assert all("ask for" in refused[key] for key in beyond)
    own = [service.submit(recipe, **SMOKE) for recipe in [*beyond, *LEARNING.values()]]
    jobs = [service.wait(one.job_id, 240) for one in [*found.submissions, *own]]
    assert [(job.recipe, job.reason) for job in jobs if job.state != "done"] == []
    return [service.run(job.run_id) for job in jobs]


@pytest.mark.slow
def test_every_method_becomes_a_point(swept):
    assert {re.split("[@(]", run.recipe)[0] for run in swept} == {"dense", *METHODS} - MENDING
    for run in swept:
        assert run.status == "done"
        assert run.reading("nonfinite").value == 0
        assert run.reading("kld_mean").low is not None


@pytest.mark.slow
def test_the_dense_model_is_at_no_distance_from_itself(swept):
    dense = next(run for run in swept if run.recipe == "dense")
    assert dense.reading("kld_mean").value == 0
    assert dense.reading("dnll").value == 0
    assert dense.reading("top1_agree").value == 100


@pytest.mark.slow
def test_resident_bytes_are_those_that_the_formats_count(swept):
    seen = 0
    for run in swept:
        stages = [methods.find(stage["method"]) for stage in run.stages]
        if not any(issubclass(stage, LayerMethod) for stage in stages):  # nothing is held
            continue
        seen += 1
        counted = sum(layer["bytes"] for layer in run.layers)
        numbers = sum(layer["bytes"] * 8 / layer["bits"] for layer in run.layers)
        measured = run.reading("bpw_linear").value * numbers / 8
        assert measured == pytest.approx(counted, rel=1e-9)
        assert counted * 8 / numbers <= BITS
        assert all(sum(layer["parts"].values()) == layer["bytes"] for layer in run.layers)
    assert seen >= 7


@pytest.mark.slow
def test_an_artefact_holds_all_that_is_needed(service, swept):
    tokens = torch.arange(64).view(2, 32)
    for run in swept:
        folder = service.artefact_folder(run.run_id)
        first = artefact.load(folder, packed=False)
        with torch.inference_mode():
            expected = first.loaded.model(input_ids=tokens).logits
        for tensor in [*first.loaded.model.parameters(), *first.loaded.model.buffers()]:
            tensor.data.zero_()
        again = artefact.load(folder, packed=False)
        with torch.inference_mode():
            assert torch.equal(again.loaded.model(input_ids=tokens).logits, expected)


@pytest.mark.slow
def test_a_drafter_changes_no_token(swept):
    drafted = [
        run
        for run in swept
        if any(issubclass(methods.find(stage["method"]), DecodeMethod) for stage in run.stages)
    ]
    assert len(drafted) >= 4
    for run in drafted:
        assert run.reading("lossless_l1").value == 0
        assert run.reading("lossless_l1").samples > 1_000
        assert run.reading("lossless_l2").value == 0
        assert run.reading("lossless_l3") is None or run.reading("lossless_l3").value == 0


@pytest.mark.slow
def test_a_quantised_cache_takes_fewer_bytes_a_token(swept):
    dense, cached = (
        next(run for run in swept if run.recipe.startswith(name)) for name in ("dense", "kv-int")
    )
    assert dense.reading("kv_bytes_per_token").value == 4 * 2 * 2 * 32 * 2  # layers, kv, heads, dim
    ratio = cached.reading("kv_bytes_per_token").value / dense.reading("kv_bytes_per_token").value
    # codes of 8 bits, and a scale and an offset of 16 bits to 32 numbers, of 16 bits dense
    assert ratio == pytest.approx(9 / 16, abs=0.01)
    assert cached.reading("kld_pressure_mean").value > 0


@pytest.mark.slow
def test_the_same_run_is_answered_at_once(service, swept):
    run = next(run for run in swept if run.recipe.startswith("gptq"))
    again = service.submit(run.recipe, tier="smoke", speed="")
    assert (again.run_id, str(again.outcome)) == (run.run_id, "cached")


@pytest.mark.slow
def test_the_frontier_lists_points_that_none_dominates(service, swept):
    chosen = Filter(families=("quantise", "prune", "dense"), protocols=("cq-2 smoke",))
    mine = service.frontier(chosen=chosen)
    assert set(mine["run_id"]) <= {run.run_id for run in swept}
    best = {row.recipe: row for row in mine.itertuples()}
    assert best["dense"].on_frontier
    for one in mine.itertuples():
        beaten = any(
            other.x <= one.x and other.y <= one.y and (other.x < one.x or other.y < one.y)
            for other in mine.itertuples()
        )
        assert one.on_frontier != beaten


@pytest.mark.slow
def test_a_running_job_can_be_cancelled(service):
    submission = service.submit("gptq@3 by evopress", tier="smoke", speed="")
    while service.job(submission.job_id).state == "queued":
        service.wait(submission.job_id, 0.05)
    service.cancel(submission.job_id)
    job = service.wait(submission.job_id, 10)
    assert (job.state, job.reason) == ("cancelled", "cancelled")


@pytest.mark.parametrize(
    ("recipe", "error", "words"),
    [
        ("gtpq@4", UnknownNameError, "Did you mean gptq"),
        ("gptq@0.5", OutOfReachError, "1.25 to 9 bits"),
        ("gptq(damping=7)", SettingError, "0.0001 to 1"),
        ("gptq(bit=4)", SettingError, "Did you mean bits"),
        ("kv-int@5 + gptq@4", RecipeError, "put it first"),
        ("gptq@4 + rtn@3", RecipeError, "one of each stage"),
        ("gptq@four", RecipeError, "is no stage"),
        ("kv-int@5 by evopress", RecipeError, "exactly one method"),
    ],
)
def test_a_recipe_that_cannot_be_says_why(service, recipe, error, words):
    with pytest.raises(error, match=words):
        service.submit(recipe)
    assert not any(job.recipe == recipe for job in service.jobs())


def test_a_model_that_is_not_there_says_so(service):
    with pytest.raises(ModelError, match="is no model"):
        service.submit("rtn@4", "no such model")
    with pytest.raises(ModelError, match="work offline"):
        service.submit("rtn@4", "nobody/nothing")


def test_too_little_memory_is_said_before_any_work(tmp_path):
    with pytest.raises(ResourceError, match="GB of memory"):
        check_room(Estimate(1, 1, 1 << 60, 1.0, ""), tmp_path)
    with pytest.raises(ResourceError, match="PARETOSCOPE_HOME"):
        check_room(Estimate(1 << 60, 1, 1, 1.0, ""), tmp_path)


def test_text_that_is_empty_or_shared_is_refused(service, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(DataError, match="holds 0 documents"):
        service.submit("gptq@4", texts=Texts(calibration_file=empty))
    shared = tmp_path / "shared.jsonl"
    held = Texts().heldout
    shared.write_text("\n".join(json.dumps({"text": text}) for _, _, text in held[:9]))
    with pytest.raises(DataError, match="judged by what it was fitted to"):
        service.submit("gptq@4", texts=Texts(calibration_file=shared))


def command(home, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "backend", *arguments, "--home", str(home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_the_command_line_runs_a_recipe_and_prints_json_alone(tmp_path):
    done = command(tmp_path, "run", "rtn@4 + copyspec", "--tier", "smoke", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    names = {reading["name"] for reading in run["readings"]}
    assert {"kld_mean", "resident_bytes", "disk_bytes", "decode_tps", "prefill_speedup"} <= names
    assert {"lossless_l1", "lossless_l2", "mean_accepted", "decode_speedup"} <= names
    assert all(math.isfinite(reading["value"]) for reading in run["readings"])
    listed = json.loads(command(tmp_path, "frontier", "--json").stdout)
    assert run["run_id"] in [row["run_id"] for row in listed]
    shown = command(tmp_path, "show", run["run_id"][:10])
    assert "KL divergence" in shown.stdout
    exported = command(tmp_path, "export", str(tmp_path / "out"), "--json")
    assert json.loads(exported.stdout)["runs"] == len(listed)
    twin = tmp_path / "twin"
    command(twin, "import", str(tmp_path / "out"))
    again = json.loads(command(twin, "frontier", "--json").stdout)
    assert sorted(row["run_id"] for row in again) == sorted(row["run_id"] for row in listed)


def test_a_wrong_wish_leaves_with_code_2_and_a_sentence(tmp_path):
    done = command(tmp_path, "run", "gtpq@4", "--json")
    assert done.returncode == 2
    assert "Did you mean gptq" in json.loads(done.stdout)["error"]
    assert "Traceback" not in done.stderr


def test_the_service_imports_neither_torch_nor_gradio():
    heavy = ["torch", "transformers", "gradio"]
    code = f"import sys, backend.service; print([m for m in sys.modules if m in {heavy}])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_runs_judged_by_other_tokens_stand_on_a_frontier_of_their_own(service, swept):
    both = service.frontier()
    others = sorted(set(both["protocol"]) - {"cq-2 smoke"})
    assert others
    shipped = service.frontier(chosen=Filter(protocols=tuple(others)))
    marked = both[both["protocol"].isin(others)].set_index("run_id")["on_frontier"]
    assert marked.sort_index().equals(shipped.set_index("run_id")["on_frontier"].sort_index())


def test_a_new_home_opens_with_the_shipped_results(tmp_path):
    with Service(tmp_path, run_jobs=False) as fresh:
        frame = fresh.frontier()
        assert len(frame) >= 50
        assert set(frame["model"]) == {"default"}
        families = {"quantise", "prune", "factorise", "structure", "cache", "decode", "dense"}
        assert families <= set(frame["family"])
        best = fresh.run(frame[frame["on_frontier"]]["run_id"].iloc[0])
        assert best.manifest["software"]["commit"]
        assert best.manifest["hardware"]["cpu"]
