"""Scores a variant against the dense reference, token by token.

What the scores mean is in `scores`; which tokens, in `evaluation`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from backend.measure.reading import Reading, take
from backend.measure.reference import Reference, losses, pieces
from backend.measure.scores import TokenScores
from backend.measure.statistics import as_fields, clustered_log_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from backend.decoding.model import LanguageModel
    from backend.measure.evaluation import EvaluationSet

BF16_ROUNDING = 2.0**-9


def score(
    model: LanguageModel,
    evaluation: EvaluationSet,
    reference: Reference,
    progress: Callable[[float], None] | None = None,
) -> TokenScores:
    """Return the scores of `model` at every token of `evaluation`.

    Args:
        model: the variant; one with a cache method is run token by token.
        evaluation: the tokens the reference was taken on.
        reference: what the dense model thinks of them.
        progress: called with the share done.

    Raises:
        ValueError: vocabulary or number of tokens differ from the reference's.
    """
    if model.vocabulary_size != reference.vocabulary_size:
        raise ValueError(
            f"The model has {model.vocabulary_size} tokens and the reference "
            f"{reference.vocabulary_size}; distributions over different vocabularies have no "
            "distance."
        )
    count = evaluation.tokens
    if count != len(reference.nll):
        raise ValueError(
            f"The reference holds {len(reference.nll)} tokens, the evaluation {count}; take the "
            "reference again."
        )
    nll, kld = torch.full((count,), torch.nan), torch.full((count,), torch.nan)
    agree = torch.zeros(count, dtype=torch.uint8)
    done = 0
    for piece in pieces(model, evaluation):
        whole = piece.logits.isfinite().all(-1)
        logits = piece.logits.masked_fill_(~whole[:, None], 0.0)
        loss = losses(piece)
        distance = reference.divergence(piece.places, logits)
        same = (logits.argmax(-1).cpu() == reference.top[piece.places]) & whole.cpu()
        nll[piece.places] = loss.masked_fill(~whole, torch.nan).cpu()
        kld[piece.places] = distance.masked_fill(~whole, torch.nan).cpu()
        agree[piece.places] = same.to(torch.uint8)
        done += len(piece.places)
        if progress is not None:
            progress(done / count)
    lengths = torch.tensor([len(window) - evaluation.first for window in evaluation.windows])
    document = torch.tensor(evaluation.documents, dtype=torch.int32).repeat_interleave(lengths)
    position = torch.cat(
        [torch.arange(evaluation.first, len(window)) for window in evaluation.windows]
    )
    return TokenScores(
        reference.nll.numpy(),
        nll.numpy(),
        kld.numpy(),
        reference.pmax.numpy(),
        agree.numpy(),
        document.numpy(),
        position.int().numpy(),
        evaluation.key,
        evaluation.text_bytes,
        reference.captured,
    )


def noise_floor(
    dense: LanguageModel,
    blocks: Iterable[torch.nn.Module],
    evaluation: EvaluationSet,
    reference: Reference,
) -> list[Reading]:
    """Return `kld_floor`: how far one bf16 rounding per block moves the dense model from itself."""
    with block_noise(blocks):
        noisy = score(dense, evaluation, reference)
    if not noisy.finite.all():
        return []
    return take("kld_floor", **as_fields(clustered_log_mean(noisy.kld, noisy.document)))


@contextmanager
def block_noise(
    blocks: Iterable[torch.nn.Module], scale: float = BF16_ROUNDING, seed: int = 0
) -> Iterator[None]:
    """Multiply the output of each block by 1 + scale·N(0, 1) while the context is open."""
    generators: dict[torch.device, torch.Generator] = {}

    def disturb(_module: object, _arguments: object, output: object) -> object:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.device not in generators:
            generators[hidden.device] = torch.Generator(hidden.device).manual_seed(seed)
        noise = torch.randn(hidden.shape, generator=generators[hidden.device], device=hidden.device)
        noisy = hidden * (1 + scale * noise).to(hidden.dtype)
        return (noisy, *output[1:]) if isinstance(output, tuple) else noisy

    handles = [block.register_forward_hook(disturb) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
