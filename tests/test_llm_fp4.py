"""LLM-FP4: values of the formats by hand, and the search against every choice."""

import pytest
import torch

from backend.formats import FloatCodes
from backend.formats.floating import values
from backend.methods.quantise import llm_fp4
from backend.methods.quantise.llm_fp4 import LlmFp4
from tests.contract import inputs_of, normal, statistics_of


@pytest.mark.parametrize(
    ("exponent", "mantissa", "expected"),
    [
        (2, 1, [0, 0.5, 1, 1.5, 2, 3, 4, 6]),  # E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6
        (1, 2, [0, 1, 2, 3, 4, 5, 6, 7]),  # E1M2 is an integer grid
        (3, 0, [0, 1, 2, 4, 8, 16, 32, 64]),  # E3M0 is powers of two
        (1, 0, [0, 1]),
    ],
)
def test_codes_stand_for_what_the_paper_lists(exponent, mantissa, expected):
    found = values(exponent, mantissa)
    sizes = torch.tensor(expected) / expected[-1]
    assert torch.allclose(found[: len(expected)], sizes)
    assert torch.equal(found[len(expected) :], -found[: len(expected)])


def test_a_format_takes_its_codes_and_a_scale_a_group():
    codes = torch.randint(0, 16, (64, 256))
    held = FloatCodes.pack(
        codes, torch.rand(64, 2) + 0.5, exponent_bits=2, mantissa_bits=1, group_size=128
    )
    assert held.bits == 4 + 16 / 128
    table, scales = values(2, 1), held.scales.dense()
    for row, column in ((0, 0), (5, 130), (63, 255)):
        expected = table[codes[row, column]] * scales[row, column // 128]
        assert float(held.dense()[row, column]) == pytest.approx(float(expected))


def test_the_search_finds_the_best_of_every_split_and_reach():
    weight, counts = normal(6, 32), torch.rand(32, generator=torch.Generator().manual_seed(2)) + 0.1
    held, losses = llm_fp4.search(weight, counts, 4, 32)
    best = torch.full((6,), float("inf"))
    totals = {}
    for exponent in (1, 2, 3):
        row = torch.full((6,), float("inf"))
        for share in llm_fp4.CLIPPED:
            scale = (share * weight.abs().amax(1, keepdim=True)).bfloat16().float()
            points = values(exponent, 3 - exponent)[None, None] * scale[..., None]
            nearest = (weight[..., None] - points).abs().amin(-1)
            row = torch.minimum(row, (nearest.square() * counts).sum(1))
        totals[exponent] = float(row.sum())
        best = row if totals[exponent] == min(totals.values()) else best
    assert held.exponent_bits == min(totals, key=totals.get)
    assert torch.allclose(losses, best, rtol=1e-4)
    lost = ((held.dense() - weight).square() * counts).sum(1)
    assert torch.allclose(lost, best, rtol=1e-4)


def test_even_weights_take_mantissas_and_heavy_tails_exponents():
    even = torch.linspace(-1, 1, 128).repeat(8, 1)
    heavy = normal(8, 128) ** 3
    counts = torch.ones(128)
    splits = [llm_fp4.search(one, counts, 4, 128)[0].exponent_bits for one in (even, heavy)]
    assert splits[0] == 1 < splits[1]


def test_a_budget_between_two_widths_gives_the_wider_codes_to_the_rows_that_lose_most():
    weight, statistics = normal(64, 64), statistics_of(inputs_of(64))
    weight[::4] *= 20
    held = LlmFp4(4.6, group_size=64).fit(weight, statistics)
    assert (held.fine.code_bits, held.coarse.code_bits) == (5, 4)
    chosen = held._order().argsort()[: held.fine.rows]
    assert set(range(0, 64, 4)) <= set(chosen.tolist())
