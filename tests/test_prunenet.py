"""PruneNet: distances of spectra by hand, and that the policy learns what is rewarded."""

import pytest
import torch
from scipy import stats

from backend.calibrate.walk import Walk
from backend.methods.structure import prunenet
from backend.methods.structure.prunenet import Policy, Prunenet
from backend.models.view import View
from tests import tiny_transformers as tiny
from tests.contract import normal

WINDOWS = tiny.tokens(4, 24)


def test_the_distance_is_the_largest_gap_of_two_distributions():
    """By hand: below 3 lie 2 of 2 numbers on one side and 1 of 4 on the other."""
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 3.0, 4.0, 5.0])
    assert prunenet.distance(first, second) == 0.75
    a, b = normal(40).sort().values, normal(31, seed=1).sort().values
    assert prunenet.distance(a, b) == pytest.approx(stats.ks_2samp(a.numpy(), b.numpy()).statistic)


@pytest.mark.parametrize("shape", [(24, 7), (5, 12)])
def test_a_spectrum_is_that_of_the_singular_values(shape):
    weight = normal(*shape)
    expected = torch.linalg.svdvals(weight.double()).flip(0)
    assert torch.allclose(prunenet.spectrum(weight), expected, atol=1e-6)


def test_scores_are_those_of_the_two_matrices():
    weight, policy = normal(6, 4), Policy(normal(6, 4), torch.Generator().manual_seed(0))
    expected = (weight @ policy.inner.T + policy.offset) @ policy.outer
    assert torch.allclose(policy.scores(weight), expected, atol=1e-5)


def test_what_is_rewarded_becomes_likelier_than_the_rest():
    """Neurons written from the first channel pay, those from the second do not."""
    weight = torch.eye(2).repeat(8, 1)
    policy, noise = Policy(weight, torch.Generator().manual_seed(0)), torch.zeros(16)
    paying, others = torch.arange(0, 16, 2), torch.arange(1, 16, 2)
    gaps = []
    for _ in range(200):
        scores = policy.scores(weight).detach()
        gaps.append(float(scores[paying].mean() - scores[others].mean()))
        policy.learn(weight, noise, paying, 10.0)
    assert gaps[-1] > gaps[0] + 0.5


def test_the_best_of_more_episodes_keeps_spectra_at_least_as_near():
    weights = [normal(48, 16) * torch.logspace(0, -2, 16), normal(48, 16, seed=1)]

    def near(episodes):
        chosen = Prunenet(12.0, episodes=episodes).chosen(weights, [30, 30])
        return sum(
            1 / prunenet.distance(prunenet.spectrum(one), prunenet.spectrum(one[places]))
            for one, places in zip(weights, chosen, strict=True)
        )

    assert near(1) <= near(10) <= near(40)
    assert near(40) > near(1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "mixtral"])
def test_all_networks_lose_the_same_share_within_the_budget(family):
    model = tiny.build(family)
    view = View(model)
    whole = view.numbers
    record = Prunenet(13.0, episodes=2).rewrite(Walk(view, WINDOWS))
    assert len({sum(one) for one in record["kept"].values()}) == 1
    assert 0.9 * 13 / 16 * whole < view.numbers <= 13 / 16 * whole
