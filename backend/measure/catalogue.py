"""The catalogue of metrics: what each number is called, its unit, its direction and its sense.

Standard library only. Page, store, command line and tests derive from here.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from backend.measure.axes import ABILITIES, READINGS

PROTOCOL = "cq-2"

Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Metric:
    """What a number means.

    Attributes:
        name: the key; a family of metrics ends in `_`.
        title: what a chart or a table calls it.
        unit: unit of value, low and high.
        direction: which way is better.
        help: one sentence for whoever reads the number.
        group: quality, ability, size, speed, writing, cache, lossless or forecast.
        evaluation: key in `axes.AXES`, or empty.
        axis: whether it makes sense as an axis of a chart.
        log: whether that axis is logarithmic.
    """

    name: str
    title: str
    unit: str
    direction: Direction
    help: str
    group: str
    axis: bool = False
    log: bool = False
    evaluation: str = ""


def metric(name: str) -> Metric:
    """Return what `name` means; raise KeyError with the nearest names for an unknown one."""
    if name in METRICS:
        return METRICS[name]
    for prefix, family in FAMILIES.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            member = name[len(prefix) :].replace("_", " ")
            return replace(family, name=name, title=f"{family.title}: {member}")
    near = difflib.get_close_matches(name, METRICS, 3)
    some = "some are resident_bytes, kld_mean, decode_speedup"
    hint = f"nearest: {', '.join(near)}" if near else some
    raise KeyError(f"No metric is called {name!r}; {hint}.")


def _catalogue() -> dict[str, Metric]:
    """Return every metric that is no family, in the order a page lists them."""
    listed = [*_quality(), *_abilities(), *_size(), *_speed(), *_writing(), *_forecast()]
    found = {each.name: each for each in listed}
    for axis, names in READINGS.items():
        for name in names:
            found[name] = replace(found[name], evaluation=axis)
    return found


def _abilities() -> list[Metric]:
    """Return the summary of each group of abilities, and what changed over all of them."""
    told = {
        "knowledge": "Facts known by heart, from often to seldom told ones",
        "retrieval": "Answers that stand in the prompt",
        "reasoning": "Answers that follow from the prompt or from rules",
        "generation": "How a sentence or a text goes on",
    }
    groups = [
        Metric(
            f"kick_{name}",
            name.capitalize(),
            "%",
            "higher",
            f"{told[name]}: share of right answers over all abilities of the group.",
            "ability",
            axis=True,
        )
        for name in ABILITIES
    ]
    flips = Metric(
        "flips",
        "Answers flipped",
        "%",
        "lower",
        "Share of questions whose outcome differs from the dense model's, for better or worse.",
        "ability",
        axis=True,
    )
    return [*groups, flips]


def _quality() -> list[Metric]:
    """Return distances from the dense model on held-out text."""
    nats = "nats/token"
    edges = ("0", "0.25", "0.5", "0.75", "0.95", "1")
    rows: list[tuple[str, str, str, Direction, str, bool, bool]] = [
        ("kld_mean", "KL divergence", nats, "lower",
         "Mean distance from the dense model's next-token distribution; 0 is identical.",
         True, True),
        *(
            (f"kld_p{rank}", f"KL divergence, {rank}th percentile", "nats", "lower",
             f"{rank} of 100 tokens are nearer to the dense model than this.", True, True)
            for rank in (50, 90, 99)
        ),
        ("kld_max", "KL divergence, worst token", "nats", "lower",
         "Distance from the dense model at the worst token of the text.", False, True),
        *(
            (f"kld_conf_{bucket}", f"KL divergence, dense confidence {low} to {high}", nats,
             "lower", "Mean distance over the tokens where the dense model's best guess has a "
             f"probability of {low} to {high}.", False, True)
            for bucket, (low, high) in enumerate(pairwise(edges))
        ),
        ("kld_floor", "KL divergence of bf16 noise", nats, "none",
         "Distance the dense model has from itself when every block is disturbed by one bf16 "
         "rounding; smaller distances mean nothing.", False, True),
        ("dnll", "Added loss", nats, "lower",
         "Mean extra surprise at the true next token, against the dense model.", True, False),
        ("ppl_ratio", "Perplexity ratio", "×", "lower",
         "Perplexity divided by that of the dense model on the same tokens.", True, True),
        ("ppl", "Perplexity", "", "lower",
         "Exponent of the mean loss per token, by one tokenizer and protocol.", False, False),
        ("wt2_ppl", "WikiText-2 perplexity", "", "lower",
         "By the protocol of papers: raw test text in windows of 2,048 tokens; comparable under "
         "one tokenizer.", False, False),
        ("wt2_ppl_ratio", "WikiText-2 perplexity ratio", "×", "lower",
         "WikiText-2 perplexity divided by the dense model's on the same windows.", True, True),
        ("bpb", "Bits per byte", "bits/byte", "lower",
         "Loss per UTF-8 byte of text, the only loss comparable between models.", True, False),
        ("top1_agree", "Same first choice", "%", "higher",
         "Share of tokens at which the dense model would have chosen the same.", True, False),
        ("conf_flip", "Confident choices changed", "%", "lower",
         "Share of the tokens where the dense model is at least 90 % sure and the choice changes "
         "all the same.", True, False),
        ("rms_dp", "Change of the true token's probability", "%", "lower",
         "Root mean square change of the probability given to the true token.", False, False),
        ("mnn_ratio", "Matrix nuclear norm ratio", "×", "none",
         "Spread of the last states divided by the dense model's on the same texts.", True, False),
        ("nonfinite", "Broken positions", "%", "lower",
         "Share of positions whose logits are not finite; above 0 it is broken.", False, False),
    ]  # fmt: skip
    return [
        Metric(name, title, unit, direction, text, "quality", axis, log)
        for name, title, unit, direction, text, axis, log in rows
    ]


def _size() -> list[Metric]:
    """Return bytes of files, memory and cache."""
    group = "size"
    rows: tuple[tuple[str, str, str, str, bool, bool], ...] = (
        ("disk_bytes", "Size on disk", "B", "Files needed to load the model again.", True, True),
        (
            "resident_bytes",
            "Resident memory",
            "B",
            "Storages of all weights, buffers and packed objects, each counted once.",
            True,
            True,
        ),
        (
            "footprint_bytes",
            "Weights and full cache",
            "B",
            "Resident memory and the caches of 8 sequences as long as the model allows, to 4,096.",
            True,
            True,
        ),
        (
            "bpw_eff",
            "Bits per original weight",
            "bits",
            "Resident bits divided by the parameters of the dense model.",
            True,
            True,
        ),
        (
            "bpw_linear",
            "Bits per weight, compressed matrices",
            "bits",
            "The same over the compressed matrices only, as papers count.",
            True,
            True,
        ),
        (
            "peak_bytes",
            "Peak memory",
            "B",
            "Highest memory above the start while the model ran, in a process of its own.",
            True,
            True,
        ),
        (
            "kv_bytes_per_token",
            "Cache per token",
            "B/token",
            "Growth of the cache per token of context, from two lengths.",
            True,
            True,
        ),
        ("kv_fixed_bytes", "Cache, fixed part", "B", "Cache at length zero.", False, False),
        ("compress_peak", "Peak while compressing", "B", "Highest memory above the start.", 0, 0),
    )
    return [
        Metric(name, title, unit, "lower", text, group, bool(axis), bool(log))
        for name, title, unit, text, axis, log in rows
    ]


def _speed() -> list[Metric]:
    """Return rates, ratios and durations."""
    rate, ratio, group = "tok/s", "×", "speed"
    rows: tuple[tuple[str, str, str, Direction, str, bool], ...] = (
        ("load_s", "Time to load", "s", "lower", "From the files to a model ready to run.", False),
        ("compress_s", "Time to compress", "s", "lower", "Wall time of compressing.", True),
        ("prefill_tps", "Prefill", rate, "higher", "Prompt tokens read per second.", True),
        ("prefill_tps_mixed", "Prefill, mixed lengths", rate, "higher",
         "Prompt tokens read per second where prompts of many lengths come together.", True),
        ("decode_tps", "Decode", rate, "higher", "Tokens written per second, one sequence.", True),
        ("decode_tps_8", "Decode, 8 at once", rate, "higher", "Tokens per second over 8.", True),
        ("prefill_speedup", "Prefill speed-up", ratio, "higher", "Against the dense model.", True),
        ("prefill_speedup_mixed", "Prefill speed-up, mixed lengths", ratio, "higher",
         "Against the same model with the same prompts, padded to the longest.", True),
        ("decode_speedup", "Decode speed-up", ratio, "higher", "Against the dense model.", True),
        ("decode_speedup_8", "Decode speed-up, 8 at once", ratio, "higher",
         "Against the dense model with 8 sequences.", True),
        ("ttft_ms", "Time to first token", "ms", "lower", "From ids to the first new id.", True),
        ("tpot_ms", "Time per token", "ms", "lower", "Mean time per later token.", True),
        ("mean_accepted", "Tokens per call", "tokens", "higher",
         "Tokens gained per call of the model, its own included; 1 without a drafter.", True),
    )  # fmt: skip
    return [
        Metric(name, title, unit, direction, text, group, axis, log=unit in (rate, ratio))
        for name, title, unit, direction, text, axis in rows
    ]


def _writing() -> list[Metric]:
    """Return what is seen in the text a model writes."""
    rows: tuple[tuple[str, str, str, Direction, str], ...] = (
        (
            "exact_len",
            "Identical beginning",
            "tokens",
            "higher",
            "Median number of tokens before the text departs from the dense model's.",
        ),
        ("ident_rate", "Identical texts", "%", "higher", "Share of texts without any difference."),
        ("rep4", "Repeated 4-grams", "%", "lower", "Share of 4-grams that came before."),
        ("loop", "Texts ending in a loop", "%", "lower", "Share whose last 32 tokens repeat."),
        (
            "len_ratio",
            "Length ratio",
            "×",
            "none",
            "Mean length against the dense model's; outside 0.9 to 1.1 is suspect.",
        ),
        (
            "self_nll",
            "Added strangeness",
            "nats/token",
            "lower",
            "How much more the dense model is surprised by this text than by its own.",
        ),
    )
    return [
        Metric(name, title, unit, direction, text, "writing", axis=name != "len_ratio")
        for name, title, unit, direction, text in rows
    ]


def _forecast() -> list[Metric]:
    """Return what was expected of a run before it began, graded by what was measured."""
    rows = (
        ("predicted_resident_bytes", "Expected resident memory", "B"),
        ("predicted_compress_peak", "Expected peak while compressing", "B"),
        ("predicted_seconds", "Expected time to the result", "s"),
        ("predicted_kld_mean", "Expected KL divergence", "nats/token"),
    )
    text = "Said before the run began; the measured number stands beside it."
    return [Metric(name, title, unit, "none", text, "forecast") for name, title, unit in rows]


METRICS: dict[str, Metric] = _catalogue()

FAMILIES: dict[str, Metric] = {
    "ability_": Metric(
        "ability_",
        "Ability",
        "%",
        "higher",
        "Share of questions answered right, without sampling.",
        "ability",
        axis=True,
    ),
    "task_": Metric(
        "task_",
        "Task",
        "%",
        "higher",
        "Share of questions of a task of lm-evaluation-harness answered right.",
        "ability",
        axis=True,
        evaluation="knowledge and capacity",
    ),
    "needle_": Metric(
        "needle_",
        "Needle",
        "%",
        "higher",
        "Share of facts found again in a long text, among eight candidates.",
        "cache",
        axis=True,
    ),
    "kld_pressure_": Metric(
        "kld_pressure_",
        "KL divergence after compressing the cache",
        "nats/token",
        "lower",
        "Distance from the dense model on the tokens that follow a compressed cache.",
        "cache",
        axis=True,
        log=True,
    ),
    "lossless_": Metric(
        "lossless_",
        "Lossless",
        "differences",
        "lower",
        "Differences found by a proof of losslessness; 0 proves it.",
        "lossless",
    ),
}
