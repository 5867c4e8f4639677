"""The Triton kernels of the loss, forward and backward, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from triton_place import DEVICE, HALF, INTERPRETED, quiet

import fused_mixup.triton_kernels as tk
from fused_mixup import reference
from fused_mixup.triton_kernels import loss as loss_module

pytestmark = quiet


def loss_case(k: int, dtype, target: str, layout="contiguous"):
    """Logits and ``target, partner_labels, weight`` of the ops."""
    torch.manual_seed(k)
    z = torch.randn(3, k + 3) * 4
    z = z.to(dtype).to(DEVICE)
    z = {"wide": z[:, 1 : k + 1], "contiguous": z[:, :k].contiguous()}.get(layout, z[:, :k].t())
    if layout == "transposed":
        z = z.contiguous().t()
    if target.startswith("dense"):
        t = torch.rand(3, k, device=DEVICE).to(torch.float32 if target == "dense32" else dtype)
        t[:, ::3] = 0
        return z, t / t.sum(1, keepdim=True).clamp(min=1e-3), None, None
    y = torch.randint(0, k, (3,), device=DEVICE)
    w = torch.tensor([[0.3, 0.7]])
    w = w.expand(3, 2) if target == "host" else torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1]])
    return z, y, y.roll(1), w if target == "host" else w.to(DEVICE)


def check_loss(case, smoothing=(0.0, 0.0), reduction=0):
    z, *t = case
    double = torch.float64 == z.dtype
    # float32 against float64 truth: sums of up to 5000 terms, and the GPU's exp to 2 ulp.
    rtol, atol = (1e-12, 1e-12) if double else (3e-6, 1e-5)
    exact = [v.double() if v is not None and v.is_floating_point() else v for v in t[:2]]
    loss, stats = tk.soft_target_cross_entropy(z, *t, *smoothing, reduction)
    want, want_stats = reference.soft_target_cross_entropy(
        z.double(), *exact, t[2], *smoothing, reduction
    )
    acc = torch.float64 if double else torch.float32
    assert loss.dtype == stats.dtype == acc
    torch.testing.assert_close(loss.double(), want, rtol=rtol, atol=atol, equal_nan=True)
    torch.testing.assert_close(stats.double(), want_stats, rtol=rtol, atol=atol, equal_nan=True)
    grad_loss = torch.rand_like(loss) + 0.5
    grad = tk.soft_target_cross_entropy_backward(grad_loss, z, stats, *t, *smoothing, reduction)
    want = reference.soft_target_cross_entropy_backward(
        grad_loss.double(), z.double(), want_stats, *exact, t[2], *smoothing, reduction
    )
    assert grad.dtype == z.dtype and grad.stride() == torch.empty_like(z).stride()
    # Half types are rounded once; the interpreter cuts bfloat16 off, which errs by a whole unit.
    ulp = {torch.float16: 2**-11, torch.bfloat16: 2**-7 if INTERPRETED else 2**-8}
    tolerance = {"rtol": ulp.get(z.dtype, rtol) * 1.01, "atol": 1e-7 if z.dtype in HALF else atol}
    torch.testing.assert_close(grad.double(), want, **tolerance, equal_nan=True)


@pytest.mark.parametrize("target", ["host", "rows", "dense"])
@pytest.mark.parametrize("k", [1, 2, 5, 33, 1000, 5000])
def test_loss_sizes(k, target):
    for smoothing in ((0.0, 0.0), (0.1, 0.2)):
        check_loss(loss_case(k, torch.float32, target), smoothing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF], ids=str)
@pytest.mark.parametrize("target", ["host", "rows", "dense", "dense32"])
def test_loss_dtypes_and_reductions(dtype, target):
    for reduction, smoothing in ((0, (0.1, 0.0)), (1, (0.0, 0.1)), (2, (0.1, 0.1))):
        check_loss(loss_case(33, dtype, target), smoothing, reduction)


@pytest.mark.parametrize("layout", ["wide", "transposed"])
@pytest.mark.parametrize("target", ["host", "dense"])
def test_loss_layouts(layout, target):
    check_loss(loss_case(40, torch.float32, target, layout), (0.1, 0.0))


@pytest.mark.parametrize("smoothing", [(0.0, 0.0), (0.1, 0.0)])
def test_loss_equal_labels_add_their_weights(smoothing):
    z, y, _, w = loss_case(33, torch.float32, "host")
    check_loss((z, y, y.clone(), w), smoothing, 2)


def test_loss_of_labels_out_of_range_is_nan():
    z, _, _, w = loss_case(33, torch.float32, "host")
    y = torch.tensor([1, 33, 2], device=DEVICE)
    check_loss((z, y, torch.tensor([-1, 0, 3], device=DEVICE), w), (0.1, 0.0), 2)


@pytest.mark.parametrize("target", ["host", "dense"])
def test_infinite_logits_where_the_target_is_zero(target, monkeypatch):
    monkeypatch.setattr(loss_module, "_MAX_BLOCK", 16)  # the first block holds no finite logit
    z, y, other, w = loss_case(50, torch.float32, target)
    z[:, :16] = -torch.inf
    z[:, 40:44] = -torch.inf
    if target == "host":
        y, other = torch.full_like(y, 20), torch.full_like(y, 30)
    else:
        y[:, :16] = 0
        y[:, 40:44] = 0
    check_loss((z, y, other, w), (0.0, 0.0), 2)
    loss, _ = tk.soft_target_cross_entropy(z, y, other, w, 0.0, 0.0, 2)
    assert bool(loss.isfinite().all())
    loss, _ = tk.soft_target_cross_entropy(z, y, other, w, 0.0, 0.1, 2)
    assert bool((loss == torch.inf).all())
    z[0] = -torch.inf
    z[1, 20] = torch.nan
    loss, _ = tk.soft_target_cross_entropy(z, y, other, w, 0.0, 0.0, 2)
    assert loss.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("shift", [-3e4, 3e4])
def test_loss_of_far_logits(shift):
    """Sums are relative to the largest logit so far, so a common shift changes nothing."""
    z, *t = loss_case(5000, torch.float32, "host")
    z = (z * 8).round() / 8 + shift  # exactly representable after the shift
    check_loss((z, *t), (0.1, 0.0), 2)


def test_empty_batches_of_the_loss():
    z, y, other, w = loss_case(5, torch.float32, "host")
    empty = z[:0], y[:0], other[:0], w[:0], 0.1, 0.0
    loss, stats = tk.soft_target_cross_entropy(*empty, 2)
    assert loss.shape == (0,)
    assert stats.shape == (0, 3)
    assert tk.soft_target_cross_entropy(*empty, 0)[0].isnan()
    assert tk.soft_target_cross_entropy(*empty, 1)[0] == 0
    grad = tk.soft_target_cross_entropy_backward(loss, empty[0], stats, *empty[1:], 2)
    assert grad.shape == (0, 5)


def test_expanded_gradient_of_the_rows():
    z, *t = loss_case(33, torch.float32, "rows")
    _, stats = tk.soft_target_cross_entropy(z, *t, 0.1, 0.0, 2)
    ones = torch.ones((), device=DEVICE).expand(3)  # what .sum().backward() sends
    args = z, stats, *t, 0.1, 0.0, 2
    got = tk.soft_target_cross_entropy_backward(ones, *args)
    want = reference.soft_target_cross_entropy_backward(ones, *args)
    torch.testing.assert_close(got, want)
