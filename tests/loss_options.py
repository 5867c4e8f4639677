"""The tests of the losses' options share these targets and comparisons."""

from __future__ import annotations

import torch

from fused_mixup import MixedTarget

POSITIONS = ((), (5,), (2, 3))


def compare(ours, theirs, z, *args, **kw):
    """Check that losses and gradients agree with PyTorch's."""
    results = []
    for loss in (ours, theirs):
        leaf = z.detach().requires_grad_()
        value = loss(leaf, *args, **kw)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), leaf)))
    eps = 1e-12 if z.dtype == torch.float64 else 2e-6
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=eps, atol=eps, equal_nan=True)


def ignoring_target(device, ignore_index=-100):
    #            own, partner: kept; own ignored; partner ignored; both; and with weights of 0
    own = torch.tensor([1, ignore_index, 2, ignore_index, ignore_index, 4])
    other = torch.tensor([0, 3, ignore_index, ignore_index, 3, ignore_index])
    weight = torch.tensor([[0.3, 0.7]] * 4 + [[1.0, 0.0], [0.0, 1.0]])
    return MixedTarget(own, other, weight, 5, 0.1, ignore_index).to(device)
