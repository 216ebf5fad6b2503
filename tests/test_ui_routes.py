"""What the page asks of its own routes: previews, charts, answers, cards and comparisons."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from backend import rest
from backend.errors import ModelError
from backend.service import Service
from backend.sources import EMBEDDED
from backend.store.store import Store
from tests.asking import client_of
from tests.page_results import (
    BEATEN,
    DENSE,
    HOSTILE,
    MIDDLE,
    SMALL,
    fill,
    result,
)
from tests.result_documents import reading

V1 = rest.PREFIX


def test_a_preview_names_the_run_and_leads_to_it(client):
    page = client.get(f"/r/{MIDDLE}").text
    assert "gptq@4 on default" in page
    assert f"url=../?run={MIDDLE}" in page


def test_a_preview_leads_nowhere_else(client):
    for name in ("https:evil.example", "zz", "0" * 17, "%22%3E%3Cscript%3E"):
        answer = client.get(f"/r/{name}", follow_redirects=False)
        assert answer.headers.get("location", "../") == "../"
        assert "<script" not in answer.text


@pytest.mark.security
def test_a_hostile_run_is_previewed_and_reported_as_text(client):
    for path in (f"/r/{HOSTILE}", "/page/report"):
        text = client.get(path).text
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text


def test_a_report_needs_nothing_from_elsewhere(client):
    text = client.get("/page/report").text
    head, _, rest_of_it = text.partition("<script>")
    tail = rest_of_it.rpartition("</script>")[0][-200_000:]
    assert "src=" not in head.replace("&lt;img src=x", "")
    assert "Plotly.newPlot" in tail
    assert "gptq@4" in text


def test_the_chart_and_its_table_tell_the_same_runs(client):
    view = client.get("/page/figure", params={"model": "default"}).json()
    dots = [
        run
        for trace in view["figure"]["data"]
        if trace.get("meta", {}).get("role") == "dots"
        for run in trace["customdata"]
    ]
    assert sorted(dots) == sorted(row["run_id"] for row in view["table"]["rows"])
    assert view["points"] == len(dots)
    assert "2 cores" in view["origin"] or "two cores" in view["origin"]


def test_where_runs_of_several_models_stand_together_each_is_named(client):
    assert client.get("/page/figure").json()["table"]["models"] is True
    one = client.get("/page/figure", params={"model": "default"}).json()
    assert one["table"]["models"] is False
    assert "<th>Model</th>" in client.get("/page/report").text
    assert "<th>Model</th>" not in client.get("/page/report", params={"model": "default"}).text


@pytest.fixture
def tales(tmp_path):
    """A home with runs of the embedded model and one of a model in a folder of its own."""
    folder = tmp_path / "tales"
    shutil.copytree(EMBEDDED, folder)
    (home := tmp_path / "home").mkdir()
    fill(home)
    about = {"name": "tales", "source": str(folder), "revision": "", "parameters": 850_000}
    run = result("f" * 16, "gptq@4", "quantise", (820_000, 0.02, 0.9), model=about)
    note = "dense in float32; noisy_host: two copies did not come out equal"
    run["readings"].append(reading("decode_tps", 5.0, "higher", unit="tok/s", note=note))
    with Store(home) as store:
        store.results.add(run)
    with Service(home, run_jobs=False) as opened:
        yield opened, folder


def test_a_measured_model_in_a_folder_goes_by_its_name_and_by_its_folder(tales):
    service, folder = tales
    with client_of(service) as client:
        for text in ("tales", str(folder)):
            told = client.get("/page/answer", params={"budget": "900 kB", "model": text}).json()
            assert [one["run_id"] for one in told["choices"]] == ["f" * 16]
            for expected in ("", "true"):
                asked = {"model": text, "expected": expected or "false"}
                assert client.get("/page/figure", params=asked).json()["points"] == 1
            wish = {"model": text, "recipes": ["rtn@4"], "budgets": []}
            told = client.post("/page/ahead", json=wish).json()
            assert (told["model"], told["measured"], told["jobs"]) == ("tales", True, 1)
    elsewhere = {"name": "tales", "source": "/" + "far/" * 99, "revision": "", "parameters": 1}
    newer = {"model": elsewhere, "hardware_id": "bbbb", "created": "2027-05-01T10:00:00+00:00"}
    run = result("e" * 16, "gptq@5", "quantise", (880_000, 0.02, 0.9), **newer)
    service.store.results.add(run)
    assert service.advice.source("tales").folder == folder
    shutil.rmtree(folder)
    assert service.advice.source("tales").folder is None
    with pytest.raises(ModelError, match="tales was a folder that is not on this machine"):
        service.submit("rtn@4", "tales")
    with pytest.raises(ModelError, match="is no model"):
        service.advice.source("fables")


@pytest.mark.security
@pytest.mark.parametrize("model", ["~nobody/x", "x" * 280, "/" + "x/" * 140, "a\0b"])
def test_a_model_that_can_be_no_folder_is_told_in_a_sentence(client, model):
    assert client.get("/page/figure", params={"model": model}).json()["points"] == 0
    for path, asked in (
        ("page/answer", {"budget": "2 MB"}),
        ("api/v1/estimate", {"recipe": "rtn"}),
    ):
        answer = client.get(f"/{path}", params=asked | {"model": model})
        assert "is no model" in answer.json()["error"]


def test_a_methods_chart_keeps_to_one_protocol_and_its_runs_name_their_models(tales):
    service, _ = tales
    other = result("e" * 16, "gptq@2", "quantise", (90_000, 0.001, 0.9), protocol="cq-2 smoke")
    service.store.results.add(other)
    with client_of(service) as client:
        (gptq,) = (one for one in client.get("/page/methods").json() if one["key"] == "gptq")
    assert {one["run_id"] for one in gptq["chart"]["spots"]} == {SMALL, MIDDLE}
    up = [y for _, y in gptq["chart"]["front"]]
    assert up == sorted(up)  # less divergence with every step to the right
    assert {one["model"] for one in gptq["measured"]} == {"tales", "default"}


def test_a_comparison_of_two_models_names_each(tales):
    with client_of(tales[0]) as client:
        found = client.get("/page/compare", params={"runs": f"{'f' * 16},{SMALL}"}).json()
    assert [pane["model"] for pane in found["panes"]] == ["tales", "tales", "default"]


def test_a_card_says_how_to_have_the_model_of_a_folder_and_which_numbers_are_noisy(tales):
    service, folder = tales
    with client_of(service) as client:
        card = client.get(f"/page/card/{'f' * 16}").json()
    assert card["wish"] == str(folder)
    assert card["command"] == f'python -m backend run "gptq@4" --model "{folder}"'
    rows = [one for group in card["groups"] for one in group["rows"]]
    assert [one["name"] for one in rows if one["noisy"]] == ["decode_tps"]


@pytest.mark.security
def test_a_command_of_a_card_runs_nothing_that_a_result_says(tmp_path):
    recipe, name = "gptq@4 $(touch run) `id`", 'x"; touch run; "'
    model = {"name": name, "source": "hub", "revision": "$HOME", "parameters": 850_000}
    (home := tmp_path / "home").mkdir()
    with Store(fill(home)) as store:
        run = result("f" * 16, recipe, "quantise", (820_000, 0.02, 0.9), model=model)
        store.results.add(run)
    with Service(home, run_jobs=False) as service, client_of(service) as client:
        command = client.get(f"/page/card/{'f' * 16}").json()["command"]
        usual = client.get(f"/page/card/{MIDDLE}").json()["command"]
    said = subprocess.run(["sh", "-c", f"echo() {{ printf '%s|' \"$@\"; }}; {command}"
                           .replace("python -m backend", "echo")],
                          cwd=tmp_path, capture_output=True, text=True, check=True)  # fmt: skip
    assert said.stdout == f"run|{recipe}|--model|{name}@$HOME|"
    assert not (tmp_path / "run").exists()
    assert usual == 'python -m backend run "gptq@4"'


def test_an_empty_home_has_an_empty_page(tmp_path, monkeypatch):
    monkeypatch.setattr("backend.service.FIRST_RESULTS", tmp_path / "none")
    with Service(tmp_path, run_jobs=False) as service, client_of(service) as client:
        assert client.get("/page/start").json()["axes"] == []
        assert client.get(f"{V1}/axes").json() == []
        assert client.get("/page/figure").json()["points"] == 0
        assert client.get("/page/compare").json()["panes"] == []
        assert all(not one["measured"] for one in client.get("/page/methods").json())
        assert client.get("/page/report").status_code == 200


def test_a_result_whose_file_was_deleted_leaves_the_page_whole(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as service, client_of(service) as client:
        for path in (tmp_path / "results").glob("*.json"):
            path.unlink()
        assert client.get("/page/start").status_code == 200
        assert client.get("/page/figure").json()["points"] == 5
        assert client.get(f"/page/card/{MIDDLE}").status_code == 404


def test_no_text_a_model_wrote_is_in_the_chart(client):
    assert "slept" not in json.dumps(client.get("/page/figure").json())


def test_an_answer_gives_intervals_and_says_that_the_dense_model_fits(client):
    found = client.get("/page/answer", params={"budget": "2 MB"}).json()
    assert found["dense"]["run_id"] == DENSE
    assert "as fast as dense" not in found["dense"]["text"]
    found = client.get("/page/answer", params={"budget": "825 kB"}).json()
    assert found["dense"] is None
    first = found["choices"][0]["text"]
    assert first == "820 kB · 0.0200 nats/token (0.0160 to 0.0240) · 0.900× as fast as dense"


def test_a_card_tells_who_beats_the_run(client):
    card = client.get(f"/page/card/{BEATEN}").json()
    assert {one["recipe"] for one in card["beaten_by"]} == {"gptq@3", "gptq@4"}
    assert client.get(f"/page/card/{MIDDLE}").json()["beaten_by"] == []


def test_a_comparison_begins_with_the_dense_model_and_marks_the_first_difference(client):
    found = client.get("/page/compare", params={"runs": f"{MIDDLE},{SMALL}"}).json()
    assert [pane["recipe"] for pane in found["panes"]] == ["dense", "gptq@4", "gptq@3"]
    told = {one["title"]: one for one in found["panes"][1]["numbers"]}
    assert told["Decode speed-up"]["text"] == "0.900×"
    assert told["KL divergence"]["interval"] == "0.0160 to 0.0240 nats/token"
    assert "Decode" not in told  # rates of two processes are not to be compared
    dense = [one["title"] for one in found["panes"][0]["numbers"]]
    assert dense == ["Resident memory", "KL divergence", "Same first choice"]
    assert [pane["model"] for pane in found["panes"]] == ["", "", ""]
    spans = found["panes"][1]["spans"]
    assert [span["kind"] for span in spans[:2]] == ["same", "first"]
    assert spans[1]["text"] == " away"
    assert "token 4" in found["panes"][1]["remark"]
    assert "nearly a tie" in found["panes"][1]["remark"]
