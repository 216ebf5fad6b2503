"""WikiText-2 by its protocol, and tasks of a harness that need not be there."""

import math
import sys
import types

import pytest
import torch

from backend import harness
from backend.errors import DataError
from backend.extra_readings import ExtraReadings
from backend.extras import Extras
from backend.measure import wikitext
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny
from tests.tiny_model import TinyModel


def test_raw_rows_are_joined_as_papers_join_them(tmp_path):
    """Rows keep their line end, empty ones lose it, and two line ends stand between any two."""
    path = tmp_path / "wiki.test.raw"
    path.write_text(" \n = Title = \n \n One line . \n")
    assert Extras(path).text() == "\n\n = Title = \n\n\n\n\n One line . \n"


def test_windows_share_no_token_and_the_rest_is_left_out():
    rows = wikitext.windows(range(10), length=4)
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert wikitext.windows(range(10), most=1, length=4) == [[0, 1, 2, 3]]


@pytest.mark.parametrize("cached", [False, True])
def test_the_loss_is_the_mean_over_a_windows_later_tokens(cached):
    model = TinyModel(seed=3, positions=400)
    model.has_cache_method = cached
    rows = [torch.randint(0, 16, (300,)).tolist(), torch.randint(0, 16, (300,)).tolist()]
    with torch.inference_mode():
        logits = model.logits(torch.tensor(rows)).log_softmax(-1)
    expected = [
        -sum(float(logits[line, at, rows[line][at + 1]]) for at in range(299)) / 299
        for line in range(2)
    ]
    assert wikitext.losses(model, rows) == pytest.approx(expected, abs=1e-4)


def test_perplexities_by_hand():
    found = {one.name: one for one in wikitext.readings([2.0, 3.0], [1.5, 2.5])}
    assert found["wt2_ppl"].value == pytest.approx(math.exp(2.5))
    assert found["wt2_ppl_ratio"].value == pytest.approx(math.exp(0.5))
    assert "dense 7.389" in found["wt2_ppl"].note
    assert wikitext.readings([float("nan")], [1.0]) == []


def test_a_model_that_reads_less_says_so(tmp_path):
    path = tmp_path / "wiki.test.raw"
    path.write_text("w5 w6 " * 4000)
    source = tiny.loaded(tiny.build("gpt2"), tmp_path / "dense")
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "dense")
    loaded = types.SimpleNamespace(model=source.model, tokenizer=tokenizer)
    notes = []
    extra = ExtraReadings(Extras(path), "smoke", lambda: None, lambda: loaded, None, notes)
    assert [name for name, _, _ in extra.groups()] == ["wikitext"]
    assert extra.take_wikitext() == []
    assert notes == [
        "wt2-2048 takes windows of 2,048 tokens and this model reads 128, so it was left out."
    ]


def test_a_missing_harness_is_named_before_anything_runs():
    with pytest.raises(DataError, match="pip install lm-eval"):
        Extras(tasks=("piqa",)).check()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.raw cannot be read"):
        Extras(tmp_path / "nothing.raw").check()


def test_what_is_asked_survives_json_and_has_a_key_of_its_own(tmp_path):
    path = tmp_path / "a.raw"
    path.write_text("text")
    asked = Extras(path, ("piqa", "arc_easy"))
    assert Extras.from_json(asked.to_json()) == asked
    assert Extras().key == ""
    assert len({asked.key, Extras(path).key, Extras(tasks=("piqa",)).key}) == 3


class Request:
    def __init__(self, *arguments):
        self.args = arguments


def test_a_harness_gets_log_probabilities_and_texts_of_the_model_itself(monkeypatch, tmp_path):
    """A stand-in with the harness's own interface; every number against a plain pass."""
    network = tiny.build("llama")
    model = TransformersModel(network)
    model.end_token = None

    class Loaded:
        def encode(self, text):
            return [int(word) for word in text.split()]

        def open(self, text):
            return [1, *self.encode(text)]

        def decode(self, tokens):
            return " ".join(map(str, tokens))

    seen = {}

    def simple_evaluate(model, tasks, limit, log_samples, bootstrap_iters):
        assert log_samples
        seen["likelihood"] = model.loglikelihood([Request("5 6", " 7 8"), Request("", " 9")])
        seen["rolling"] = model.loglikelihood_rolling([Request("5 6 7")])
        seen["text"] = model.generate_until([Request("5 6", {"until": [], "max_gen_toks": 4})])
        samples = {"piqa": [{"acc": 1.0}, {"acc": 0.0}], "odd": [{"bleu": 3.0}]}
        return {"samples": samples}

    package, api, base = (types.ModuleType(name) for name in ("lm_eval", "api", "model"))
    package.simple_evaluate, base.LM = simple_evaluate, object
    for name, module in (
        ("lm_eval", package), ("lm_eval.api", api), ("lm_eval.api.model", base)
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    assert harness.ask(model, Loaded(), ["piqa"], 2) == {"piqa": [True, False]}
    logs = model.logits(torch.tensor([[1, 5, 6, 7, 8]]))[0].log_softmax(-1)
    assert seen["likelihood"][0][0] == pytest.approx(float(logs[2, 7] + logs[3, 8]), abs=1e-4)
    rolling = sum(float(logs[at, token]) for at, token in enumerate((5, 6, 7)))
    assert seen["rolling"][0] == pytest.approx(rolling, abs=1e-4)
    written, row = [], [1, 5, 6]
    for _ in range(4):
        written.append(int(model.logits(torch.tensor([row + written]))[0, -1].argmax()))
    assert seen["text"] == [" ".join(map(str, written))]


def test_tasks_are_compared_question_by_question():
    found = harness.readings({"piqa": [True, True, False]}, {"piqa": [True, False, True]})
    assert [one.name for one in found] == ["task_piqa"]
    assert found[0].value == pytest.approx(200 / 3)
    assert found[0].note == "dense 66.7 %; 1 lost, 1 gained; McNemar p = 1"
    assert harness.readings({"piqa": [True]}, {"piqa": []}) == []
