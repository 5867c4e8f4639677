"""The kernels of masks (csrc/cuda), run on the host, against the reference bit for bit."""

from __future__ import annotations

import edge_cases
import pytest
import torch
from comparing import same_bits
from host_cuda import build, lib, mask_grid, mask_ops
from host_cuda.batches import FLIP, LAYOUTS, ORDERS, ROLL, make_batch

from fused_mixup import reference

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.mark.parametrize("part", range(3))
def test_random_calls(part):
    assert mask_grid.run(84, seed=part) == 84


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_samples_are_mixed_in_halves(layout):
    """As samples of more vectors than 32 bits number; masks and partners from a pool go along."""
    generator = torch.Generator().manual_seed(1)
    for size, boxed in (([5, 4, 16], 0), ([5, 4, 16], 2), ([3, 2, 4, 16], 3), ([2, 3, 5, 7], 1)):
        x, _ = make_batch(3, size, torch.float64, layout, generator)
        pool, _ = make_batch(4, size, torch.float64, "channels_last", generator)
        box = torch.tensor([[1] * boxed + [3] * boxed], dtype=torch.int32).expand(3, -1)
        blend = torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(3, 2)
        code = torch.tensor([0, 1, 2], dtype=torch.int32)
        lines = (torch.rand(3, 2, n, generator=generator) for n in size[-2:])
        stored = torch.rand(3, 2, 3, generator=generator)
        mask = (code, torch.zeros(3), *lines, stored, 1)
        whole = 3 if boxed == 3 else 2  # dims that no half divides
        limit = int(torch.Size(size[-whole:]).numel()) + 1
        for pairing in (FLIP, ROLL):
            plan = (None, blend, box, pairing)
            for clean in (False, True):
                got, want = (torch.zeros(6 if clean else 3, *size).double() for _ in range(2))
                reference.mix_masked_out(x, pool, *plan, *mask, clean, want)
                with lib.max_count(limit):
                    mask_ops.mix_masked_out(x, pool, *plan, *mask, clean, got)
                assert same_bits(got, want), (size, boxed, pairing, clean)
            with lib.max_count(limit):
                got = mask_ops.mix_masked_backward(x, None, None, None, *plan[1:], *mask)
            want = reference.mix_masked_backward(x, None, None, None, *plan[1:], *mask)
            assert same_bits(got, want), (size, boxed, pairing)


def test_an_image_that_is_too_large_alone_is_refused():
    x = torch.zeros(2, 3, 4, 16)
    code = torch.ones(2, dtype=torch.int32)
    mask = (code, torch.zeros(2), torch.ones(2, 1, 4), torch.ones(2, 1, 16), None, 0)
    plan = (None, torch.ones(2, 2, dtype=torch.float64), torch.empty(2, 0).int(), FLIP)
    with lib.max_count(16), pytest.raises(lib.LaunchError):
        mask_ops.mix_masked(x, *plan, *mask)


def test_what_has_no_weight_does_not_count():
    """m = 1 gives the bits of x, m = 0 those of the partner: no NaN from the other."""
    x = torch.tensor([torch.nan, torch.inf, -0.0, 1.0]).view(4, 1, 1, 1).repeat(1, 2, 3, 8)
    for dtype in (torch.float32, torch.float16, torch.float64):
        for m in (1.0, 0.0):
            lines = torch.full((4, 1, 3), m), torch.ones(4, 1, 8)
            mask = (torch.ones(4, dtype=torch.int32), torch.zeros(4), *lines, None, 0)
            plan = (torch.rand(4, 2).double(), torch.empty(4, 0).int())
            values = x.to(dtype)
            for pairing, other in ((FLIP, values.flip(0)), (ROLL, values.roll(1, 0))):
                got = mask_ops.mix_masked(values, None, *plan, pairing, *mask)
                assert same_bits(got, values if m else other), (dtype, m, pairing)


@pytest.mark.parametrize("order", ORDERS)
def test_sigmoid(order):
    """To two units in the last place; the reference in float32 is no nearer."""
    s = torch.linspace(-87, 30, 64 * 64).view(64, 64)
    s.view(-1)[:4] = torch.tensor([torch.inf, -torch.inf, 0.0, -104.5])
    want = 1 / (1 + torch.exp(-s.double()))
    got = mask_grid.sigmoid_of_map(s, order)
    ulp = torch.nextafter(want.float(), torch.tensor(2.0)).double() - want.float().double()
    assert ((got.double() - want).abs() <= 2 * ulp).all()


def test_edges_of_the_clamps():
    lib.set_order(0)
    edge_cases.check_masks(mask_ops)
