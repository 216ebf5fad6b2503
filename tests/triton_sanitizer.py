"""Checks on Triton's interpreter: addresses, races between programs, arithmetic it cannot do.

Every active lane must hit a tensor of the launch; a plain store must not hit what another program
stored or read; one store must not hit an element twice. The interpreter computes bfloat16
arithmetic on raw bits: here that is an error. Programs run one after another, so barriers and the
timing of atomics stay unseen.
"""

import contextlib

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

BUILDER, EXECUTOR = interpreter.InterpreterBuilder, interpreter.GridExecutor
NOBODY, SEVERAL = -1, -2


class KernelError(AssertionError):
    """What a kernel did that it must not."""


class Memory:
    """The tensors of one launch, and who touched each element."""

    def __init__(self, name, tensors):
        self.name = name
        spans = sorted(set(filter(None, map(span_of, tensors))))
        self.lows = np.array([low for low, _, _ in spans], np.uint64)
        self.highs = np.array([high for _, high, _ in spans], np.uint64)
        self.sizes = [size for _, _, size in spans]
        lengths = [(high - low) // size for low, high, size in spans]
        self.writers = [np.full(length, NOBODY, np.int64) for length in lengths]
        self.readers = [np.full(length, NOBODY, np.int64) for length in lengths]
        self.atomic = [np.zeros(length, bool) for length in lengths]

    def touch(self, kind, pointers, mask, program):
        shape = np.broadcast_shapes(pointers.shape, mask.shape)
        active = np.broadcast_to(mask, shape).astype(bool)
        places = np.broadcast_to(pointers, shape)[active].ravel()
        if not places.size:
            return
        found = np.searchsorted(self.lows, places, side="right").astype(np.int64) - 1
        outside = (found < 0) | (places >= self.highs[np.maximum(found, 0)])
        if outside.any():
            raise KernelError(
                f"{self.name}: {kind} out of bounds in program {program}, {outside.sum()} lanes"
            )
        own = (program[0] << 40) | (program[1] << 20) | program[2]
        for tensor in np.unique(found):
            begin, size = self.lows[tensor], np.uint64(self.sizes[tensor])
            elements = ((places[found == tensor] - begin) // size).astype(np.int64)
            self.record(kind, tensor, elements, own)

    def record(self, kind, tensor, elements, own):
        writers, readers = self.writers[tensor], self.readers[tensor]
        written = (writers[elements] != NOBODY) & (writers[elements] != own)
        read = (readers[elements] != NOBODY) & (readers[elements] != own)
        if kind == "atomic":
            self.atomic[tensor][elements] = True
        elif kind == "load":
            if written.any():
                raise KernelError(f"{self.name}: race, reads what another program stored")
            readers[elements] = np.where(read, SEVERAL, own)
        else:
            if np.unique(elements).size != elements.size:
                raise KernelError(f"{self.name}: two lanes of one store hit the same element")
            if written.any() or read.any() or self.atomic[tensor][elements].any():
                raise KernelError(f"{self.name}: race, stores over what another program touched")
            writers[elements] = own


def span_of(tensor):
    """First byte, byte behind the last and bytes of an element; None for an empty one."""
    if not tensor.numel():
        return None
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    reach = sum((size - 1) * stride for size, stride in steps) + 1
    begin = tensor.data_ptr()
    return begin, begin + reach * tensor.element_size(), tensor.element_size()


def tensors_in(values):
    for value in values:
        if isinstance(value, tuple | list):
            yield from tensors_in(value)
        elif hasattr(value, "data_ptr"):
            yield interpreter._unwrap_tensor(value)


@contextlib.contextmanager
def replaced(owner, changes):
    """Put functions made from the old ones in their place for a while."""
    old = {name: getattr(owner, name) for name in changes if hasattr(owner, name)}
    for name, function in old.items():
        setattr(owner, name, changes[name](function))
    try:
        yield
    finally:
        for name, function in old.items():
            setattr(owner, name, function)


@contextlib.contextmanager
def memory_checked():
    """Raise `KernelError` on a wrong address or a race."""
    state = {}

    def launch(old):
        def run(self, args, settings):
            done = old(self, args, settings)
            tensors = list(tensors_in([*done[0], *done[1].values()]))
            state["grid"], state["memory"] = self, Memory(self.fn.__name__, tensors)
            return done

        return run

    def watched(kind, pointer, mask):
        def change(old):
            def run(self, *args):
                program = tuple(int(place) for place in self.grid_idx)
                state["memory"].touch(kind, args[pointer].data, args[mask].data, program)
                return old(self, *args)

            return run

        return change

    with (
        replaced(EXECUTOR, {"_init_args_hst": launch}),
        replaced(
            BUILDER,
            {
                "create_masked_load": watched("load", 0, 1),
                "create_masked_store": watched("store", 0, 2),
                "create_atomic_rmw": watched("atomic", 1, 3),
            },
        ),
    ):
        yield


@contextlib.contextmanager
def no_bfloat16_arithmetic():
    """Raise `KernelError` where the interpreter would compute on raw bits of bfloat16."""

    def narrow(value):
        return getattr(getattr(value, "dtype", None), "scalar", None) == tl.bfloat16

    def refuse(what):
        def change(old):
            def run(self, *args):
                if any(narrow(value) for value in args):
                    raise KernelError(f"bfloat16 {what}; take float32 first")
                return old(self, *args)

            return run

        return change

    def cast(old):
        def run(self, source, target):
            kinds = {source.dtype.scalar, target.scalar}
            if tl.bfloat16 in kinds and len(kinds) == 2 and tl.float32 not in kinds:
                raise KernelError(f"cast of {source.dtype} to {target}; go by float32")
            return old(self, source, target)

        return run

    changes = {
        "binary_op": refuse("arithmetic"),
        "unary_op": refuse("arithmetic"),
        "create_dot": refuse("dot"),
        "cast_impl": cast,
    }
    with replaced(BUILDER, changes):
        yield
