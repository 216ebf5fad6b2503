"""Kernels with a fault each: what the sanitizer must find; run as `triton_products` is."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from tests.triton_sanitizer import KernelError, memory_checked, no_bfloat16_arithmetic

FAULTS = (KernelError, InterpreterError)  # the interpreter wraps what is raised inside


@triton.jit
def copy_kernel(source, target, size, SHIFT: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + place, tl.load(source + place + SHIFT, mask=place < size), mask=place < size)


@triton.jit
def sum_kernel(source, target, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target, tl.sum(tl.load(source + place), axis=0))


@triton.jit
def pairs_kernel(source, target, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    tl.store(target + place // 2, tl.load(source + place))


@triton.jit
def double_kernel(source, target, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    value = tl.load(source + place)
    tl.store(target + place, value + value)


@triton.jit
def shift_in_place_kernel(target, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(target + place + BLOCK)
    tl.store(target + place, value)


def test_a_faultless_copy_passes():
    source, target = torch.arange(40.0), torch.zeros(40)
    with memory_checked():
        copy_kernel[(3,)](source, target, 40, SHIFT=0, BLOCK=16)
    assert torch.equal(source, target)


def test_one_element_too_far_is_found():
    with memory_checked(), pytest.raises(FAULTS, match="load out of bounds"):
        copy_kernel[(3,)](torch.zeros(40), torch.zeros(40), 40, SHIFT=1, BLOCK=16)


def test_a_store_past_the_end_is_found():
    with memory_checked(), pytest.raises(FAULTS, match="store out of bounds"):
        copy_kernel[(3,)](torch.zeros(48), torch.zeros(40), 48, SHIFT=0, BLOCK=16)


def test_two_programs_that_store_one_element_are_found():
    with memory_checked(), pytest.raises(FAULTS, match="race"):
        sum_kernel[(2,)](torch.zeros(32), torch.zeros(1), BLOCK=16)


def test_reading_what_another_program_overwrites_is_found():
    with memory_checked(), pytest.raises(FAULTS, match="race"):
        shift_in_place_kernel[(2,)](torch.zeros(48), BLOCK=16)


def test_two_lanes_on_one_element_are_found():
    with memory_checked(), pytest.raises(FAULTS, match="two lanes"):
        pairs_kernel[(1,)](torch.zeros(16), torch.zeros(16), BLOCK=16)


def test_bfloat16_arithmetic_is_found():
    one = torch.ones(16, dtype=torch.bfloat16)
    with no_bfloat16_arithmetic(), pytest.raises(FAULTS, match="bfloat16"):
        double_kernel[(1,)](one, one.clone(), BLOCK=16)
