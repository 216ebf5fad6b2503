"""A GPU that is none: tensors that say they lie on `cuda:0` and hold their numbers beside them.

Every call of torch runs on the numbers, on the processor, and what comes out lies on the GPU again.
As on a real one, a call refuses tensors of both places, numpy refuses a tensor of the GPU, and a
generator draws for one place only. What it cannot show: kernels, memory and time. Operations of
ours are counted, so that a test sees whether they were called.
"""

from __future__ import annotations

import contextlib
import types
from collections import Counter

import torch
from torch.overrides import TorchFunctionMode

from backend.models import steady

GPU = torch.device("cuda", 0)
TENSOR = torch.Tensor
ACROSS = {TENSOR.copy_, TENSOR.__getitem__, TENSOR.data.__set__}
"""What takes tensors of both places; places to look at may lie on the processor."""


class PlaceError(RuntimeError):
    """What a GPU would refuse."""


class OnGpu(torch.Tensor):
    """A tensor of the GPU; `numbers` are on the processor."""

    @classmethod
    def __torch_function__(cls, function, _types, arguments=(), keywords=None):
        return performed(function, arguments, keywords or {})


def on_gpu(numbers):
    """What lies on the GPU with these numbers."""
    made = torch.Tensor.__new__(OnGpu)
    made.numbers = numbers
    return made


def mapped(value, change):
    """A value with every leaf of its lists, tuples and dictionaries changed."""
    if isinstance(value, list):
        return [mapped(one, change) for one in value]
    if isinstance(value, tuple) and not isinstance(value, torch.Size):
        found = [mapped(one, change) for one in value]
        return tuple(found) if type(value) is tuple else type(value)(found)
    if isinstance(value, dict):
        return {key: mapped(one, change) for key, one in value.items()}
    return change(value)


def tensors_in(value):
    """Every tensor in a value."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [one for part in value for one in tensors_in(part)]
    return []


def performed(function, arguments, keywords, called=None):
    """One call, on the numbers."""
    tensors = tensors_in((arguments, keywords))
    there = [one for one in tensors if isinstance(one, OnGpu)]
    if function == TENSOR.device.__get__ and there:
        return GPU
    if function is torch._has_compatible_shallow_copy_type and there:
        return False  # a parameter that goes to another place is made anew
    _refuse(function, arguments, keywords, there, tensors)
    if there and called is not None and getattr(function, "namespace", "") == "paretoscope":
        called[function._schema.name.partition("::")[2]] += 1
    wanted = _wanted(function, arguments, keywords)
    onto = bool(there) if wanted is None else torch.device(wanted).type == "cuda"
    if keywords.get("generator") is not None and onto != getattr(
        keywords["generator"], "on_gpu", False
    ):
        raise PlaceError(f"{function}: a generator of the other place")
    if function is TENSOR.register_hook and there:
        told = arguments[1]
        return function(arguments[0].numbers, lambda gradient: told(on_gpu(gradient)))
    known = {id(one.numbers): one for one in there}

    def down(one):
        if isinstance(one, OnGpu):
            return one.numbers
        return "cpu" if onto and _names_gpu(one) else one

    def up(one):
        if not isinstance(one, torch.Tensor) or not onto:
            return one
        return known.get(id(one)) if id(one) in known else on_gpu(one)

    return mapped(function(*mapped(arguments, down), **mapped(keywords, down)), up)


def _refuse(function, arguments, keywords, there, tensors):
    beside = [one for one in tensors if not isinstance(one, OnGpu) and one.dim()]
    if there and function in (TENSOR.numpy, TENSOR.__array__):
        raise PlaceError("numpy takes no tensor of a GPU; bring it to the processor first.")
    if not there or not beside:
        return
    if function is TENSOR.__getitem__ and not isinstance(arguments[0], OnGpu):
        raise PlaceError("a tensor of the processor is asked for places that lie on a GPU")
    if function is TENSOR.__setitem__ and not tensors_in(arguments[1]):
        return  # a slice is copied, places are put
    if function not in ACROSS:
        shapes = [(type(one).__name__, *one.shape) for one in tensors]
        raise PlaceError(f"{getattr(function, '__name__', function)}: {shapes}, {keywords.keys()}")


def _wanted(function, arguments, keywords):
    """The device that a call names, if any."""
    if function is TENSOR.cpu:
        return "cpu"
    if function in (TENSOR.to, TENSOR.cuda):
        named = [one for one in (*arguments, *keywords.values()) if _names_device(one)]
        others = [one for one in arguments[1:] if isinstance(one, torch.Tensor)]
        return named[0] if named else GPU if any(isinstance(o, OnGpu) for o in others) else None
    return keywords.get("device")


def _names_device(one):
    return isinstance(one, torch.device) or (isinstance(one, str) and one[:3] in ("cpu", "cud"))


def _names_gpu(one):
    return _names_device(one) and torch.device(one).type == "cuda"


class Calls(TorchFunctionMode):
    """Takes every call of torch, those that only name the GPU too."""

    def __init__(self, called):
        super().__init__()
        self.called = called

    def __torch_function__(self, function, _types, arguments=(), keywords=None):
        return performed(function, arguments, keywords or {}, self.called)


class Draws(torch.Generator):
    """A generator that remembers for which place it draws."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.on_gpu = torch.device(device).type == "cuda"
        return made


@contextlib.contextmanager
def pretended(monkeypatch, memory=80 << 30, capability=9):
    """A machine with this GPU, inside; yields how often each operation of ours ran on it."""
    about = types.SimpleNamespace(name="Pretended", total_memory=memory, major=capability, minor=0)
    replaced = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_properties": lambda _=None: about,
        "synchronize": lambda _=None: None,
        "reset_peak_memory_stats": lambda _=None: None,
        "memory_allocated": lambda _=None: 0,
        "max_memory_allocated": lambda _=None: 1,
        "max_memory_reserved": lambda _=None: 1,
    }
    called = Counter()
    with monkeypatch.context() as patch:
        for name, one in replaced.items():
            patch.setattr(torch.cuda, name, one)
        patch.setattr(torch, "Generator", Draws)
        patch.setattr(steady, "capture", lambda run: run)
        with Calls(called):
            yield called
