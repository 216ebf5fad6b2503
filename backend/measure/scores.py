"""Scores of every token and the readings that follow from them, by protocol cq-2.

numpy only: a result can be read, compared and analysed again without the model and without torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from backend.measure import statistics
from backend.measure.catalogue import PROTOCOL
from backend.measure.reading import Reading, take
from backend.measure.statistics import Interval, as_fields

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CONFIDENCE_EDGES = (0.0, 0.25, 0.5, 0.75, 0.95, math.inf)
CONFIDENT = 0.9
CAPTURED_ENOUGH = 0.999


@dataclass(frozen=True)
class TokenScores:
    """One row per scored token; not-a-number where the variant's logits were not finite.

    Attributes:
        nll_p: −log p(target) of the dense model [n].
        nll_q: the same of the variant.
        kld: KL(dense‖variant) in nats.
        pmax: the dense model's highest probability.
        agree: 1 where both choose the same token.
        document: index of the document.
        position: place within the window, from 1.
        key: hash of the evaluation set.
        text_bytes: UTF-8 bytes of the scored text.
        captured: probability the reference holds; below 1 `kld` is a lower bound.
    """

    nll_p: NDArray[np.float32]
    nll_q: NDArray[np.float32]
    kld: NDArray[np.float32]
    pmax: NDArray[np.float32]
    agree: NDArray[np.uint8]
    document: NDArray[np.int32]
    position: NDArray[np.int32]
    key: str
    text_bytes: int = 0
    captured: float = 1.0

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Where the variant gave numbers."""
        return np.isfinite(self.kld) & np.isfinite(self.nll_q)

    def save(self, path: Path) -> None:
        """Write the sidecar as safetensors."""
        facts = {
            "protocol": PROTOCOL,
            "key": self.key,
            "text_bytes": self.text_bytes,
            "captured": self.captured,
        }
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _arrays()}
        save_file(arrays, path, {"scores": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> TokenScores:
        """Return the sidecar at `path`; raise ValueError for another protocol or other content."""
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {}).get("scores", "{}"))
            if facts.get("protocol") != PROTOCOL:
                raise ValueError(f"{path.name} is no sidecar of protocol {PROTOCOL}.")
            arrays = {name: file.get_tensor(name) for name in _arrays()}
        del facts["protocol"]
        return cls(**arrays, **facts)


def _arrays() -> list[str]:
    """Return the names of the per-token fields."""
    plain = {"key", "text_bytes", "captured"}
    return [each.name for each in fields(TokenScores) if each.name not in plain]


def readings(scores: TokenScores) -> list[Reading]:
    """Return every quality reading; only `nonfinite` for a model with broken positions."""
    size, good = scores.kld.size, scores.finite
    broken = int(size - good.sum())
    if broken:
        note = "broken: some logits are not finite, so no distance is given"
        return take("nonfinite", 100 * broken / size, samples=size, note=note)
    bound = statistics.rule_of_three(size) * 100
    found = take("nonfinite", 0.0, 0.0, bound, samples=size)
    return [*found, *_divergence(scores), *_loss(scores), *_choices(scores)]


def by_document(scores: TokenScores) -> dict[str, list[float]]:
    """Return sums over the tokens of each document, from which any mean can be drawn again.

    `tokens` counts them; `kld`, `dnll` and `agree` are sums. Empty for a broken model.
    """
    if not scores.finite.all():
        return {}
    _, member = np.unique(scores.document, return_inverse=True)
    columns = {
        "tokens": np.ones(scores.kld.size),
        "kld": scores.kld,
        "dnll": scores.nll_q.astype(np.float64) - scores.nll_p,
        "agree": scores.agree,
    }
    return {name: np.bincount(member, each).tolist() for name, each in columns.items()}


def pressure_readings(scores: TokenScores, width: int = 16) -> list[Reading]:
    """Return the mean KL divergence by distance from the point where the cache was compressed.

    `kld_pressure_1` holds the first `width` tokens, then `kld_pressure_17` and so on, and
    `kld_pressure_mean` all of them.
    """
    if not scores.finite.all():
        return []
    mean = statistics.clustered_log_mean(scores.kld, scores.document)
    found = take("kld_pressure_mean", **as_fields(mean))
    distance = scores.position - scores.position.min()
    for start in range(0, int(distance.max()) + 1, width):
        near = (distance >= start) & (distance < start + width)
        part = statistics.clustered_log_mean(scores.kld[near], scores.document[near])
        found += take(f"kld_pressure_{start + 1}", **as_fields(part))
    return found


def compare(first: TokenScores, second: TokenScores) -> Interval:
    """Return the mean KL divergence of `first` less that of `second`, on the same tokens."""
    if first.key != second.key:
        raise ValueError("Two variants are compared on the same tokens; these differ.")
    return statistics.paired_difference(first.kld, second.kld, first.document)


def replicates(variants: Sequence[TokenScores], draws: int = 2000) -> NDArray[np.float64]:
    """Return the mean KL divergence [draws, variants] of joint resamplings of the documents.

    All variants share each draw, so that fronts and differences stay paired. Fewer than eight
    documents are resampled too; what that is worth is for the caller to say.
    """
    if len({each.key for each in variants}) > 1:
        raise ValueError("Variants are resampled together on the same tokens; these differ.")
    table = np.stack([each.kld for each in variants], axis=1)
    document = variants[0].document
    weights = statistics.bootstrap_weights(int(document.max()) + 1, draws)
    return statistics.bootstrap_means(table, document, weights)


def _divergence(scores: TokenScores) -> list[Reading]:
    """Return mean, percentiles and the mean by confidence of the dense model."""
    kld, document, size = scores.kld.astype(np.float64), scores.document, scores.kld.size
    note = ""
    if scores.captured < CAPTURED_ENOUGH:
        note = f"lower bound: the reference holds {100 * scores.captured:.2f} % of the probability"
    mean = statistics.clustered_log_mean(kld, document)
    told = as_fields(mean)
    told["note"] = "; ".join(part for part in (mean.note, note) if part)
    found = take("kld_mean", **told)
    ranks = (50.0, 90.0, 99.0)
    values = np.percentile(kld, ranks, method="inverted_cdf")
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(ranks)
    groups = int(document.max()) + 1
    if mean.low is not None or len(np.unique(document)) >= statistics.FEWEST_CLUSTERS:
        weights = statistics.bootstrap_weights(groups)
        replicates = statistics.bootstrap_percentiles(kld, document, ranks, weights)
        ends = [statistics.central(column) for column in replicates.T]
    for rank, value, (low, high) in zip(ranks, values, ends, strict=True):
        found += take(f"kld_p{rank:.0f}", value, low, high, samples=size, note=note)
    found += take("kld_max", float(kld.max()), samples=size, note=note)
    for bucket in range(5):
        lower, upper = CONFIDENCE_EDGES[bucket : bucket + 2]
        inside = (scores.pmax >= lower) & (scores.pmax < upper)
        part = statistics.clustered_log_mean(kld[inside], document[inside])
        found += take(f"kld_conf_{bucket}", **as_fields(part))
    return found


def _loss(scores: TokenScores) -> list[Reading]:
    """Return what concerns the true next token."""
    q, p = scores.nll_q.astype(np.float64), scores.nll_p.astype(np.float64)
    document = scores.document
    added = statistics.paired_difference(q, p, document)
    loss = statistics.clustered_mean(q, document)
    square = statistics.clustered_mean((np.exp(-q) - np.exp(-p)) ** 2, document)
    found = [
        *take("dnll", **as_fields(added)),
        *take("ppl_ratio", **as_fields(added.through(_exp))),
        *take("ppl", **as_fields(loss.through(_exp))),
        *take("rms_dp", **as_fields(square.through(lambda x: math.sqrt(max(x, 0.0))), 100)),
    ]
    if scores.text_bytes:
        per_byte = q.size / (math.log(2) * scores.text_bytes)
        found += take("bpb", **as_fields(loss, per_byte))
    return found


def _choices(scores: TokenScores) -> list[Reading]:
    """Return how often the first choice stays."""
    agree, document = scores.agree.astype(np.float64), scores.document
    found = _share("top1_agree", agree, document)
    sure = scores.pmax >= CONFIDENT
    if sure.any():
        found += _share("conf_flip", 1 - agree[sure], document[sure])
    return found


def _share(name: str, events: NDArray[np.float64], document: NDArray[np.int32]) -> list[Reading]:
    """Return a share in percent; with no variation the rule of three gives the open end."""
    mean = statistics.clustered_mean(events, document)
    if mean.value in (0.0, 1.0):
        bound = statistics.rule_of_three(events.size)
        low, high = (0.0, bound) if mean.value == 0 else (1 - bound, 1.0)
        mean = Interval(mean.value, low, high, events.size, "no exception seen: rule of three")
    told = as_fields(mean, 100)
    for end in ("low", "high"):
        if told[end] is not None:
            told[end] = min(max(told[end], 0.0), 100.0)
    return take(name, **told)


def _exp(value: float) -> float:
    """Return e to the `value`, infinite instead of an error."""
    return math.exp(value) if value < 700 else math.inf
