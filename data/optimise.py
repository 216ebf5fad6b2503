"""How the weights move: AdamW on a warm-up, stable, decay schedule, and checkpoints of both."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: a linear warm-up, a plateau, and a linear decay once it is begun.

    Because the plateau has no end of its own, a run may go on for as long as there is time, and
    any checkpoint on it can be finished.
    """

    peak: float
    warm_steps: int
    decay_steps: int

    def rate(self, step: int, decay_start: int | None = None) -> float:
        """Return the rate of `step`, counted from 0; the last step of the decay is above 0."""
        rate = self.peak * min(1.0, (step + 1) / self.warm_steps)
        if decay_start is None or step < decay_start:
            return rate
        return rate * max(0.0, 1 - (step - decay_start) / self.decay_steps)


def optimiser(network: nn.Module) -> torch.optim.AdamW:
    """Return AdamW over `network`; only matrices decay, the embedding and norms do not."""
    matrices, others = [], []
    for name, weight in network.named_parameters():
        decays = weight.dim() == 2 and "embedding" not in name
        (matrices if decays else others).append(weight)
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=BETAS, fused=True)


def save(path: Path, network: nn.Module, adamw: torch.optim.AdamW, step: int) -> None:
    """Write weights and moments after `step` steps; the file is whole or absent."""
    tensors = {}
    for name, weight in network.named_parameters():
        tensors[f"weight.{name}"] = weight.detach().contiguous()
        for moment, value in adamw.state[weight].items():
            tensors[f"{moment}.{name}"] = value.contiguous()
    unfinished = path.with_suffix(".part")
    save_file(tensors, unfinished, metadata={"step": str(step)})
    unfinished.replace(path)


def restore(path: Path, network: nn.Module, adamw: torch.optim.AdamW) -> int:
    """Read what `save` wrote into `network` and `adamw`, and return the step it was saved after."""
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(file.get_tensor(f"weight.{name}"))
            adamw.state[weight] = {
                moment: file.get_tensor(f"{moment}.{name}").to(weight.device) for moment in MOMENTS
            }
        return int(file.metadata()["step"])
