"""An extension that multiplies wrongly is left out, with a reason; the one built here is not."""

import ctypes

import pytest

from kernels import extension, self_test


class Altered:
    """The extension of this machine, but for one function."""

    def __init__(self, name, instead):
        self._name, self._instead, self._whole = name, instead, extension.library()

    def __getattr__(self, name):
        if name == self._name:
            if self._instead is None:
                raise AttributeError(name)
            return self._instead
        return getattr(self._whole, name)


def spoiled(change):
    """The product of many activations with its fifth output changed."""
    real = extension.library().multiply_many

    def run(matrix, x, count, y):
        real(matrix, x, count, y)
        numbers = ctypes.cast(y, ctypes.POINTER(ctypes.c_float))
        numbers[4] = change(numbers[4])

    return run


@pytest.mark.parametrize("kind", range(4))
def test_every_kind_of_loops_that_runs_here_passes(kind):
    library = extension.library()
    assert library is not None, extension.reason()
    try:
        if library.use_loops(kind) != kind:
            pytest.skip("this processor has no such loops")
        assert not self_test.disagreement()
        assert extension._trusted(library) == (library, "")
    finally:
        library.use_loops(-1)


@pytest.mark.faults
@pytest.mark.parametrize(
    "change", [lambda _: float("nan"), lambda y: y + 0.01, lambda _: float("inf")]
)
def test_a_wrong_product_leaves_everything_to_torch(change):
    found, reason = extension._trusted(Altered("multiply_many", spoiled(change)))
    assert found is None
    assert "fails its own test. Its product by float32 is off by" in reason


@pytest.mark.faults
@pytest.mark.parametrize(
    "name",
    [f"decode_{one}" for one in ("integers", "codebook", "bitmask", "two_of_four", "window")],
)
def test_numbers_decoded_wrongly_are_noticed(name):
    """A decoder that writes nothing but sevens."""
    arguments = ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.POINTER(ctypes.c_float)

    @ctypes.CFUNCTYPE(None, *arguments, ctypes.c_void_p)
    def sevens(matrix, row, column, count, out, state):
        for place in range(count):
            out[place] = 7.0

    found, reason = extension._trusted(Altered(name, sevens))
    assert found is None
    assert "is off by" in reason


@pytest.mark.faults
def test_a_missing_function_leaves_everything_to_torch():
    found, reason = extension._trusted(Altered("decode_codebook", None))
    assert found is None
    assert "A function is missing: decode_codebook" in reason
    assert extension.library() is not None, "the trial is over"
