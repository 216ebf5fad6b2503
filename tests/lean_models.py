"""A model that decodes by its own modules beside the same by transformers, and what they give."""

import torch

from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny

FAMILIES = {"llama": {}, "mistral": {"sliding_window": None}, "qwen2": {}, "qwen3": {}}
TREE = [-1, 0, 0, 1, -1]


def both(model, codec=None):
    lean, plain = TransformersModel(model, codec), TransformersModel(model, codec, lean=False)
    assert not lean.loop
    assert plain.loop
    return lean, plain


def follow(model, batch=1):
    """Logits of a prompt, of tokens one by one beyond the room, and after a crop."""
    tokens = tiny.tokens(batch, 20)
    session = model.session(batch, 14)
    found = [session.feed(tokens[:, :9])]
    found += [session.feed(tokens[:, at : at + 1]) for at in range(9, 20)]
    session.crop(11)
    found += [session.feed(tokens[:, at : at + 1]) for at in range(11, 15)]
    found.append(session.feed(tokens[:, 15:20]))
    assert session.length == 20
    return torch.cat(found, dim=1)


def branch(model):
    """Logits of a tree, of one branch kept, and of what comes after."""
    tokens = tiny.tokens(1, 16)
    session = model.session(1, 16)
    session.feed(tokens[:, :8])
    found = [session.feed(tokens[:, 8:13], TREE)]
    session.pick(8, [0, 2])
    found += [session.feed(tokens[:, at : at + 1]) for at in (13, 14)]
    assert session.length == 12
    return torch.cat(found, dim=1)


def near(first, second, tolerance=1e-4):
    assert first.shape == second.shape
    gap = (first.double() - second.double()).norm() / second.double().norm()
    assert gap < tolerance
