"""The host harness' CUDA functions, each run in a kernel, against plain computations."""

from __future__ import annotations

import ctypes
import itertools

import pytest
import torch
from host_cuda import build, lib
from host_cuda.batches import ORDERS

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)")


@pytest.fixture(params=["plain", pytest.param("ucontext", marks=pytest.mark.proof)])
def call(request):
    """Call an entry point of driver_words.cpp with tensors and integers."""
    with lib.variant(request.param) as library:

        def call(name, *args):
            arguments = [
                ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else ctypes.c_int64(a)
                for a in args
            ]
            lib.check(getattr(library, name)(*arguments))

        yield call


def shuffled(kind, lane, by, width):
    """The lane that a shuffle reads."""
    first = lane // width * width
    if kind == "up":
        return lane - by if lane - by >= first else lane
    if kind == "down":
        return lane + by if lane + by < first + width else lane
    if kind == "xor":  # lanes may read earlier segments, never later ones
        return lane ^ by if (lane ^ by) < first + width else lane
    return first + by % width


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles(call, order):
    lib.set_order(order)
    n = 96
    for by, width in itertools.product((0, 1, 3, 8, 31), (32, 16, 4)):
        out = torch.full((5, n), -1, dtype=torch.int32)
        call("host_shuffles", out, n, by, width)
        for row, kind in enumerate(("up", "down", "xor", "index")):
            want = [t - t % 32 + shuffled(kind, t % 32, by, width) for t in range(n)]
            assert out[row].tolist() == want, (kind, by, width)
        assert out[4].tolist() == [2 * (t ^ 1) for t in range(n)]


@pytest.mark.parametrize("order", ORDERS)
def test_votes_of_lanes_that_part(call, order):
    lib.set_order(order)
    out = torch.full((4, 64), -1, dtype=torch.int32)
    call("host_votes", out)
    for t in range(64):
        peers = [p for p in range(t - t % 32, t - t % 32 + 32) if p % 2 == t % 2]
        ballot = sum(1 << p % 32 for p in peers if p % 3 == 0)
        assert out[0, t].item() & 0xFFFFFFFF == ballot
        assert bool(out[1, t]) == any(p % 32 == 5 for p in peers)
        assert bool(out[2, t]) == all(p % 32 != 5 for p in peers)
        assert out[3, t].item() == t ^ 2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_atomics(call, dtype, order):
    lib.set_order(order)
    start = [5, 10000, 50, 50, (1 << 31) - 1, 0, 0, 0, 100]
    out = torch.tensor(start, dtype=dtype)
    call("host_atomics", int(dtype == torch.int64), out)
    values = range(1, 121)
    xor = 0
    for v in values:
        xor ^= v
    total = sum(values)
    assert out.tolist() == [
        5 + total, 10000 - total, 1, 120, 0, (1 << 31) - 1, xor, 7, 100 + total,
    ]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_a_grid_runs_once(call, order):
    lib.set_order(order)
    out = torch.zeros(2 * 3 * 2 * 4 * 3 * 2, dtype=torch.int32)
    call("host_indices", out)
    assert out.tolist() == list(range(1, len(out) + 1))


def test_half_types_round_as_pytorch_does(call):
    bits = torch.arange(2**16, dtype=torch.int32)
    # Every half, its neighbours in float32, the middle of two halves, and the same for bfloat16.
    floats = torch.cat([bits.to(torch.int16).view(t).float() for t in (torch.half, torch.bfloat16)])
    around = [floats.view(torch.int32) + d for d in (-1, 0, 1, 0x0FFF, 0x1000, 0x1001, 0x8000)]
    values = torch.cat(around).view(torch.float32)
    half = torch.empty(len(values), dtype=torch.half)
    bfloat = torch.empty(len(values), dtype=torch.bfloat16)
    back = torch.empty(2, len(values))
    call("host_halves", values, half, bfloat, back, len(values))
    swapped = values.view(-1, 2).flip(1).flatten()
    for got, want in (
        (half, values.half()),
        (bfloat, values.bfloat16()),
        (back[0], swapped.half().float()),
        (back[1], swapped.bfloat16().float()),
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(got.signbit()[want == 0], want.signbit()[want == 0])


def test_half_types_widen_exactly(call):
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    out = torch.empty(2, 2**16)
    call("host_widened", bits, out, 2**16)
    for got, dtype in zip(out, (torch.half, torch.bfloat16), strict=True):
        torch.testing.assert_close(got, bits.view(dtype).float(), rtol=0, atol=0, equal_nan=True)


def test_integers(call):
    a = [0, 1, 2, 3, 0x80000000, 0xFFFFFFFF, 0xD2511F53, 12345678]
    b = [7, 0xFFFFFFFF, 0x80000000, 5, 3, 0xFFFFFFFF, 0xCD9E8D57, 87654321]
    tensors = [torch.tensor(v).to(torch.int32) for v in (a, b)]  # wraps: the bits stay
    out = torch.empty(9, len(a), dtype=torch.int32)
    call("host_integers", *tensors, out, len(a))
    got = [[v & 0xFFFFFFFF for v in row] for row in out.tolist()]
    for t, (x, y) in enumerate(zip(a, b, strict=True)):
        assert [row[t] for row in got] == [
            x * y >> 32, x.bit_count(), (x & -x).bit_length(), 32 - x.bit_length(), x & 0x7F7FFFFF,
            3, x ^ y ^ 1 ^ 2, x ^ y,
            x & 0xFF | (y & 0xFF) << 8 | (x >> 16 & 0xFF) << 16 | (y >> 24) << 24,
        ]  # fmt: skip


def test_floats_round_one_by_one(call):
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 4096, generator=generator)
    out = torch.empty(5, 4096)
    call("host_floats", a, b, c, out, 4096)
    exact = a.double() + b.double() * c.double()
    assert torch.equal(out[0], a + b * c)
    assert torch.equal(out[1], a - b)
    assert torch.equal(out[2], a / b)
    fused = a.double() * b.double() + c.double()  # rounded twice: to double, then to float
    assert (out[3].double() - fused).abs().max() <= 2**-24 * fused.abs().max()
    assert (out[3] != a * b + c).any()
    assert torch.equal(out[4], exact.float())
