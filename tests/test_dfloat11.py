"""DFloat11: lengths against the best code, every bit back, models smaller and the same."""

import heapq

import pytest
import torch

from backend import formats
from backend.compress import compress
from backend.errors import OutOfReachError
from backend.formats import EntropyCoded, WindowCoded
from backend.measure import lossless
from backend.models import artefact
from backend.models.encoding import weights
from backend.models.view import View
from backend.recipes import Recipe
from kernels import huffman
from tests import tiny_transformers as tiny

WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cost_of_huffman(counts):
    """Bits of Huffman's own code, by merging the two rarest again and again."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


def test_codes_cost_what_huffmans_cost_where_the_limit_does_not_bind():
    counts = torch.randint(0, 50, (40,), generator=torch.Generator().manual_seed(1))
    lengths = huffman.code_lengths(counts)
    assert int((counts * lengths).sum()) == cost_of_huffman(counts.tolist())
    assert torch.equal(lengths == 0, counts == 0)


def test_the_limit_holds_and_the_code_stays_complete():
    """Counts that double ask for codes of up to 29 bits; 12 are enough, and no code is wasted."""
    lengths = huffman.code_lengths(torch.tensor([1 << place for place in range(30)]))
    assert int(lengths.max()) == huffman.LIMIT
    assert float(torch.exp2(-lengths.double()).sum()) == 1.0


def test_a_hand_made_code():
    """Four symbols of 8, 4, 2, 1: lengths 1, 2, 3, 3 and codes 0, 10, 110, 111."""
    lengths = huffman.code_lengths(torch.tensor([8, 4, 2, 1]))
    assert lengths.tolist() == [1, 2, 3, 3]
    symbols = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).repeat(16)
    stream, bases, starts = huffman.encode(symbols, lengths)
    assert stream[:2].tolist() == [0b01011011, 0b10101101]
    assert (bases.tolist(), starts.tolist()) == ([0], [0])
    assert torch.equal(huffman.decode(stream, bases, starts, lengths).flatten(), symbols)


def anything(rows, columns):
    bits = torch.randint(-(2**15), 2**15, (rows, columns), dtype=torch.int16)
    return bits.view(torch.bfloat16)


@pytest.mark.parametrize(
    "values",
    [normal(64, 64), 0.02 * normal(300, 128), normal(3, 7), torch.zeros(5, 64), torch.ones(1, 1)],
)
def test_every_bit_comes_back(values):
    values = values.to(torch.bfloat16)
    for part in (values, anything(*values.shape)):
        held = EntropyCoded.pack(part)
        assert torch.equal(held.exact().view(torch.int16), part.view(torch.int16))


def test_weights_take_what_their_entropy_and_the_starts_of_lanes_ask():
    values = (0.02 * normal(512, 512)).to(torch.bfloat16)
    exponents = (values.view(torch.int16).int() >> 7) & 0xFF
    share = torch.bincount(exponents.flatten()).double() / values.numel()
    entropy = float(-(share[share > 0] * share[share > 0].log2()).sum())
    held = EntropyCoded.pack(values)
    assert 8 + entropy + 0.25 < held.bits < 8 + entropy + 0.25 + 0.15
    assert held.bits / 16 == pytest.approx(0.68, abs=0.01)


@pytest.mark.parametrize("kind", [EntropyCoded, WindowCoded])
def test_numbers_of_another_type_are_refused(kind):
    with pytest.raises(TypeError, match="convert it first"):
        kind.pack(torch.zeros(2, 4))


def test_rows_are_looked_up_alone():
    values = (0.02 * normal(100, 128)).to(torch.bfloat16)
    held, rows = EntropyCoded.pack(values), torch.tensor([5, 99, 0, 5])
    assert torch.equal(held.take(rows), values.float()[rows])


@pytest.mark.parametrize("codes", ["huffman", "fixed"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "phi", "mixtral", "opt"])
def test_a_whole_model_gets_smaller_and_gives_the_same_logits_to_the_bit(family, codes, tmp_path):
    shape = {"n_embd": 64} if family == "gpt2" else WIDE
    if family in ("phi", "opt", "mixtral"):
        shape = {"hidden_size": 64, "intermediate_size": 128}
    if family == "opt":
        shape = {"hidden_size": 64, "ffn_dim": 128, "word_embed_proj_dim": 64}
    model = tiny.build(family, dtype=torch.bfloat16, tie_word_embeddings=True, **shape)
    source, tokens = tiny.loaded(model, tmp_path / "dense"), tiny.tokens()
    dense = {name: one.clone() for name, one in weights(View(model)).items()}
    expected = model(input_ids=tokens).logits
    before = sum(part.nbytes for part in model.parameters())
    recipe = Recipe.parse(f"dfloat11(codes={codes})")
    result = compress(source, recipe, tiny.tokens(4, 16))
    assert torch.equal(model(input_ids=tokens).logits, expected)
    assert isinstance(result.view.embedding, formats.HeldEmbedding)
    artefact.save(result.view, source, recipe, result.structure, tmp_path / "artefact")
    found = artefact.load(tmp_path / "artefact")
    assert torch.equal(found.loaded.model(input_ids=tokens).logits, expected)
    proof = lossless.compare_bits(dense, weights(found.view))
    assert proof.different == ()
    assert proof.digests[0] == proof.digests[1]
    held = {part.data_ptr(): part for part in [*found.loaded.model.state_dict().values()]}
    assert sum(part.nbytes for part in held.values()) < 0.85 * before
    assert any("stay as they were" in remark for remark in result.remarks)


def test_what_other_methods_left_in_16_bits_is_coded_too():
    model = tiny.build("llama", dtype=torch.bfloat16, **WIDE)
    source = tiny.loaded_here(model)
    plain = compress(source, Recipe.parse("lord@12"), tiny.tokens(4, 16)).view
    sizes = {site.name: plain.held(site).nbytes for site in plain.all_sites()}
    model = tiny.build("llama", dtype=torch.bfloat16, **WIDE)
    source = tiny.loaded_here(model)
    coded = compress(source, Recipe.parse("lord@12 + dfloat11"), tiny.tokens(4, 16)).view
    for site in coded.all_sites():
        assert torch.equal(coded.held(site).dense(), plain.held(site).dense())
        assert coded.held(site).nbytes < sizes[site.name]


def test_a_budget_that_the_values_do_not_meet_is_refused_with_what_they_need():
    source = tiny.loaded_here(tiny.build("llama", dtype=torch.bfloat16, **WIDE))
    with pytest.raises(OutOfReachError, match=r"needs 1\d\.\d\d bits per number .*, not 10"):
        compress(source, Recipe.parse("dfloat11@10"), tiny.tokens(4, 16))


def test_a_model_in_float32_is_left_as_it_is_and_said_so():
    source = tiny.loaded_here(tiny.build("llama"))
    result = compress(source, Recipe.parse("dfloat11"), tiny.tokens(4, 16))
    assert result.remarks == ["dfloat11 found no matrix of bfloat16 numbers; nothing was coded."]
