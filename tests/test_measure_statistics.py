"""Statistics against hand calculation, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from backend.measure import fronts, statistics


def clustered_sample(generator, clusters, spread):
    sizes = generator.integers(5, 30, clusters)
    member = np.repeat(np.arange(clusters), sizes)
    shared = generator.normal(0, spread, clusters)[member]
    return shared + generator.normal(0, 1, member.size), member


def coverage(interval_of, trials=2000, clusters=24, spread=0.6):
    generator = np.random.default_rng(11)
    covered = 0
    for _ in range(trials):
        values, member = clustered_sample(generator, clusters, spread)
        low, high = interval_of(values, member)
        covered += low <= 0 <= high
    return covered / trials


def test_clustered_interval_covers_the_truth_in_95_of_100_worlds():
    def interval(values, member):
        found = statistics.clustered_mean(values, member)
        return found.low, found.high

    assert 0.93 <= coverage(interval) <= 0.97


def test_treating_tokens_as_independent_would_cover_far_less():
    def interval(values, _):
        margin = 1.96 * values.std(ddof=1) / math.sqrt(values.size)
        return values.mean() - margin, values.mean() + margin

    assert coverage(interval, trials=600) < 0.85


def test_clustered_error_by_hand():
    values = [1.0, 3.0] * 4 + [2.0, 2.0] * 4
    member = np.repeat(np.arange(8), 2)
    values[0], values[1] = 5.0, 3.0
    mean = 36 / 16
    sums = np.array([8 - 2 * mean] + [4 - 2 * mean] * 7)
    error = math.sqrt(8 / 7 * (sums**2).sum()) / 16
    found = statistics.clustered_mean(values, member)
    assert found.value == pytest.approx(mean)
    assert found.high - mean == pytest.approx(stats.t.ppf(0.975, 7) * error)


def test_fewer_than_eight_documents_give_no_interval_and_say_so():
    found = statistics.clustered_mean(np.arange(70.0), np.arange(70) % 7)
    assert (found.low, found.high) == (None, None)
    assert "7 documents" in found.note


def test_log_interval_is_symmetric_in_ratio_and_stays_positive():
    values = np.abs(np.random.default_rng(0).normal(0, 1, 200)) ** 3
    found = statistics.clustered_log_mean(values, np.arange(200) % 10)
    assert found.low > 0
    assert found.value / found.low == pytest.approx(found.high / found.value)


def test_paired_difference_refuses_different_tokens():
    with pytest.raises(ValueError, match="same tokens"):
        statistics.paired_difference([1.0, 2.0], [1.0], [0, 1])


def test_pairing_removes_what_both_share():
    generator = np.random.default_rng(1)
    shared, member = clustered_sample(generator, 20, 1.0)
    other = shared + generator.normal(0, 0.01, shared.size)
    paired = statistics.paired_difference(shared, other, member)
    alone = statistics.clustered_mean(shared, member)
    assert paired.high - paired.low < (alone.high - alone.low) / 20


def test_bootstrap_weights_draw_as_many_clusters_as_there_are():
    weights = statistics.bootstrap_weights(7, 50)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == statistics.bootstrap_weights(7, 50)).all()


def test_bootstrap_means_equal_resampling_by_hand():
    values = np.random.default_rng(2).normal(size=(30, 3))
    member = np.arange(30) % 5
    weights = statistics.bootstrap_weights(5, 20)
    means = statistics.bootstrap_means(values, member, weights)
    for row, counts in zip(means, weights, strict=True):
        drawn = np.concatenate(
            [values[member == g] for g in range(5) for _ in range(int(counts[g]))]
        )
        assert row == pytest.approx(drawn.mean(axis=0))


def test_bootstrap_percentiles_equal_resampling_by_hand():
    values = np.random.default_rng(3).exponential(size=200)
    member = np.arange(200) % 10
    weights = statistics.bootstrap_weights(10, 20)
    found = statistics.bootstrap_percentiles(values, member, (50, 99), weights)
    for row, counts in zip(found, weights, strict=True):
        drawn = np.repeat(values, counts[member].astype(int))
        assert row == pytest.approx(np.percentile(drawn, [50, 99], method="inverted_cdf"))


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (3, 9), (10, 10), (1, 14)])
def test_mcnemar_is_the_binomial_sum(lost, gained):
    n = lost + gained
    tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n
    assert statistics.mcnemar(lost, gained) == pytest.approx(min(1, 2 * tail))


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]


def test_wilson_matches_the_reference_and_is_honest_at_the_ends():
    found = statistics.wilson(45, 64)
    reference = stats.binomtest(45, 64).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))
    assert statistics.wilson(0, 64).low == 0.0
    assert statistics.wilson(0, 64).high > 0.04


def test_rule_of_three():
    assert statistics.rule_of_three(300) == pytest.approx(0.01)
    assert statistics.rule_of_three(0) == 1.0


def test_kaplan_meier_median_by_hand():
    # At risk 6: 1 event at 2 leaves 5/6; one censored at 3; of 4, one at 5 leaves 5/8; of 3, one
    # at 7 leaves 5/12, the first below a half.
    times, seen = [2, 3, 5, 7, 9, 9], [True, False, True, True, False, False]
    assert statistics.kaplan_meier_median(times, seen) == 7
    assert statistics.kaplan_meier_median([9, 9, 2], [False, False, True]) is None


def test_trimmed_mean_drops_a_fifth_from_each_end():
    assert statistics.trimmed_mean([1000, 2, 3, 4, -999]) == 3


def test_speed_ratio_recovers_a_planted_8_percent_in_heavy_noise():
    generator = np.random.default_rng(5)
    noise = generator.lognormal(0, 0.05, (2, 48))
    noise[generator.random((2, 48)) < 0.08] *= 5
    found = statistics.speed_ratio(1.08 * noise[0], noise[1])
    assert found.low < 1.08 < found.high
    assert found.value == pytest.approx(1.08, abs=0.03)


def test_too_few_rounds_give_a_ratio_without_interval():
    assert statistics.speed_ratio([2.0, 2.0], [1.0, 1.0]).low is None


def test_a_decreasing_function_keeps_the_ends_in_order():
    found = statistics.Interval(2.0, 1.0, 4.0).through(lambda x: 1 / x)
    assert (found.value, found.low, found.high) == (0.5, 0.25, 1.0)


points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9)


@settings(max_examples=80, deadline=None)
@given(points)
def test_hypervolume_counts_the_cells_of_a_grid(found):
    cells = sum(
        any(x <= a and y <= b for x, y in found) for a, b in itertools.product(range(10), repeat=2)
    )
    assert fronts.hypervolume(found, (10, 10)) == pytest.approx(cells)


@settings(max_examples=80, deadline=None)
@given(points)
def test_front_is_what_no_other_point_beats(found):
    brute = [
        index
        for index, mine in enumerate(found)
        if not any(o[0] <= mine[0] and o[1] <= mine[1] and o != mine for o in found)
    ]
    assert fronts.front(found) == brute


def test_a_sweep_finds_the_same_front_as_every_pair():
    generator = np.random.default_rng(3)
    draws = generator.integers(0, 5, size=(300, 9, 2)).astype(float)  # many ties on either axis
    pairs = [[not any(fronts.better(o, mine) for o in draw) for mine in draw] for draw in draws]
    assert (fronts.front_probability(draws) == np.mean(pairs, axis=0)).all()


def test_a_sweep_with_ties_finds_the_same_front_as_every_pair():
    generator, slack = np.random.default_rng(5), [0.1, 0.2]
    signs = generator.choice([1.0, -1.0], size=(1, 12, 2))  # what is better if larger is negative
    draws = signs * generator.lognormal(sigma=0.2, size=(100, 12, 2))
    pairs = [[not any(fronts.better(o, m, slack) for o in draw) for m in draw] for draw in draws]
    assert (fronts.front_probability(draws, slack) == np.mean(pairs, axis=0)).all()


def test_front_probability_counts_joint_draws():
    generator = np.random.default_rng(7)
    draws = generator.normal(size=(200, 4, 2))
    by_hand = [np.mean([index in fronts.front(draw) for draw in draws]) for index in range(4)]
    assert fronts.front_probability(draws) == pytest.approx(by_hand)


def test_dominance_probability_is_a_share_of_draws():
    first = [[1, 1], [1, 3], [1, 2], [0, 2]]
    assert fronts.dominance_probability(first, [[2, 2]] * 4) == 0.75


def test_a_smaller_win_than_epsilon_is_a_tie():
    assert fronts.better([100, 1.0], [100.5, 1.0])
    assert not fronts.better([100, 1.0], [100.5, 1.0], [0.01, 0.05])
    assert fronts.better([100, 0.9], [99.5, 1.0], [0.01, 0.05])


def test_contribution_is_what_a_point_alone_covers():
    assert fronts.contributions([(0, 5), (5, 0), (6, 6)], (10, 10)) == pytest.approx([25, 25, 0])


def test_normalised_corners_are_one_bit_at_the_floor_and_dense_at_one_nat():
    unit = fronts.normalise([125, 2000, 125], [1e-6, 1.0, 1e-9], 1000, 2000, 1e-6)
    assert unit == pytest.approx(np.array([[0, 0], [1, 1], [0, 0]]))


def test_knee_is_the_corner_of_an_elbow():
    elbow = [(0, 1), (0.05, 0.5), (0.1, 0.1), (0.5, 0.05), (1, 0), (0.9, 0.9)]
    assert fronts.knee(elbow) == 2
    assert fronts.knee(elbow[:3]) is None
    assert fronts.knee_frequency([elbow, elbow, elbow[::-1]]) == (2, pytest.approx(2 / 3))


def test_a_knee_lies_below_the_chord_and_inside_the_square():
    outside = [(0.0, 3.0), (0.01, 2.0)]
    elbow = [(0.1, 0.9), (0.2, 0.2), (0.3, 0.15), (0.9, 0.0)]
    assert fronts.knee(outside + elbow) == 3
    bulging = [(0.0, 1.0), (0.5, 0.9), (0.9, 0.5), (1.0, 0.0)]
    assert fronts.knee(bulging) is None


def test_dominance_has_the_slack_of_each_axis():
    first, second = np.array([100.0, 1.0]), np.array([100.5, 1.04])
    assert fronts.better(first, second)
    assert not fronts.better(first, second, [0.01, 0.05])
    assert fronts.better(first, second, [0.01, 0.03])
