"""Every cache method in a model of every family: what it writes, and what it cannot treat."""

import pytest
import torch

from backend.caches.base import DenseLayerCache
from backend.caches.codecs import Codec
from backend.errors import ModelError
from backend.methods import catalogue
from backend.methods.base import CacheMethod
from backend.models.language_model import TransformersModel
from backend.models.observing import Observed
from backend.models.session import key_value_shape
from tests import looking
from tests import tiny_transformers as tiny

METHODS = {key: cls for key, cls in catalogue().items() if issubclass(cls, CacheMethod)}
FAMILIES = ["llama", "qwen3", "phi", "gpt2", "opt", "neox", "mixtral", "gemma2", "gemma3"]


class Asking(DenseLayerCache):
    """Keeps everything, and answers the queries itself."""

    attends = True


class AskingCodec(Codec):
    def layer(self, index):
        return Asking()

    def bits(self, heads, head_dim):
        return 16.0


@pytest.mark.parametrize("family", tiny.CONFIGS)
def test_a_cache_that_answers_itself_gives_what_the_models_attention_gives(family):
    model, tokens = tiny.build(family), tiny.tokens(2, 30)
    expected = TransformersModel(model).logits(tokens)
    before = model.config._attn_implementation
    session = TransformersModel(model, AskingCodec()).session(2, 30)
    parts = [session.feed(part) for part in tokens.split([9, 1, 12, 1, 1, 6], dim=1)]
    assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-3)
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", METHODS)
def test_the_largest_budget_writes_nearly_what_no_method_writes(key, family):
    network, tokens = tiny.build(family), tiny.tokens(2, 60)
    expected = TransformersModel(network).logits(tokens)
    codec = METHODS[key]().at(1000).codec(*key_value_shape(network.config))
    model = TransformersModel(network, looking.fitted(codec, Observed(network, tiny.tokens(4, 60))))
    session = model.session(2, 60)
    parts = [session.feed(part) for part in tokens.split([30, *[1] * 20, 10], dim=1)]
    assert (torch.cat(parts, 1) - expected).norm() < 0.05 * expected.norm()
    assert session.length == 60


@pytest.mark.parametrize("key", METHODS)
def test_layers_with_a_window_of_their_own_are_named(key):
    network = tiny.build("gemma3")
    codec = METHODS[key]().at(1000).codec(*key_value_shape(network.config))
    model = TransformersModel(network, looking.fitted(codec, Observed(network, tiny.tokens(4, 60))))
    assert model.untreated_layers == [0]


def test_a_model_that_hands_out_no_queries_is_refused(monkeypatch):
    network = tiny.build("llama")
    monkeypatch.setattr(type(network), "_supports_attention_backend", False)
    with pytest.raises(ModelError, match="hands no queries"):
        TransformersModel(network, AskingCodec())
