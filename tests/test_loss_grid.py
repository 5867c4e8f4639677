"""Both losses on thousands of small random cases, against PyTorch's functions in float64.

FUSED_MIXUP_LOSS_CASES=5000 asks the slower backends for as many.
"""

from __future__ import annotations

import math
import os

import properties
import pytest
import torch
import torch.nn.functional as F
from loss_grid_cases import grid
from loss_grid_errors import Errors

import fused_mixup as fm
from fused_mixup.codes import NONE, SUM
from fused_mixup.losses.arguments import divide_or_nan

MODES = ({}, {"grad_in_forward": True}, {"inplace_backward": True})
CASES = {"cuda-on-host": 300, "cpu-triton": 20, "cpu-reference": 300}
SEEDS = {"cpu-reference": 3, "cpu-triton": 4, "cuda-on-host": 5, "cuda-reference": 6}
SEEDS |= {"cuda-native": 7, "cuda-triton": 8}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("seed", "count"),
    [(0, 700), (1, 700), pytest.param(2, 3700, marks=pytest.mark.proof)],
)
def test_agrees_with_float64_as_well_as_eager_does(seed, count):
    errors = Errors()
    for i, case in enumerate(grid(count, seed)):
        leaf = case.logits.detach().requires_grad_()
        logits = leaf
        mode = MODES[i % 3]
        if "inplace_backward" in mode:  # no leaf, as it is overwritten; in the case's layout
            logits = _Through.apply(leaf, case.logits)
        loss = getattr(fm, case.op)(logits, case.target, **case.options, **mode)
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        # With weighted class indices the forward's rounded gradient is scaled and rounded again.
        errors.check(case, loss.detach(), grad, roundings=2 if "grad_in_forward" in mode else 1)
    assert errors.ours <= errors.eager * 1.05


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's NumPy warns of 0 * inf
@pytest.mark.parametrize("backend", properties.backend_parameters(but=("cpu-native",)))
def test_ops_of_every_backend_agree_with_float64(backend):
    count = int(os.environ.get("FUSED_MIXUP_LOSS_CASES", CASES.get(backend, 1000)))
    errors = Errors()
    with properties.open_backend(backend) as on:
        for i, case in enumerate(grid(count, SEEDS[backend])):
            mode = MODES[i % 3]
            loss, grad = _by_ops(on.ops, case, mode)
            roundings = 2 if "grad_in_forward" in mode else 1
            if on.truncates and grad.dtype == torch.bfloat16:
                roundings *= 2  # truncation errs by a whole unit, rounding by half of one
            errors.check(case, loss, grad, roundings)
    assert errors.ours <= errors.eager * 1.05


def _by_ops(ops, case, mode):
    """(loss, gradient of its sum) from the ops alone."""
    z, (arguments, divisor) = case.logits, case.arguments()
    if case.kind == "cross_entropy":
        loss, *kept, _ = getattr(ops, case.op)(z, *arguments, False)
        more = (False,)
    else:
        loss, kept, more = getattr(ops, case.op)(z, *arguments), (), ()
    leaf = loss.detach().requires_grad_()
    total = leaf if divisor is None else divide_or_nan(leaf, divisor)
    (upstream,) = torch.autograd.grad(total.sum(), leaf)
    if "grad_in_forward" in mode:
        _, grad, *_ = getattr(ops, f"{case.op}_grad")(z, *arguments, *more)
        if divisor is not None:
            ops.scale_(grad, upstream)
    elif "inplace_backward" in mode:
        grad = _copy(z)
        getattr(ops, f"{case.op}_backward_")(upstream, grad, *kept, *arguments)
    else:
        grad = getattr(ops, f"{case.op}_backward")(upstream, z, *kept, *arguments)
    return total.detach(), grad


def _copy(like):
    """A copy in separate memory with the same layout."""
    whole = torch.empty(0, dtype=like.dtype).set_(like.untyped_storage())
    return whole.clone().as_strided(like.shape, like.stride(), like.storage_offset())


class _Through(torch.autograd.Function):
    """A copy of the leaf in the memory layout of another tensor."""

    @staticmethod
    def forward(ctx, leaf, like):
        return _copy(like)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("backend", properties.backend_parameters())
def test_binary_loss_of_infinite_logits_is_finite_where_that_of_pytorch_is(backend):
    """Where PyTorch's is NaN (inf - inf), a kernel may know that the loss is infinite."""
    z = torch.tensor([[math.inf, -math.inf, 2.0, -math.inf, math.inf]]).repeat(3, 1)
    t = torch.tensor([[0.0], [0.3], [1.0]]).repeat(1, 5)
    want = F.binary_cross_entropy_with_logits(z, t, reduction="none")
    with properties.open_backend(backend) as on:
        options = t, None, None, None, None, 0.0, None, 0.0, NONE, False
        loss, grad = on.ops.soft_target_binary_cross_entropy_grad(z, *options)
    unknown = want.isnan()
    torch.testing.assert_close(loss[~unknown], want[~unknown])
    assert not bool(loss[unknown].isfinite().any()) and int(unknown.sum()) == 8
    torch.testing.assert_close(grad, z.sigmoid() - t)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("reduction", [NONE, SUM])
@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("backend", properties.backend_parameters())
def test_binary_loss_of_labels_beside_odd_logits(backend, odd, reduction):
    z = torch.randn(4, 700, generator=torch.Generator().manual_seed(0))
    z[1, 5] = z[2, 699] = odd
    labels, partner_labels = torch.tensor([0, 1, 2, 3]), torch.tensor([9, 8, 7, 6])
    weight = torch.tensor([[0.3, 0.7]]).repeat(4, 1)
    t = (F.one_hot(labels, 700) * 0.3 + F.one_hot(partner_labels, 700) * 0.7).float()
    with properties.open_backend(backend) as on:
        sparse = labels, partner_labels, weight, None, None
        loss, grad = on.ops.soft_target_binary_cross_entropy_grad(
            z, *sparse, 0.0, None, 0.0, reduction, True
        )
    torch.testing.assert_close(grad, z.sigmoid() - t, equal_nan=True)
    if reduction == SUM:
        assert not loss.isfinite()
    else:
        want = F.binary_cross_entropy_with_logits(z, t, reduction="none").sum(1)
        assert loss.isfinite().tolist() == [True, False, False, True]
        torch.testing.assert_close(loss[[0, 3]], want[[0, 3]])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("shape", [(), (8,), (3,)], ids=["rows", "columns", "single positions"])
@pytest.mark.parametrize("odd", [math.inf, math.nan])
@pytest.mark.parametrize("backend", properties.backend_parameters())
def test_a_class_weight_that_is_no_number_stays_out_where_the_target_is_zero(backend, odd, shape):
    """Such as 1 / count of a class that the data lacks."""
    z = torch.randn(4, 9, *shape, generator=torch.Generator().manual_seed(0))
    labels, absent = (y.view(4, *[1] * len(shape)).expand(4, *shape).contiguous()
                      for y in (torch.arange(4), torch.full((4,), 8)))  # fmt: skip
    weights = torch.tensor([[0.3, 0.7]]).repeat(4, 1)
    alone = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    dense = torch.zeros_like(z)
    dense[:, :2] = 0.5
    counted = torch.arange(1.0, 10.0)
    targets = ((labels, labels.flip(0), weights), (labels, absent, alone), (dense, None, None))
    with properties.open_backend(backend) as on:
        for target in targets:
            results = []
            for weight in (odd, 1.0):
                counted[8] = weight
                options = *target, counted, -(2**63), 0.0, 0.0, 0.0, 0.0, SUM
                loss, stats, count, _ = on.ops.soft_target_cross_entropy(z, *options, False)
                grad = on.ops.soft_target_cross_entropy_backward(
                    torch.ones(()), z, stats, count, *options
                )
                both = on.ops.soft_target_cross_entropy_grad(z, *options, False)[:2]
                results.append((loss, grad, *both))
            for got, want in zip(*results, strict=True):
                assert want.isfinite().all()
                torch.testing.assert_close(got, want)
