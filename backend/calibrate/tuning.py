"""Trains the few vectors of a compressed model, its matrices staying as they are held."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.calibrate.gradients import in_float32

if TYPE_CHECKING:
    from backend.methods.base import TuneMethod
    from backend.models.view import View

APART = 8  # of so many windows one is kept apart to tell whether training helped
WARMING, CLIP = 0.1, 1.0

Progress = Callable[[str, int, int], None]


def tune(view: View, windows: Tensor, method: TuneMethod, progress: Progress) -> list[str]:
    """Train what a method trains on the text of some windows; what there is to say of it.

    By Adam, at a rate that rises and falls. Where the windows kept apart are not read better than
    before, all is put back.

    Args:
        view: the model as it is held.
        windows: calibration tokens [windows, length].
        method: says what is trained, for how many steps and how fast.
        progress: told (stage, done, total).
    """
    chosen = trained(view.model, method)
    if not chosen:
        return [f"{method.key()} found nothing that it trains."]
    apart = max(1, len(windows) // APART)
    learned, judged = (windows[:-apart], windows[-apart:]) if len(windows) > 1 else (windows,) * 2
    first = [part.detach().clone() for part in chosen]
    before = loss(view, judged, method.together)
    with in_float32(view.model):
        for part in chosen:
            part.requires_grad_()
        try:
            _train(view, learned, chosen, method, progress)
        finally:
            for part in chosen:
                part.requires_grad = False
                part.grad = None
    after = loss(view, judged, method.together)
    told = f"{method.key()} trained {sum(part.numel() for part in chosen):,} numbers"
    if after < before:
        return [f"{told}: {before:.4f} to {after:.4f} nats a token on text kept apart."]
    for part, old in zip(chosen, first, strict=True):
        part.data.copy_(old)
    return [f"{told} to no gain on text kept apart; they are as they were."]


def trained(model: nn.Module, method: TuneMethod) -> list[nn.Parameter]:
    """The parameters that a method trains."""
    return [one for name, one in model.named_parameters() if method.trains(name, tuple(one.shape))]


@torch.no_grad()
def loss(view: View, windows: Tensor, together: int = 4) -> float:
    """Mean negative log likelihood of tokens after the first of each window, in nats."""
    losses = [float(_loss(view, batch)) * len(batch) for batch in windows.split(together)]
    return sum(losses) / len(windows)


def _train(
    view: View,
    windows: Tensor,
    parts: list[nn.Parameter],
    method: TuneMethod,
    progress: Progress,
) -> None:
    steps, rate = method.schedule
    optimiser = torch.optim.Adam(parts, lr=rate)
    batches = windows.split(min(method.together, len(windows)))
    for step in range(steps):
        progress("retrain", step, steps)
        share = min((step + 1) / max(1.0, WARMING * steps), (steps - step) / steps)
        optimiser.param_groups[0]["lr"] = rate * share
        with torch.enable_grad():
            found = _loss(view, batches[step % len(batches)])
        found.backward()
        nn.utils.clip_grad_norm_(parts, CLIP)
        optimiser.step()
        optimiser.zero_grad()
    progress("retrain", steps, steps)


def _loss(view: View, batch: Tensor) -> Tensor:
    logits = view.model(input_ids=batch, use_cache=False).logits
    scores = logits[:, :-1].flatten(0, 1).to(torch.float32)
    return functional.cross_entropy(scores, batch[:, 1:].flatten())
