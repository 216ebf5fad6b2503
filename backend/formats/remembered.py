"""What was made of a module's parts, remembered until one of them is another or was changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Found = TypeVar("Found")
_NAME = "_remembered"


def remembered(module: nn.Module, make: Callable[[], Found]) -> Found:
    """What `make` gives, made anew only where a buffer or a part of the module is another.

    What holds numbers of its own beside the module's buffers is made anew each time, for nothing
    may take bytes that are not counted; so it is where changes in place leave no trace, in tensors
    of inference mode, and for a tracer, which asks no tensor for versions.

    Args:
        module: whose parts are looked at, at any depth.
        make: a method of it without arguments, by whose name its result is kept.
    """
    if torch.compiler.is_compiling():
        return make()
    kept = module.__dict__.setdefault(_NAME, {})
    name = make.__name__
    if name in kept:
        parts, found = kept[name]
        if all(of.get(key) is part and _version(part) == at for of, key, part, at in parts):
            return found
    found = make()
    buffers = list(module.buffers())
    held = {buffer.untyped_storage().data_ptr() for buffer in buffers}
    seen = not any(buffer.is_inference() for buffer in buffers)
    if seen and all(part.untyped_storage().data_ptr() in held for part in _tensors(found)):
        kept[name] = list(_parts(module)), found
    return found


def forget(module: nn.Module) -> None:
    """Let go of what was remembered, and with it of the parts of before."""
    module.__dict__.pop(_NAME, None)


def without_memory(state: dict[str, Any]) -> dict[str, Any]:
    """A module's state without what is remembered, which holds addresses of this process."""
    return {name: value for name, value in state.items() if name != _NAME}


def _parts(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Any, int]]:
    """Every buffer and module inside: where it stands, by what name, itself and its version."""
    for each in module.modules():
        for of in (each._buffers, each._modules):
            for key, part in of.items():
                yield of, key, part, _version(part)


def _tensors(found: object) -> Iterator[Tensor]:
    """Tensors in what was made, at any depth of its containers and attributes."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, dict | list | tuple):
        for each in found.values() if isinstance(found, dict) else found:
            yield from _tensors(each)
    elif hasattr(found, "__dict__"):
        yield from _tensors(vars(found))


def _version(part: object) -> int:
    """How often a tensor was changed in place; -1 where that is not counted, as never before."""
    if not isinstance(part, Tensor):
        return 0
    return -1 if part.is_inference() else part._version
