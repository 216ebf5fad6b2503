"""Distances from the dense model: hand calculation, exact zeros and the cache path."""

import math

import numpy as np
import pytest
import torch

from backend.measure import evaluation, quality, reference, scores
from tests.tiny_model import TinyModel

LETTERS = "abcdefghijklmno"


def encode(text):
    return [LETTERS.index(letter) + 1 for letter in text]


def decode(ids):
    return "".join(LETTERS[token - 1] for token in ids)


def documents(count=12, length=40, seed=0):
    generator = np.random.default_rng(seed)
    return [
        (f"text {number}", "ab"[number % 2], "".join(generator.choice(list(LETTERS), length)))
        for number in range(count)
    ]


def evaluate(window=16, **settings):
    return evaluation.build(
        documents(**settings), encode, decode, bos=0, tier="smoke", window=window
    )


class Fixed:
    """Gives the same logits at every position."""

    has_cache_method, end_token, device = False, None, torch.device("cpu")

    def __init__(self, logits):
        self.row = torch.tensor(logits)
        self.vocabulary_size = len(logits)

    def logits(self, tokens):
        return self.row.expand(*tokens.shape, -1).clone()


class Cached(TinyModel):
    """Asks to be run through its cache."""

    has_cache_method = True


def pair(dense, variant, window=16, **settings):
    tokens = evaluate(window, **settings)
    return quality.score(variant, tokens, reference.capture(dense, tokens, "k"))


def by_name(found):
    return {each.name: each for each in found}


def test_each_token_of_a_document_is_scored_once_after_an_opening_token():
    tokens = evaluate(window=16, count=3)
    for number in range(3):
        windows = [w for w, d in zip(tokens.windows, tokens.documents, strict=True) if d == number]
        assert all(window[0] == 0 for window in windows)
        text = {name: text for name, _, text in documents(3)}[tokens.names[number]]
        # 40 tokens are windows of 15 + 15 + 10.
        assert [token for window in windows for token in window[1:]] == encode(text)
    assert tokens.tokens == tokens.text_bytes == 120


def test_without_an_opening_token_windows_overlap_by_their_context():
    tokens = evaluation.build(documents(1), encode, decode, bos=None, tier="smoke", window=14)
    assert [window[0] for window in tokens.windows[1:]] == [w[-1] for w in tokens.windows[:-1]]
    assert tokens.tokens == tokens.text_bytes == 39


def test_every_document_gives_its_first_window_before_any_gives_a_second():
    tokens = evaluate(window=16, count=80)
    assert tokens.tokens >= 1016
    assert tokens.documents[:68] == tuple(range(68))
    assert [name[5:] for name in tokens.names[:4]] == ["0", "1", "2", "3"]


def test_the_key_names_tokens_and_cuts():
    assert evaluate().key == evaluate().key
    assert len({evaluate().key, evaluate(seed=1).key, evaluate(window=17).key}) == 3


def test_text_too_short_for_a_window_is_refused():
    with pytest.raises(ValueError, match="8 tokens"):
        evaluation.build([("a", "b", "abc")], encode, decode, bos=0)


@pytest.mark.parametrize("top", [None, 6])
def test_a_model_is_at_exactly_zero_from_itself(top):
    model, tokens = TinyModel(seed=1), evaluate()
    kept = reference.capture(model, tokens, "k", top=top)
    found = quality.score(model, tokens, kept)
    assert found.kld.max() == 0
    assert (found.nll_p == found.nll_q).all()
    assert found.agree.all()


def test_divergence_of_two_fixed_distributions_by_hand():
    # p = (3/4, 1/4), q = (1/4, 3/4): KL = 3/4 ln 3 + 1/4 ln 1/3 = ln(3)/2.
    dense, variant = Fixed([math.log(3), 0.0]), Fixed([0.0, math.log(3)])
    text = [(str(number), "a", "x" * 20) for number in range(8)]
    tokens = evaluation.build(
        text, lambda t: [0] * len(t), lambda ids: "x" * len(ids), bos=1, tier="smoke"
    )
    found = quality.score(variant, tokens, reference.capture(dense, tokens, "k"))
    assert found.kld == pytest.approx(math.log(3) / 2, rel=1e-3)
    told = by_name(scores.readings(found))
    assert told["dnll"].value == pytest.approx(math.log(3), rel=1e-6)
    assert told["ppl_ratio"].value == pytest.approx(3, rel=1e-6)
    assert told["ppl"].value == pytest.approx(4, rel=1e-6)
    assert told["bpb"].value == pytest.approx(2, rel=1e-6)
    assert told["rms_dp"].value == pytest.approx(50, rel=1e-6)
    assert told["top1_agree"].value == 0
    assert told["kld_conf_3"].samples == 160
    assert "conf_flip" not in told


def test_divergence_equals_the_formula_in_double_precision():
    dense, variant = TinyModel(seed=1), TinyModel(seed=1)
    with torch.no_grad():
        variant.blocks[0].output.add_(0.1)
    tokens = evaluate(count=4)
    found = quality.score(variant, tokens, reference.capture(dense, tokens, "k"))
    expected = []
    with torch.inference_mode():
        for window in tokens.windows:
            row = torch.tensor([window])
            p = dense.logits(row)[0, :-1].double().log_softmax(-1)
            q = variant.logits(row)[0, :-1].double().log_softmax(-1)
            expected += (p.exp() * (p - q)).sum(-1).tolist()
    assert found.kld == pytest.approx(expected, rel=0.02, abs=1e-5)
    assert found.kld.mean() == pytest.approx(np.mean(expected), rel=2e-3)


def test_top_probabilities_and_one_bucket_give_a_lower_bound():
    dense, variant = TinyModel(seed=1), TinyModel(seed=2)
    tokens = evaluate(count=4)
    whole = quality.score(variant, tokens, reference.capture(dense, tokens, "k", top=16))
    kept = reference.capture(dense, tokens, "k", top=3)
    part = quality.score(variant, tokens, kept)
    assert (part.kld <= whole.kld + 1e-5).all()
    assert 0 < part.kld.mean() < whole.kld.mean()
    assert kept.captured < 0.999
    assert "lower bound" in by_name(scores.readings(part))["kld_mean"].note


@pytest.mark.parametrize("top", [None, 5])
def test_token_by_token_through_a_cache_gives_the_same_as_one_forward(top):
    dense, tokens = TinyModel(seed=1), evaluate(window=24, count=9)
    kept = reference.capture(dense, tokens, "k", top=top)
    variant = TinyModel(seed=2)
    plain = quality.score(variant, tokens, kept)
    cached = quality.score(Cached(seed=2), tokens, kept)
    assert cached.kld == pytest.approx(plain.kld, abs=1e-3)
    assert cached.nll_q == pytest.approx(plain.nll_q, abs=1e-4)


def test_a_cache_is_fed_sixteen_tokens_and_then_one_by_one():
    model, fed = Cached(seed=1), []
    make = model.session

    def session(batch, length):
        made = make(batch, length)
        feed = made.feed
        made.feed = lambda tokens: (fed.append(tokens.shape[1]), feed(tokens))[1]
        return made

    model.session = session
    tokens = evaluate(window=24, count=2, length=23)
    reference.capture(model, tokens, "k")
    assert fed == [16] + [1] * 8


def test_a_reference_comes_back_from_disk_only_under_its_key(tmp_path):
    model, tokens = TinyModel(seed=1), evaluate(count=2)
    for top in (None, 4):
        kept = reference.capture(model, tokens, "right", top=top)
        kept.save(tmp_path / "r.safetensors")
        again = reference.Reference.load(tmp_path / "r.safetensors", "right")
        assert torch.equal(again.values, kept.values)
        assert quality.score(model, tokens, again).kld.max() == 0
        with pytest.raises(ValueError, match="take it again"):
            reference.Reference.load(tmp_path / "r.safetensors", "wrong")


def test_scores_come_back_from_disk(tmp_path):
    found = pair(TinyModel(seed=1), TinyModel(seed=2))
    found.save(tmp_path / "s.safetensors")
    again = scores.TokenScores.load(tmp_path / "s.safetensors")
    assert (again.kld == found.kld).all()
    assert scores.readings(again) == scores.readings(found)
    assert scores.compare(found, again).value == 0


def test_another_vocabulary_is_an_error_not_a_number():
    tokens = evaluate(count=2)
    kept = reference.capture(TinyModel(), tokens, "k")
    with pytest.raises(ValueError, match="17 tokens"):
        quality.score(TinyModel(vocabulary=17), tokens, kept)


def test_other_tokens_than_the_references_are_an_error():
    kept = reference.capture(TinyModel(), evaluate(count=2), "k")
    with pytest.raises(ValueError, match="holds 80 tokens"):
        quality.score(TinyModel(), evaluate(count=3), kept)


@pytest.mark.faults
def test_a_broken_position_leaves_only_its_share():
    class Broken(TinyModel):
        def logits(self, tokens):
            result = super().logits(tokens).clone()
            result[:, 3, 2] = torch.nan
            return result

    found = scores.readings(pair(TinyModel(), Broken(), count=10))
    assert [each.name for each in found] == ["nonfinite"]
    assert found[0].value == pytest.approx(100 * 30 / 400)


def test_a_broken_dense_model_is_refused():
    with pytest.raises(ValueError, match="nothing can be compared"):
        reference.capture(Fixed([0.0, math.inf]), evaluate(), "k")


def synthetic(kld, pmax=None, agree=None, clusters=10):
    size = len(kld)
    kld = np.asarray(kld, np.float32)
    nothing = np.zeros(size, np.float32)
    return scores.TokenScores(
        nothing,
        nothing,
        kld,
        nothing + 0.5 if pmax is None else np.asarray(pmax, np.float32),
        np.ones(size, np.uint8) if agree is None else np.asarray(agree, np.uint8),
        (np.arange(size) % clusters).astype(np.int32),
        (np.arange(size) % 20 + 1).astype(np.int32),
        "key",
    )


def test_percentiles_are_ranks_of_the_tokens():
    told = by_name(scores.readings(synthetic(np.arange(1, 101))))
    assert (told["kld_p50"].value, told["kld_p90"].value, told["kld_p99"].value) == (50, 90, 99)
    assert told["kld_max"].value == 100
    assert told["kld_p50"].low < 50 <= told["kld_p50"].high


def test_confidence_buckets_split_at_the_documented_edges():
    pmax = np.repeat([0.0, 0.25, 0.5, 0.75, 0.95, 1.0], 10)
    told = by_name(scores.readings(synthetic(pmax * 10, pmax)))
    means = [told[f"kld_conf_{bucket}"].value for bucket in range(5)]
    assert means == pytest.approx([0, 2.5, 5, 7.5, 9.75], rel=1e-6)


def test_confident_flips_are_counted_among_confident_tokens():
    pmax, agree = [0.95] * 40 + [0.5] * 60, [0] * 4 + [1] * 36 + [0] * 60
    told = by_name(scores.readings(synthetic(np.ones(100), pmax, agree)))
    assert told["conf_flip"].value == pytest.approx(10)
    assert told["top1_agree"].value == pytest.approx(36)


def test_no_exception_seen_is_bounded_by_the_rule_of_three():
    told = by_name(scores.readings(synthetic(np.ones(100))))
    assert told["top1_agree"].value == 100
    assert told["top1_agree"].low == pytest.approx(97)
    assert told["nonfinite"].high == pytest.approx(3)


def test_variants_are_compared_on_the_same_tokens_only():
    first, second = synthetic(np.ones(50)), synthetic(np.full(50, 0.5))
    assert scores.compare(first, second).value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="same tokens"):
        scores.compare(pair(TinyModel(), TinyModel(seed=1)), second)


def test_variants_are_resampled_together():
    first = synthetic(np.random.default_rng(0).exponential(size=200))
    second = synthetic(first.kld * 1.01)
    draws = scores.replicates([first, second], 300)
    assert draws.shape == (300, 2)
    assert (draws[:, 0] < draws[:, 1]).all()
    assert draws.max(axis=0)[0] > draws.min(axis=0)[1]
    with pytest.raises(ValueError, match="same tokens"):
        scores.replicates([first, pair(TinyModel(), TinyModel(seed=1))])


def test_thirteen_words_in_common_are_leakage():
    words = [f"w{n}" for n in range(20)]
    text = " ".join(words)
    assert evaluation.shared_grams([text], [text.upper()]) == 8
    assert evaluation.shared_grams([text], ["other " + " ".join(words[:12])]) == 0
    assert evaluation.shared_grams([text], ["other " + " ".join(words[4:17])]) == 1
    assert evaluation.shared_grams(["short"], ["short"]) == 0


def test_noise_moves_the_model_a_little_and_goes_away_again():
    model, tokens = TinyModel(seed=1), evaluate(count=10)
    kept = reference.capture(model, tokens, "k")
    (floor,) = quality.noise_floor(model, model.blocks, tokens, kept)
    (more,) = quality.noise_floor(
        model, [model.blocks[0], model.blocks[0], *model.blocks], tokens, kept
    )
    assert 0 < floor.value < 1e-4
    assert more.value > floor.value
    assert quality.score(model, tokens, kept).kld.max() == 0
    assert not model.blocks[0]._forward_hooks


def test_pressure_scores_only_what_follows_the_prefill():
    tokens = evaluation.pressure(documents(20), encode, bos=0, context=24, continuation=8)
    assert tokens.tokens == 8 * len(tokens.windows)
    dense = TinyModel(seed=1)
    kept = reference.capture(dense, tokens, "k")
    model, fed = Cached(seed=2), []
    make = model.session
    model.session = lambda batch, length: fed.append(batch) or make(batch, length)
    found = quality.score(model, tokens, kept)
    assert found.position.min() == 24
    told = scores.pressure_readings(found, width=4)
    assert [each.name for each in told] == ["kld_pressure_mean", "kld_pressure_1", "kld_pressure_5"]
    assert told[0].value == pytest.approx((told[1].value + told[2].value) / 2)


def test_short_documents_are_joined_for_pressure_and_too_few_are_refused():
    tokens = evaluation.pressure(documents(4, 10), encode, bos=0, context=12, continuation=5)
    assert len(tokens.windows) == 2
    with pytest.raises(ValueError, match="shorter than"):
        evaluation.pressure(documents(2, 10), encode, bos=0, context=64, continuation=5)
