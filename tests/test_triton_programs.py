"""The watch over interpreted programs (triton_programs.py): conflicts planted, and none."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton_place import INTERPRETED

if not INTERPRETED:
    pytest.skip("a GPU runs programs in no order", allow_module_level=True)

from triton_programs import Launch, OutOfBounds, ProgramConflict


@triton.jit
def steps_kernel(out, n, WIDTH: tl.constexpr, STEP: tl.constexpr):
    """Each program writes WIDTH elements, STEP after those of the one before."""
    program = tl.program_id(0)
    at = program * STEP + tl.arange(0, WIDTH)
    tl.store(out + at, (at + program).to(tl.float32), mask=at < n)


@triton.jit
def reading_kernel(x, n, BACK: tl.constexpr):
    """Each program writes one element, and reads the one that lies BACK before it."""
    program = tl.program_id(0)
    before = tl.load(x + tl.maximum(program - BACK, 0))
    tl.store(x + program, before + 1)


@triton.jit
def adding_kernel(total, x, STORE: tl.constexpr):
    program = tl.program_id(0)
    tl.atomic_add(total, tl.load(x + program))
    if STORE and program == 0:
        tl.store(total, 0.0)


@triton.jit
def bytes_kernel(wide, narrow):
    """Program 0 writes four bytes, program 1 the last of them."""
    if tl.program_id(0) == 0:
        tl.store(wide, 1)
    else:
        tl.store(narrow + 3, tl.cast(1, tl.uint8))


@triton.jit
def order_kernel(out, counter):
    tl.store(out + tl.program_id(0), tl.atomic_add(counter, 1))


def test_a_program_that_writes_into_its_neighbours_part():
    """In order the neighbour overwrites it, and the result is right."""
    out, words = torch.zeros(64), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(ProgramConflict, match="write the same element"):
        steps_kernel[(4,)](out, 64, WIDTH=16, STEP=15)
    steps_kernel[(4,)](out, 64, WIDTH=16, STEP=16)
    with pytest.raises(ProgramConflict, match="write the same element"):
        bytes_kernel[(2,)](words, words.view(torch.uint8))


def test_masked_elements_are_not_written():
    out = torch.full((40,), -1.0)
    steps_kernel[(1,)](out, 20, WIDTH=32, STEP=32)
    assert torch.equal(out[20:], torch.full((20,), -1.0))


def test_a_program_that_reads_what_another_writes():
    with pytest.raises(ProgramConflict, match="reads what program"):
        reading_kernel[(4,)](torch.zeros(4), 4, BACK=1)
    reading_kernel[(4,)](torch.zeros(4), 4, BACK=0)


def test_accesses_outside_the_tensors_of_a_launch():
    """Also in memory that lies around a view, where nothing would crash."""
    out, around = torch.zeros(30), torch.zeros(40)
    for given in (out, around[4:34]):
        with pytest.raises(OutOfBounds, match="program 1 of"):
            steps_kernel[(2,)](given, 31, WIDTH=16, STEP=16)
        steps_kernel[(2,)](given, 30, WIDTH=16, STEP=16)
    with pytest.raises(OutOfBounds):
        reading_kernel[(4,)](around[1:], 4, BACK=-40)


def test_atomic_additions_may_meet_but_no_store():
    total, x = torch.zeros(1), torch.ones(4)
    adding_kernel[(4,)](total, x, STORE=False)
    assert total.item() == 4
    with pytest.raises(ProgramConflict, match="adds to what program 0 writes"):
        adding_kernel[(4,)](total, x, STORE=True)


@pytest.mark.parametrize("programs", [2, 3, 8])
def test_programs_run_once_each_and_not_in_order(programs):
    out = torch.full((programs,), -1, dtype=torch.int32)
    order_kernel[(programs,)](out, torch.zeros(1, dtype=torch.int32))
    assert sorted(out.tolist()) == list(range(programs)) != out.tolist()


def test_every_place_of_a_grid_is_taken_once():
    launch = Launch((2, 3, 4))
    places = [launch.place(x, y, z) for x in range(2) for y in range(3) for z in range(4)]
    assert len(set(places)) == 24 and max(places) == (1, 2, 3)
