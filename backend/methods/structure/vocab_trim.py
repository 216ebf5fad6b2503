"""Vocabulary trimming: delete the rows of tokens that the target text does not use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend import formats
from backend.errors import ModelError
from backend.later import torch
from backend.methods.base import ModelMethod, Needs, Stage, setting

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.walk import Walk
    from backend.methods.anatomy import Anatomy
    from backend.models.view import View

DAMPING = 1e-3  # share of the mean square of the inputs


@dataclass(frozen=True)
class VocabTrim(ModelMethod):
    """Delete the rows of tokens that the calibration text uses least or not at all.

    Embedding and head keep the rows of the tokens that the target text, that of calibration,
    uses most, as many as the budget holds. All other tokens share one row, so that any text can
    still be read and the tokenizer stays as it is. The softmax counts that row once for each of
    them; it is set so that together they are as likely as before, which their mean would make far
    too little. A head that is tied to the embedding stays tied, shared row and all; one that is not
    is cut in the same places, and its embedding shares the mean.
    """

    stage = Stage.RESHAPE
    needs = Needs.TEXT
    version = 2
    paper = "arXiv 2305.15020"
    claim = "About half of the vocabulary is enough to keep the quality in one language."
    limits = "Tokens that were deleted can be read, not told apart; blocks stay whole."
    yields = ("dense",)
    holds_tables = True

    bits: float = setting(
        14.0, "Bits per original number of the model, 16 for each that stays.", low=1.0, high=16.0
    )

    def least(self, anatomy: Anatomy) -> int:
        """One token's rows, those that the others share, and a bit a token.

        Raises:
            ModelError: no table of tokens is found.
        """
        if not anatomy.tables:
            raise ModelError("vocab-trim needs a table of tokens and a head; this model has none.")
        shared = sum((vocabulary - 2) * width for vocabulary, width in anatomy.tables)
        mask = sum(-(-vocabulary // 16) for vocabulary, _ in anatomy.tables)
        return anatomy.numbers - shared + mask

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Trim the vocabulary of the model of a walk.

        Raises:
            ModelError: embedding or head are no plain tables.
            OutOfReachError: the blocks alone take more than the budget.
        """
        view = walk.view
        embedding, head = view.embedding, view.head
        if not isinstance(embedding, torch.nn.Embedding) or head is None:
            raise ModelError("vocab-trim needs a table of tokens and a head; this model has none.")
        self.check(view.anatomy())
        tied = head.weight is embedding.weight
        kept = self.chosen(view, walk.windows, tied)
        if kept is None:
            return {}
        table, output = embedding.weight.detach(), head.weight.detach()
        mean = table[~kept].float().mean(0)
        shared = _standing(view, walk.windows, ~kept)
        view.hold_embedding(formats.SharedRows.pack(table, kept, shared if tied else mean))
        if not tied:
            view.hold_head(formats.SharedRows.pack(output, kept, shared))
        walk.restart()
        return {}

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Nothing: the tables are held in a format, which comes back by itself."""

    def chosen(self, view: View, windows: Tensor, tied: bool) -> Tensor | None:
        """True for the tokens whose rows stay, [vocabulary]; None where all do."""
        vocabulary, width = view.embedding.weight.shape
        tables = 1 if tied else 2
        whole = view.numbers
        spare = (self.bits / 16 - 1) * whole + tables * vocabulary * width
        mask = tables * -(-vocabulary // 16)  # a bit a token, in numbers of 16 bits
        count = int((spare - mask) // (tables * width)) - 1
        if spare >= tables * vocabulary * width:
            return None
        assert count >= 1, "checked beforehand: one token's rows fit"
        used = torch.bincount(windows.flatten(), minlength=vocabulary)
        kept = torch.zeros(vocabulary, dtype=torch.bool, device=used.device)
        kept[used.argsort(descending=True, stable=True)[: min(count, vocabulary - 2)]] = True
        return kept


def _standing(view: View, windows: Tensor, gone: Tensor) -> Tensor:
    """The row [width] that stands for the tokens in `gone` before the softmax, window by window."""
    head = view.head
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for window in windows:
            view.model(input_ids=window.unsqueeze(0), use_cache=False)
            inputs = seen.pop()[0]
            yield inputs.float(), torch.nn.functional.linear(inputs, rows, bias).float()

    bias = None if head.bias is None else head.bias.detach()[gone]
    rows = head.weight.detach()[gone]
    own = torch.zeros(rows.shape[0], device=rows.device) if bias is None else bias.float()
    try:
        with torch.no_grad():
            return stand_in(rows.float().mean(0), pairs(), own)
    finally:
        hook.remove()


def stand_in(mean: Tensor, pairs: Iterable[tuple[Tensor, Tensor]], bias: Tensor) -> Tensor:
    """The row whose logit, with each bias, is nearest to weighing as much as many logits do.

    Together they weigh the logarithm of the sum of their exponentials. What that is above the
    mean row's is fitted by least squares, held to the mean row where the inputs say nothing.

    Args:
        mean: the mean row, [width].
        pairs: inputs [tokens, width] and the logits [tokens, rows] that they got.
        bias: of each row, [rows].
    """
    moment = mean.new_zeros(mean.numel(), mean.numel())
    target = torch.zeros_like(mean)
    for inputs, logits in pairs:
        wanted = logits.logsumexp(-1) - bias.logsumexp(-1)
        moment.addmm_(inputs.T, inputs)
        target += inputs.T @ (wanted - inputs @ mean)
    moment.diagonal().add_(DAMPING * moment.diagonal().mean())
    return mean + torch.linalg.solve(moment, target)
