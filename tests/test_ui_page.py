"""The page is light, whole and closed: what it imports, ships and lets others call."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from backend.limits import AT_HOME
from backend.service import Service
from tests.page_results import fill
from ui import planning

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "ui" / "static"
PLOTLY = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"


@pytest.fixture
def service(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as opened:
        yield opened


def test_the_drawing_library_is_the_one_that_was_chosen():
    path = STATIC / "vendor" / "plotly-basic.min.js"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PLOTLY
    assert "plotly.js (basic - minified) v4.1.1" in path.read_text()[:200]
    assert "MIT" in (STATIC / "vendor" / "plotly-basic.LICENSE").read_text()


def test_the_page_needs_no_torch():
    code = (
        "import os; os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'; import sys; "
        "from ui import page; "
        "print([m for m in ('torch', 'transformers', 'triton') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")


def test_scripts_of_the_page_write_no_markup():
    for path in STATIC.glob("*.js"):
        text = path.read_text()
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
                          "eval(", "new Function"):  # fmt: skip
            assert forbidden not in text, f"{path.name} uses {forbidden}"


def test_scripts_stay_within_their_budget():
    """The page's own as they are sent, packed; with the library as they are read."""
    files = [path.read_bytes() for path in STATIC.glob("*.js")]
    assert sum(len(gzip.compress(file)) for file in files) < 40_000
    library = (STATIC / "vendor" / "plotly-basic.min.js").stat().st_size
    assert sum(map(len, files)) + library < 1_500_000


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """The page as Gradio sends it; built in a process of its own, for Gradio leaves loops open."""
    code = (
        "import os, json, sys; os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'\n"
        "from pathlib import Path; from backend.service import Service; from ui import page\n"
        "with Service(Path(sys.argv[1]), run_jobs=False) as service:\n"
        "    config = page.build(service).config\n"
        "    names = ('components', 'dependencies')\n"
        "    print(json.dumps({name: config[name] for name in names}, default=str))\n"
    )
    home = fill(tmp_path_factory.mktemp("home"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_templates_of_components_are_constant(blocks):
    found = [one["props"] for one in blocks["components"]]
    panels = [props for props in found if "data-panel" in str(props.get("html_template", ""))]
    assert len(panels) == 9
    for props in panels:
        assert "${" not in props["html_template"]
        assert "{{" not in props["html_template"]
        assert not props.get("value")


def test_the_page_keeps_no_state_and_no_connection(blocks):
    assert not {one["type"] for one in blocks["components"]} & {"state", "timer", "plot"}


def test_only_what_is_offered_to_programs_is_a_public_endpoint(blocks):
    public = {
        one["api_name"] for one in blocks["dependencies"] if one["api_visibility"] == "public"
    }
    assert public == {"methods", "estimate", "frontier", "run", "compress", "job", "write"}


def ahead(service, recipes, budgets=(), model="default"):
    wish = {"model": model, "recipes": list(recipes), "budgets": list(budgets)}
    return planning.look_ahead(service, wish)


def test_the_form_says_what_a_run_takes(service):
    found = ahead(service, ["gptq@4"])
    (row,) = found["rows"]
    assert row["bytes"] == service.estimate("gptq@4").resident_bytes
    assert found["size"] == row["size"]
    assert found["dense"] == "1.71 MB"
    assert row["kld"] == 0.02  # measured by a run of the same recipe


def test_every_method_meets_every_budget(service):
    found = ahead(service, ["gptq", "rtn"], ["3 bits", "4 bits"])
    assert [row["recipe"] for row in found["rows"]] == ["gptq@3", "gptq@4", "rtn@3", "rtn@4"]
    assert found["jobs"] == 4
    assert found["rows"][0]["budget"] == {"bits": 3.0}


@pytest.mark.parametrize(
    ("budget", "least", "most"), [("1 MB", 950_000, 10**6), ("800 KiB", 780_000, 800 * 1024)]
)
def test_a_budget_in_bytes_is_kept_and_used(service, budget, least, most):
    (row,) = ahead(service, ["rtn"], [budget])["rows"]
    assert least < row["bytes"] <= most
    assert row["how"] == "counted"
    assert not row["miss"]


def test_a_budget_out_of_reach_says_by_how_much(service):
    (row,) = ahead(service, ["rtn"], ["1 kB"])["rows"]
    assert "over the budget" in row["miss"]


@pytest.mark.parametrize(
    ("recipes", "budgets", "model", "part"),
    [
        (["gptq"], ["much"], "default", "much"),
        (["gptq"], ["0.1 bits"], "default", "1.25"),
        (["gptq@4 + rtn@4"], [], "default", "both quantise"),
        (["gptk@4"], [], "default", "gptq"),
        (["gptq@4"], [], "no model", "no model"),
    ],
)
def test_the_form_says_in_a_sentence_what_cannot_be(service, recipes, budgets, model, part):
    found = ahead(service, recipes, budgets, model)
    assert found["jobs"] == 0
    assert part in found["refused"][0]["reason"]


def test_a_reason_is_told_once_and_one_of_the_model_names_no_method(service, tmp_path):
    for folder, part in (
        (tmp_path, "holds no config.json"),
        (tmp_path / "pickled", "holds no .safetensors weights"),
    ):
        folder.mkdir(exist_ok=True)
        if folder != tmp_path:
            (folder / "config.json").write_text("{}")
        (refused,) = ahead(service, ["gptq", "rtn"], ["3 bits", "4 bits"], str(folder))["refused"]
        assert refused["recipe"] == "Model"
        assert part in refused["reason"]
    several = "gptq(bits=3, group_size=64)"  # told once, whatever joins its settings
    (refused,) = ahead(service, [several, "rtn"], ["much"] * 2)["refused"]
    assert refused["recipe"] == f"{several}, rtn"
    (refused,) = ahead(service, ["gptq", "rtn"], ["3 bits", "much"])["refused"]
    assert refused["recipe"] == "gptq, rtn"


def test_what_does_not_fit_into_memory_is_told_beforehand(service, monkeypatch):
    assert ahead(service, ["gptq"], ["4 bits"])["lacking"] == ""
    memory = psutil.virtual_memory()._replace(available=1_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    found = ahead(service, ["gptq"], ["4 bits"])
    assert "GB of memory and 0.0 GB are free" in found["lacking"]


def test_what_some_cannot_meet_does_not_stop_the_others(service):
    found = ahead(service, ["gptq", "kv-int"], ["1.5 bits"])
    assert [row["recipe"] for row in found["rows"]] == ["gptq@1.5"]
    assert len(found["refused"]) == 1


def test_the_form_begins_with_a_method_of_the_frontier(service):
    offered = planning.choices(service, AT_HOME)
    assert offered["first"] == "gptq"
    keys = {one["key"] for group in offered["groups"] for one in group["methods"]}
    assert keys == {one["key"] for one in service.methods()}


def test_the_builder_shows_each_setting_with_its_value_and_refuses_in_a_sentence(service):
    found = planning.composition(service, "gptq@3 + kv-int@4")
    assert [stage["key"] for stage in found["stages"]] == ["gptq", "kv-int"]
    again = planning.composition(service, found["recipe"])
    assert again["text"] == "gptq@3 + kv-int@4"
    refused = planning.composition(service, "rtn@4 + gptq@4")
    assert set(refused) == {"error"}
    assert "both quantise" in refused["error"]


def test_starting_takes_few_lines():
    assert len((ROOT / "app.py").read_text().splitlines()) < 60
