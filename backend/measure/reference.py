"""What the dense model thinks of an evaluation set, taken once and kept.

Small vocabularies are kept whole as fp16 logits below the highest; larger ones as the top
probabilities and the rest in one bucket, which makes every KL divergence a lower bound.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from backend.faults import fault_point
from backend.measure.catalogue import PROTOCOL
from backend.measure.passes import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backend.decoding.model import LanguageModel
    from backend.measure.evaluation import EvaluationSet

WHOLE_BYTES = 256 * 10**6
TOP = 4096
CHUNK_LOGITS = {"cpu": 2**20, "cuda": 2**26}
# Logits further below the highest than this are zero probability in fp32 anyway.
LOWEST = -60000.0


@dataclass(frozen=True)
class Piece:
    """Scored positions of a block: places [m] in the evaluation, targets [m], logits [m, V]."""

    places: torch.Tensor
    targets: torch.Tensor
    logits: torch.Tensor


@dataclass
class Reference:
    """The dense model's distribution at every scored token.

    Attributes:
        key: names model and evaluation; a file with another key is refused.
        vocabulary_size: V.
        nll: −log p(target) [n] in fp32.
        pmax: highest probability [n].
        top: its id [n].
        values: [n, V] fp16 logits below the highest, or [n, K] fp32 log-probabilities.
        ids: [n, K] int32 ids of those, or None when all are there.
    """

    key: str
    vocabulary_size: int
    nll: torch.Tensor
    pmax: torch.Tensor
    top: torch.Tensor
    values: torch.Tensor
    ids: torch.Tensor | None = None

    @property
    def captured(self) -> float:
        """Mean probability that the kept values hold; 1 when all are there."""
        if self.ids is None:
            return 1.0
        return float(self.values.exp().sum(-1, dtype=torch.float64).clamp_max(1.0).mean())

    def divergence(self, places: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return KL(dense‖variant) [m] in nats of fp32 `logits` [m, V] at `places` [m].

        Both sides go through the same rounding, so the dense model is at exactly 0 from itself.
        """
        kept = self.values[places].to(logits.device)
        if self.ids is None:
            p = kept.float().log_softmax(-1)
            q = _below_highest(logits).float().log_softmax(-1)
            return (p.exp() * (p - q)).sum(-1).clamp_min(0.0)
        ids = self.ids[places].to(logits.device, torch.int64)
        q = logits.log_softmax(-1).gather(1, ids)
        probability = kept.exp()
        inside = (probability * (kept - q)).sum(-1, dtype=torch.float64)
        rest_p = (1 - probability.sum(-1, dtype=torch.float64)).clamp_min(0.0)
        rest_q = (1 - q.exp().sum(-1, dtype=torch.float64)).clamp_min(1e-12)
        outside = torch.where(rest_p > 1e-7, rest_p * (rest_p / rest_q).log(), 0.0)
        return (inside + outside).clamp_min(0.0).float()

    def save(self, path: Path) -> None:
        """Write a safetensors file that `load` accepts under the same key."""
        tensors = {"nll": self.nll, "pmax": self.pmax, "top": self.top, "values": self.values}
        if self.ids is not None:
            tensors["ids"] = self.ids
        facts = {"protocol": PROTOCOL, "key": self.key, "vocabulary": self.vocabulary_size}
        unfinished = path.with_name(path.name + ".part")
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            unfinished,
            {"reference": json.dumps(facts)},
        )
        fault_point("reference.write")
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path, key: str) -> Reference:
        """Return the reference saved under `key`; raise ValueError for any other file."""
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("reference", "{}"))
            if facts.get("key") != key or facts.get("protocol") != PROTOCOL:
                raise ValueError(
                    f"{path.name} holds the reference {facts.get('key')!r} of protocol "
                    f"{facts.get('protocol')!r}, not {key!r} of {PROTOCOL!r}; take it again."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return cls(key, facts["vocabulary"], **tensors)


def capture(
    dense: LanguageModel,
    evaluation: EvaluationSet,
    key: str,
    *,
    top: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Reference:
    """Return the reference of the `dense` model on `evaluation`.

    Args:
        dense: the model as it was before anything was done to it.
        evaluation: the tokens.
        key: names both in a cache.
        top: keep this many probabilities per token even where all would fit.
        progress: called with the share done.

    Raises:
        ValueError: a dense logit is not finite, so nothing can be compared with it.
    """
    count, width = evaluation.tokens, dense.vocabulary_size
    whole = top is None and width * count * 2 <= WHOLE_BYTES
    kept = width if whole else min(width, top or TOP)
    nll, pmax = torch.empty(count), torch.empty(count)
    best = torch.empty(count, dtype=torch.int32)
    values = torch.empty(count, kept, dtype=torch.float16 if whole else torch.float32)
    ids = None if whole else torch.empty(count, kept, dtype=torch.int32)
    done = 0
    for piece in pieces(dense, evaluation):
        if not piece.logits.isfinite().all():
            raise ValueError(
                "The dense model gives logits that are not finite; nothing can be compared with it."
            )
        scores = piece.logits.log_softmax(-1)
        nll[piece.places] = losses(piece).cpu()
        highest, choice = scores.max(-1)
        pmax[piece.places] = highest.exp().cpu()
        best[piece.places] = choice.int().cpu()
        if ids is None:
            values[piece.places] = _below_highest(piece.logits).cpu()
        else:
            largest = scores.topk(kept, dim=-1)
            values[piece.places] = largest.values.cpu()
            ids[piece.places] = largest.indices.int().cpu()
        done += len(piece.places)
        if progress is not None:
            progress(done / count)
    return Reference(key, width, nll, pmax, best, values, ids)


def pieces(model: LanguageModel, evaluation: EvaluationSet) -> Iterator[Piece]:
    """Yield every scored position of `evaluation` once, as fp32 logits of bounded size."""
    if len(evaluation.windows) == 0:
        return
    chunk = max(1, CHUNK_LOGITS.get(model.device.type, 2**22) // model.vocabulary_size)
    for block in blocks(model, evaluation.windows, evaluation.prefill):
        width = block.logits.shape[1]
        lines, columns, targets, places = [], [], [], []
        for line, index in enumerate(block.rows):
            window = evaluation.windows[index]
            begin = max(evaluation.first - 1, block.start)
            end = min(len(window) - 1, block.start + width)
            steps = range(begin, end)
            lines += [line] * len(steps)
            columns += [step - block.start for step in steps]
            targets += window[begin + 1 : end + 1]
            shift = evaluation.offsets[index] + 1 - evaluation.first
            places += [step + shift for step in steps]
        for start in range(0, len(lines), chunk):
            cut = slice(start, start + chunk)
            yield Piece(
                torch.tensor(places[cut]),
                torch.tensor(targets[cut], device=block.logits.device),
                block.logits[lines[cut], columns[cut]].float(),
            )


def losses(piece: Piece) -> torch.Tensor:
    """Return −log of the probability of each target [m]; the one way for both models."""
    return torch.nn.functional.cross_entropy(piece.logits, piece.targets, reduction="none")


def _below_highest(logits: torch.Tensor) -> torch.Tensor:
    """Return fp16 logits with 0 as the highest: exact where the probability is."""
    return (logits - logits.amax(-1, keepdim=True)).clamp_min(LOWEST).half()
