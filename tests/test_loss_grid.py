"""Both losses on thousands of small random cases, against PyTorch's functions in float64."""

from __future__ import annotations

import pytest
import torch
from loss_grid_cases import Errors, grid

import fused_mixup as fm

MODES = ({}, {"grad_in_forward": True}, {"inplace_backward": True})


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_float64_as_well_as_eager_does(seed):
    errors = Errors()
    for i, case in enumerate(grid(1700, seed)):
        leaf = case.logits.detach().requires_grad_()
        logits = leaf
        mode = MODES[i % 3]
        if "inplace_backward" in mode:  # written over, so no leaf; in the layout of the case
            logits = _Through.apply(leaf, case.logits)
        loss = getattr(fm, case.op)(logits, case.target, **case.options, **mode)
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        # What the forward rounded is scaled where class indices are weighted, and rounded again.
        errors.check(case, loss.detach(), grad, roundings=2 if "grad_in_forward" in mode else 1)
    assert errors.ours <= errors.eager * 1.05


class _Through(torch.autograd.Function):
    """A copy of the leaf in the memory layout of another tensor."""

    @staticmethod
    def forward(ctx, leaf, like):
        whole = torch.empty(0, dtype=like.dtype).set_(like.untyped_storage())
        return whole.clone().as_strided(like.shape, like.stride(), like.storage_offset())

    @staticmethod
    def backward(ctx, grad):
        return grad, None
