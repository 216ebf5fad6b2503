"""The writing process: tokens, shares and divergences are those of the models themselves."""

from __future__ import annotations

import json
import socket
import threading

import pytest
import torch

from backend.compress import compress
from backend.decoding.greedy import generate
from backend.jobs.stream import Emitter
from backend.live.scribe import serve
from backend.live.shelf import Shelf
from backend.models import artefact
from backend.models.language_model import TransformersModel
from backend.models.load import load
from backend.recipes import Recipe
from backend.sources import ModelSource

PROMPT = "Once upon a time,"


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """The embedded model as it is, in 4 bits, and in 4 bits with drafting, as artefacts."""
    folder = tmp_path_factory.mktemp("artefacts")
    windows = torch.arange(64).view(2, 32)
    for name, text in (("same", "dense"), ("small", "rtn@4"), ("quick", "rtn@4 + copyspec")):
        source, recipe = load(ModelSource.parse("default")), Recipe.parse(text)
        made = compress(source, recipe, windows)
        artefact.save(made.view, source, recipe, made.structure, folder / name)
    return folder


def written(variants, names=(), prompt=PROMPT, count=12, temperature=0.0, folder=None):
    """All events of one text, and how it ended."""
    ours, theirs = socket.socketpair()
    panes = [{"run_id": "", "recipe": "dense", "artefact": None}]
    panes += [{"run_id": n, "recipe": n, "artefact": str(variants / n)} for n in names]
    order = {
        "writing_id": "w", "source": ModelSource.parse("default").to_json(), "panes": panes,
        "prompt": prompt, "new_tokens": count, "temperature": temperature, "seed": 3,
    }  # fmt: skip
    ours.sendall(json.dumps(order).encode() + b"\n")
    with theirs:
        emit = Emitter(theirs.fileno())
        thread = threading.Thread(target=serve, args=({"idle_seconds": 60.0}, variants / "x", emit))
        thread.start()
        events, lines = [], ours.makefile("rb")
        for line in lines:
            event = json.loads(line)["data"]
            events.append(event)
            if {"done", "failed", "stopped"} & set(event):
                break
        lines.close()
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(30)
        ours.close()
    return events


def of(events, pane, key="token"):
    return [event[key] for event in events if event.get("pane") == pane and key in event]


def test_every_pane_writes_what_its_model_writes_alone(variants):
    events = written(variants, ("small",))
    for pane, found in ((0, load(ModelSource.parse("default"))),
                        (1, artefact.load(variants / "small").loaded)):  # fmt: skip
        model = TransformersModel(found.model)
        expected = generate(model, [found.open(PROMPT)], 12)[0].tokens
        assert tuple(of(events, pane)) == expected
        assert "".join(of(events, pane, "text")) == found.decode(list(expected))


def test_a_copy_of_the_dense_model_diverges_nowhere(variants):
    events = written(variants, ("same",))
    assert of(events, 1) == of(events, 0)
    assert of(events, 1, "kl") == pytest.approx([0.0] * 12, abs=1e-6)
    assert of(events, 1, "top") == of(events, 1, "dense")


def test_the_divergence_of_a_token_is_that_of_both_models_on_the_same_text(variants):
    events = written(variants, ("small",))
    # in float32: a text is written in it where a step is one call, and bfloat16 strays by 5 %
    dense = load(ModelSource.parse("default"), torch.float32)
    small = artefact.load(variants / "small", dtype=torch.float32).loaded
    tokens = torch.tensor([dense.open(PROMPT) + of(events, 1)])
    place = len(dense.open(PROMPT)) + 4  # of the sixth token
    with torch.inference_mode():
        p, q = (m.model(input_ids=tokens).logits[0, place].float() for m in (dense, small))
    kl = torch.nn.functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True,
                                    reduction="sum")  # fmt: skip
    assert of(events, 1, "kl")[5] == pytest.approx(float(kl), rel=0.05, abs=2e-3)
    assert of(events, 1, "dense_share")[5] == pytest.approx(
        float(p.softmax(-1)[of(events, 1)[5]]), rel=0.05
    )
    assert of(events, 1, "top")[5][0][1] == pytest.approx(float(q.softmax(-1).max()), rel=0.05)


def test_drafting_changes_no_token_and_says_which_were_drafted(variants):
    prompt = "the cat sat on the mat. the cat sat on the mat. the cat sat on the"
    for temperature in (0.0, 0.9):
        events = written(variants, ("small", "quick"), prompt, 24, temperature)
        assert of(events, 2) == of(events, 1)


def test_bytes_are_those_of_the_tensors(variants):
    events = written(variants, ("small",))
    dense, small = of(events, 0, "weights_bytes")[0], of(events, 1, "weights_bytes")[0]
    assert small < 0.6 * dense
    growth = [later - early for early, later in zip(of(events, 0, "cache_bytes"),
              of(events, 0, "cache_bytes")[1:], strict=False)]  # fmt: skip
    assert set(growth) == {growth[0]}


@pytest.mark.parametrize("count", [0, 100_000])
def test_a_text_that_cannot_be_is_refused_in_a_sentence(variants, count):
    prompt = "" if not count else PROMPT
    events = written(variants, (), prompt, count or 4)
    if count or load(ModelSource.parse("default")).open("") == []:
        assert "tokens" in events[-1]["failed"]
    else:
        assert events[-1] == {"writing_id": "w", "done": True}


def test_the_shelf_gives_up_what_was_used_longest_ago():
    shelf = Shelf(len, most=2)
    for key in ("a", "b", "a", "c"):
        assert shelf.take(key, lambda made=key: made * 3) == (key * 3, 3)
    assert ["a" in shelf, "b" in shelf, "c" in shelf] == [True, False, True]
