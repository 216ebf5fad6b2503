"""Each kind of loops that the processor can run, one test after another."""

import pytest

from kernels import extension

KINDS = ["portable", "AVX2", "AVX-512", "VNNI"]


@pytest.fixture(params=KINDS)
def loops(request):
    """The extension runs these loops meanwhile."""
    library = extension.library()
    assert library is not None, extension.reason()
    kind = KINDS.index(request.param)
    if library.use_loops(kind) != kind:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    library.use_loops(-1)
