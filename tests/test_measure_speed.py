"""Speed on a simulated clock: nothing here waits, nothing depends on the host."""

import numpy as np
import pytest
import torch

from backend.decoding.drafter import Draft, Silent
from backend.measure import speculation, speed
from backend.measure.rounds import Arm, Clock, Limits, ratio, run_rounds, same_arm_passes
from tests.tiny_model import TinyModel


class Host:
    """A clock that only planted work moves; wall time may be noisier than CPU time."""

    def __init__(self, wall_noise=0.0, cpu_noise=0.0, seed=0):
        self.generator = np.random.default_rng(seed)
        self.wall_noise, self.cpu_noise = wall_noise, cpu_noise
        self.wall = self.cpu = 0.0

    @property
    def clock(self):
        return Clock(lambda: self.wall, lambda: self.cpu)

    def work(self, seconds):
        self.wall += seconds * self.generator.lognormal(0, self.wall_noise)
        self.cpu += seconds * self.generator.lognormal(0, self.cpu_noise)


def arms(host, **seconds):
    return [Arm(name, lambda _, s=s: host.work(s)) for name, s in seconds.items()]


def test_an_arm_fills_its_slice_of_each_round():
    host, runs = Host(), []
    arm = Arm("a", lambda _: (runs.append(1), host.work(0.01)))
    rounds = run_rounds([arm], Limits(100, 0.045, 10, 12), clock=host.clock)
    assert rounds.column("a") == pytest.approx(0.01)
    # Six passes to be steady, then five per round; one arm has no ratio left to learn.
    assert len(runs) == 6 + 5 * 10


def test_preparation_is_not_timed():
    host = Host()
    arm = Arm("a", lambda state: host.work(state), lambda: host.work(9) or 0.5)
    rounds = run_rounds([arm], Limits(1000), clock=host.clock)
    assert rounds.column("a") == pytest.approx(0.5)


def test_steady_arms_stop_at_the_fewest_rounds():
    host = Host()
    rounds = run_rounds(arms(host, a=0.1, b=0.2, c=0.1), Limits(1000), clock=host.clock)
    assert len(rounds.wall) == 10
    assert ratio(rounds, "b", "a").value == pytest.approx(2)


def test_noise_that_cannot_be_beaten_stops_at_the_most_rounds():
    host = Host(wall_noise=0.5)
    rounds = run_rounds(arms(host, a=0.1, b=0.1), Limits(1e6), clock=host.clock)
    assert len(rounds.wall) == 48


def test_time_is_kept_even_if_one_round_is_all_there_is():
    host = Host()
    rounds = run_rounds(arms(host, a=1.0, b=1.0), Limits(20.0), clock=host.clock)
    assert host.wall <= 20
    host = Host()
    rounds = run_rounds(arms(host, a=30.0, b=30.0), Limits(20.0), clock=host.clock)
    assert len(rounds.wall) == 1
    assert ratio(rounds, "a", "b").low is None


@pytest.mark.parametrize(("names", "orders"), [("ab", 2), ("abc", 6)])
def test_two_arms_alternate_and_three_are_shuffled(names, orders):
    host, run = Host(), []
    listed = [Arm(name, lambda _, name=name: (run.append(name), host.work(1.0))) for name in names]
    run_rounds(listed, Limits(1e6, fewest=40, most=40), clock=host.clock)
    width = len(names)
    tail = run[-40 * width :]
    assert len({tuple(tail[start : start + width]) for start in range(0, len(tail), width)}) == (
        orders
    )
    if width == 2:
        assert "".join(tail[:8]) in ("abbaabba", "baabbaab")


def test_a_planted_8_percent_is_recovered_from_rounds_under_drift():
    host = Host(wall_noise=0.05, seed=4)
    rounds = run_rounds(arms(host, a=0.108, b=0.1), Limits(1e6), clock=host.clock)
    found = ratio(rounds, "a", "b")
    assert found.low < 1.08 < found.high
    assert found.value == pytest.approx(1.08, abs=0.03)


@pytest.mark.faults
def test_the_gate_opens_on_a_quiet_host_and_closes_on_a_noisy_one():
    def gate(noise, seed, b=0.1):
        host = Host(wall_noise=noise, seed=seed)
        limits = Limits(1e6, half_width=0.0)
        rounds = run_rounds(arms(host, a=0.1, b=b), limits, clock=host.clock)
        return same_arm_passes(ratio(rounds, "a", "b"))

    assert sum(gate(0.03, seed) for seed in range(20)) >= 16
    assert not any(gate(0.5, seed) for seed in range(20))
    assert not any(gate(0.01, seed, b=0.11) for seed in range(5))


class Timed(TinyModel):
    """Takes planted time per fed token."""

    def __init__(self, host, per_call):
        super().__init__(positions=300)
        self.host, self.per_call = host, per_call

    def session(self, batch, length):
        made = super().session(batch, length)
        feed = made.feed

        def timed(tokens, parents=None):
            self.host.work(self.per_call)
            return feed(tokens, parents)

        made.feed = timed
        return made


class Idle:
    """Takes planted time per call and does nothing."""

    device, vocabulary_size, end_token, has_cache_method = torch.device("cpu"), 2, None, False

    def __init__(self, host, per_call):
        self.host, self.per_call = host, per_call

    def session(self, batch, length):
        return self

    def crop(self, length):
        pass

    def croppable(self):
        return 0 if self.has_cache_method else PLAN.steps

    def feed(self, tokens):
        self.host.work(self.per_call)
        return torch.zeros(*tokens.shape, 2)

    def read(self, tokens):
        return self.feed(tokens)[:, -1]

    def ahead(self, token, count, end):
        return []


PLAN = speed.SpeedPlan(200.0, 16, 8, 4, (1, 8))


def measured(host, **settings):
    dense, variant = Idle(host, 0.02), Idle(host, 0.01)
    found = speed.measure_speed(variant, dense, [1, 2, 3], PLAN, clock=host.clock, **settings)
    return found, {each.name: each for each in found.readings}


def test_rates_and_ratios_of_planted_models():
    report, told = measured(Host())
    assert told["prefill_tps"].value == pytest.approx(16 / 0.01)
    assert told["decode_tps"].value == pytest.approx(1 / 0.01)
    assert told["decode_tps_8"].value == pytest.approx(8 / 0.01)
    assert told["ttft_ms"].value == pytest.approx(10)
    assert told["tpot_ms"].value == pytest.approx(10)
    for name in ("prefill_speedup", "decode_speedup", "decode_speedup_8"):
        assert told[name].value == pytest.approx(2)
        assert told[name].note == {"decode_speedup_8": "dense 400 tok/s"}.get(name, told[name].note)
    assert not report.noisy_host
    assert set(report.rounds) == {"prefill", "decode", "decode_8"}


def test_on_a_noisy_host_the_ratio_is_of_cpu_time_and_says_so():
    report, told = measured(Host(wall_noise=0.6, seed=1))
    assert report.noisy_host
    assert told["decode_speedup"].value == pytest.approx(2)
    assert told["decode_speedup"].note.startswith("noisy_host")
    assert told["decode_tps"].note.startswith("spread")


def test_where_cpu_time_says_nothing_a_noisy_host_claims_no_speed_up():
    host, report = Host(wall_noise=0.6, seed=1), speed.SpeedReport()
    listed = arms(host, **{"dense": 0.1, "dense again": 0.1, "variant": 0.05})
    rounds = run_rounds(listed, Limits(1e6), clock=host.clock)
    report.add("decode", rounds, torch.device("cuda"))
    assert report.noisy_host
    assert [each.name for each in report.readings] == ["decode_tps"]


def test_a_speed_beyond_the_memory_is_withdrawn():
    _, told = measured(Host(), bytes_per_step=1000, bandwidth=1000 / 0.01)
    assert "decode_speedup" in told
    _, told = measured(Host(), bytes_per_step=1000, bandwidth=900 / 0.01)
    assert "decode_speedup" not in told
    assert told["decode_tps"].note.startswith("invalid")


@pytest.mark.parametrize("cached", [False, True])
def test_a_plain_cache_is_cut_back_and_a_compressed_one_made_anew(cached):
    host, made, cut = Host(), [], []

    class Watched(Idle):
        has_cache_method = cached

        def session(self, batch, length):
            made.append(length)
            return self

        def crop(self, length):
            cut.append(length)

    plan = speed.SpeedPlan(1.0, 16, 8, 4, (1,), 0.0)
    speed.measure_speed(Watched(host, 0.001), None, [1], plan, clock=host.clock)
    assert (made.count(12) == 1) != cached
    assert bool(cut) != cached
    assert set(cut) <= {8}


def test_without_a_dense_model_there_are_rates_only():
    host = Host()
    report = speed.measure_speed(Idle(host, 0.01), None, [1], PLAN, clock=host.clock)
    names = {each.name for each in report.readings}
    assert names == {"prefill_tps", "decode_tps", "decode_tps_8", "ttft_ms", "tpot_ms"}


def test_no_recorded_tokens_are_refused():
    with pytest.raises(ValueError, match="recorded tokens"):
        speed.measure_speed(TinyModel(), None, [])


class Knowing(Silent):
    """Proposes what the plain model would write, three tokens ahead."""

    def __init__(self, model):
        self.model = model

    def propose(self, tokens, limit):
        grown = list(tokens)
        with torch.inference_mode():
            for _ in range(min(3, limit)):
                logits = TinyModel.logits(self.model, torch.tensor([grown]))
                grown.append(int(logits[0, -1].argmax()))
        return Draft.chain(grown[len(tokens) :])


def test_a_drafter_that_is_right_saves_calls():
    host = Host()
    model, twin = Timed(host, 0.01), TinyModel(positions=300)
    report = speculation.measure_speculation(
        model, Knowing(twin), [[1, 2], [3, 4, 5]], new_tokens=9, seconds=20, clock=host.clock
    )
    told = {each.name: each for each in report.readings}
    # 9 tokens: 9 calls without; with, 1 + 4 + 4 tokens in 3 calls.
    assert told["decode_speedup"].value == pytest.approx(3)
    assert told["mean_accepted"].value == pytest.approx(4)
    assert told["mean_accepted"].low is None, "two prompts are no spread to judge by"
    assert told["decode_tps"].value == pytest.approx(9 / 0.03)


class Alternating(Knowing):
    """Knows four tokens of every other text, by the first id of its prompt, and none else."""

    def propose(self, tokens, limit):
        return super().propose(tokens, limit) if tokens[0] % 2 else Draft()


def test_tokens_a_call_are_counted_once_a_prompt_with_an_interval_by_prompts():
    """By hand: texts of 9 tokens take calls of 4 and 4, or 8 calls of 1, after one for the prompt.

    Eight prompts of which every other one is known: 4 * 2 calls of 4 and 4 * 8 of 1 are 64 tokens
    in 40 calls, 1.6 each. What a prompt's calls are beyond that adds up to 2 * 2.4 = 4.8, or to
    8 * -0.6 = -4.8: sqrt(8 / 7 * 8 * 4.8^2) / 40 is the error, and t of 7 degrees is 2.3646.
    """
    host = Host()
    model, twin = Timed(host, 0.01), TinyModel(positions=300)
    prompts = [[number, 5] for number in range(8)]
    drafter = Alternating(twin)
    for seconds in (1e-3, 20):  # a round alone, and more rounds than prompts
        report = speculation.measure_speculation(
            model, drafter, prompts, new_tokens=9, seconds=seconds, clock=host.clock
        )
        found = next(one for one in report.readings if one.name == "mean_accepted")
        error = 2.3646 * (8 / 7 * 8 * 4.8**2) ** 0.5 / 40
        assert (found.value, found.samples) == (pytest.approx(1.6), 40)
        assert (found.low, found.high) == pytest.approx((1.6 - error, 1.6 + error), rel=1e-4)


def test_copying_moves_bytes():
    assert speed.copy_bandwidth(2**20, seconds=0.01) > 1e6
