"""What the suites in the interpreter share: every test is sanitized, new memory is poisoned."""

import pytest
import torch

from tests.triton_sanitizer import memory_checked, no_bfloat16_arithmetic

BOUND = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 1.5e-2}


@pytest.fixture(autouse=True)
def checked():
    with memory_checked(), no_bfloat16_arithmetic():
        yield


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """What a kernel forgets to write is seen: new memory holds NaN, or a pattern of bits."""

    def poisoned(old):
        def new(*args, **settings):
            made = old(*args, **settings)
            if made.is_floating_point() and made.element_size() > 1:
                return made.fill_(float("nan"))
            return made.view(torch.uint8).fill_(0x55).view(made.dtype) if made.dim() else made

        return new

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))


def close(found, wanted, dtype):
    error = (found.double() - wanted.double()).norm() / wanted.double().norm()
    assert found.dtype == dtype
    assert error < BOUND[dtype], f"relative error {error:.1e}"
