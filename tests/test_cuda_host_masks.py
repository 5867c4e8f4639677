"""The kernels of masks (csrc/cuda), run on the host, against the reference bit for bit."""

from __future__ import annotations

import pytest
import torch
from host_cuda import build, mask_grid
from host_cuda.batches import ORDERS

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.mark.parametrize("part", range(4))
def test_random_calls(part):
    assert mask_grid.run(100, seed=part) == 100


@pytest.mark.parametrize("order", ORDERS)
def test_sigmoid(order):
    """To two units in the last place; the reference in float32 is no nearer."""
    s = torch.linspace(-87, 30, 64 * 64).view(64, 64)
    s.view(-1)[:4] = torch.tensor([torch.inf, -torch.inf, 0.0, -104.5])
    want = 1 / (1 + torch.exp(-s.double()))
    got = mask_grid.sigmoid_of_map(s, order)
    ulp = torch.nextafter(want.float(), torch.tensor(2.0)).double() - want.float().double()
    assert ((got.double() - want).abs() <= 2 * ulp).all()
