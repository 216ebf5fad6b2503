"""Where a model is computed, and in which types: the processor, or a GPU that holds the work.

One decision for a whole job, from the size of the dense model and of the GPU, never from what is
free just now, so that the same job on the same machine is computed in the same place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backend.errors import SettingError
from backend.models import precision

PROCESSOR = torch.device("cpu")
COPIES = 3
"""Models that are in memory at once while one is measured: dense, exact and deployed."""
GRADIENTS = 8
"""Bytes to a weight beside it where its gradient is kept: that, and what is made of both."""
BESIDE = 2 << 30
"""Bytes of logits, states and statistics beside them."""
BFLOAT16_FROM = 8
"""Compute capability from which a GPU has instructions for bfloat16."""


@dataclass(frozen=True)
class Place:
    """A device, and why it was taken.

    Attributes:
        device: where tensors lie.
        reason: what there is to say of the choice; empty where there was none.
        dtype: 16-bit type in which models are deployed there.
        name: of the GPU; empty for the processor.
    """

    device: torch.device = PROCESSOR
    reason: str = ""
    dtype: torch.dtype = precision.DEPLOYED
    name: str = ""

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.type

    @property
    def told(self) -> str:
        """What a number of this place says of it; nothing of the processor."""
        return f"on {self.name}" if self.name else ""

    @property
    def recast(self) -> torch.dtype | None:
        """The type that an artefact is brought to; None to leave it as it was saved."""
        return None if self.dtype is precision.DEPLOYED else self.dtype

    def computing_dtype(self, parameters: int) -> torch.dtype:
        """The type in which a model of so many parameters is computed here."""
        found = precision.computing_dtype(parameters)
        return self.dtype if found is precision.DEPLOYED else found

    def put(self, model: nn.Module) -> nn.Module:
        """Bring a model here, in place."""
        return put(model, self.device)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {"kind": self.kind, "name": self.name, "dtype": dtype, "reason": self.reason}


HERE = Place()
"""The processor."""


def choose(wish: str, parameters: int, *, gradients: bool = False) -> Place:
    """The place where a model of so many parameters is treated and measured.

    Args:
        wish: `auto`, `cpu`, `cuda` or `cuda:1`.
        parameters: of the dense model.
        gradients: whether a number to each weight is kept beside it while it is treated.

    Raises:
        SettingError: a GPU is asked for by name and is not to be had.
    """
    if wish == "cpu":
        return HERE
    index = int(wish.partition(":")[2] or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        if wish == "auto":
            return Place(reason="Computed on the processor: torch can use no GPU here.")
        raise SettingError(
            f"The device {wish} is asked for and torch can use {count} GPUs here; set "
            "PARETOSCOPE_DEVICE to auto or cpu, or install torch for this GPU."
        )
    about = torch.cuda.get_device_properties(index)
    itemsize = precision.computing_dtype(parameters).itemsize
    each = max(COPIES * itemsize, itemsize + GRADIENTS if gradients else 0)
    needed = each * parameters + BESIDE
    if wish == "auto" and needed > about.total_memory:
        return Place(
            reason=f"Computed on the processor: this model takes about {needed / 1e9:.1f} GB while "
            f"it is treated and measured, and {about.name} has {about.total_memory / 1e9:.1f} GB."
        )
    device = torch.device("cuda", index)
    dtype = precision.DEPLOYED if about.major >= BFLOAT16_FROM else torch.float16
    return Place(device, f"Computed on {about.name} ({device}).", dtype, about.name)


def put(model: nn.Module, device: torch.device) -> nn.Module:
    """Bring every parameter and buffer to a device; what was one tensor stays one.

    Args:
        model: changed in place, and returned.
        device: where to.
    """
    moved: dict[int, tuple[Tensor, Tensor]] = {}  # the first keeps ids from being given again
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None or tensor.device == device:
                    continue
                if id(tensor) not in moved:
                    there = tensor.detach().to(device)
                    if isinstance(tensor, nn.Parameter):
                        there = nn.Parameter(there, requires_grad=tensor.requires_grad)
                    moved[id(tensor)] = tensor, there
                held[name] = moved[id(tensor)][1]
    return model
