"""The Triton kernels of the cross-entropy and of ranks against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from triton_losses import TARGETS, class_weights, close, logits_of, target_of, to_float64
from triton_place import DEVICE, HALF, quiet

import fused_mixup.triton_kernels as tk
from fused_mixup import reference
from fused_mixup.codes import NO_IGNORE
from fused_mixup.triton_kernels import configs

pytestmark = [pytest.mark.gpu, quiet]
IGNORE = -100


def check_loss(z, target, options=(IGNORE, 0.0, 0.0, 2), class_weight=None, focal=(0.0, 0.0)):
    """Check all four ops; ``options``: ignore_index, both smoothings, reduction."""
    arguments = (*target, class_weight, *options[:3], *focal, options[3])
    ranks = target[1] is not None
    want = reference.soft_target_cross_entropy(z.double(), *to_float64(arguments), ranks)
    loss, stats, count, found = tk.soft_target_cross_entropy(z, *arguments, ranks)
    rows = z.shape[0] * z[0, 0].numel() if z.numel() else 0
    close(loss, want[0], max(rows, 1) if options[3] == 1 else 1)
    # The interpreter's maximum may skip a NaN; later results propagate it.
    finite = ~want[1][0].isnan()
    close(stats[0][finite], want[1][0][finite])
    close(stats[1], want[1][1])
    # h = (1-p)^γ (…) errs by up to eps^γ near p = 1, where p h cancels against it.
    close(stats[2], want[1][2], 300 if focal[0] else 1)
    assert count.dtype == loss.dtype == stats.dtype
    assert count == want[2]
    assert found.dtype == torch.int32
    assert torch.equal(found, want[3])

    grad_loss = torch.rand_like(loss) + 0.5
    want_grad = reference.soft_target_cross_entropy_backward(
        grad_loss.double(), z.double(), *want[1:3], *to_float64(arguments)
    )
    grad = tk.soft_target_cross_entropy_backward(grad_loss, z, stats, count, *arguments)
    assert grad.dtype == z.dtype
    assert grad.stride() == torch.empty_like(z).stride()
    close(grad, want_grad)
    both = tk.soft_target_cross_entropy_grad(z, *arguments, ranks)
    want_both = reference.soft_target_cross_entropy_grad(z.double(), *to_float64(arguments), ranks)
    close(both[0], want_both[0], max(rows, 1) if options[3] == 1 else 1)
    close(both[1], want_both[1])
    assert both[1].stride() == grad.stride()
    assert torch.equal(both[2], want_both[2])
    written = torch.empty_strided(z.shape, z.stride(), dtype=z.dtype, device=DEVICE).copy_(z)
    tk.soft_target_cross_entropy_backward_(grad_loss, written, stats, count, *arguments)
    assert torch.equal(written.nan_to_num(99), grad.nan_to_num(99))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(1, 33), (2, 1), (3, 2), (1, 5000)])
def test_loss_sizes(shape, target):
    z = logits_of(shape, torch.float32)
    check_loss(z, target_of(z, target), (IGNORE, 0.1, 0.2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF], ids=str)
@pytest.mark.parametrize("target", [*TARGETS, "dense32"])
def test_loss_dtypes_and_reductions(dtype, target):
    z = logits_of((2, 40), dtype)
    reduction = HALF.index(dtype) if dtype in HALF else 2
    check_loss(z, target_of(z, target), (IGNORE, 0.1, 0.0, reduction), class_weights(40, dtype))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 40), "offset"),
        ((3, 20), "transposed"),
        ((1, 11, 130), "contiguous"),
        ((2, 21, 3, 2), "channels_last"),
        ((2, 3, 2, 3), "strided"),
        ((2, 1, 4), "contiguous"),
    ],
)
@pytest.mark.parametrize("target", ["rows", "dense"])
def test_loss_layouts(shape, layout, target):
    z = logits_of(shape, torch.float32, layout)
    check_loss(z, target_of(z, target), (IGNORE, 0.1, 0.2, 0))


def test_a_dense_target_may_lie_otherwise_than_the_logits():
    z = logits_of((2, 5, 3, 4), torch.float32, "channels_last")
    t, _, _ = target_of(z, "dense")
    check_loss(z, (t.contiguous(), None, None), (IGNORE, 0.0, 0.1, 1))


def test_in_place_writes_the_logits_of_a_view_alone():
    whole = logits_of((2, 9, 4, 6), torch.float32)
    z = whole[:, 1:6, :, ::2]
    before = whole.clone()
    target = target_of(z, "host")
    options = None, IGNORE, 0.1, 0.0, 0.0, 0.0, 0
    _, stats, count, _ = tk.soft_target_cross_entropy(z, *target, *options, False)
    one = torch.ones((), device=DEVICE)
    arguments = stats, count, *target, *options
    want = tk.soft_target_cross_entropy_backward(one, z.clone(), *arguments)
    tk.soft_target_cross_entropy_backward_(one, z, *arguments)
    assert torch.equal(z, want)
    z.copy_(before[:, 1:6, :, ::2])
    assert torch.equal(whole, before)


@pytest.mark.parametrize(
    ("ignore_index", "weighted"), [(IGNORE, False), (IGNORE, True), (3, True), (NO_IGNORE, False)]
)
def test_ignored_and_poisoned_rows(ignore_index, weighted):
    """All pairs of labels kept, ignored (-100) and out of range, with all weights."""
    labels = torch.tensor([2, 3, -100, 7])
    own, other, first = (
        v.flatten() for v in torch.meshgrid(labels, labels, torch.arange(2), indexing="ij")
    )
    weight = torch.tensor([[1.0, 0.0], [0.5, 0.5]])[first].to(DEVICE)
    z = logits_of((len(own), 7), torch.float32)
    class_weight = class_weights(7, torch.float32) if weighted else None
    options = ignore_index, 0.1, 0.1, 2
    check_loss(z, (own.to(DEVICE), other.to(DEVICE), weight), options, class_weight)


def test_the_mean_is_over_rows_that_count():
    z = logits_of((2, 5, 3), torch.float32)
    y = torch.tensor([[0, IGNORE, 4], [1, IGNORE, IGNORE]], device=DEVICE)
    weight = torch.tensor([[0.25, 0.75], [1.0, 0.0]], device=DEVICE)
    check_loss(z, (y, y.flip(0), weight), (IGNORE, 0.1, 0.1, 0))


def test_the_mean_of_rows_all_ignored_is_nan():
    z = logits_of((2, 5, 3), torch.float32)
    y = torch.full((2, 3), IGNORE, device=DEVICE)
    target = y, y, torch.full((2, 2), 0.5, device=DEVICE)
    options = None, IGNORE, 0.1, 0.1, 0.0, 0.1
    loss, _, count, _ = tk.soft_target_cross_entropy(z, *target, *options, 0, False)
    assert loss.isnan()
    assert count == 0
    loss, grad, _ = tk.soft_target_cross_entropy_grad(z, *target, *options, 1, False)
    assert loss == 0
    assert not grad.any()


def test_expanded_weights_labels_and_gradients():
    z = logits_of((2, 5, 3), torch.float32)
    _, _, weight = target_of(z, "rows")
    y = torch.tensor([[1], [4]], device=DEVICE).expand(2, 3)
    check_loss(z, (y, y.flip(0), weight), (IGNORE, 0.1, 0.0, 2))
    options = None, IGNORE, 0.1, 0.0, 0.0, 0.0, 2
    _, stats, count, _ = tk.soft_target_cross_entropy(z, y, y, weight, *options, False)
    for grad_loss in (torch.ones(()).expand(2, 3), torch.rand(3, 1).t().expand(2, 3)):
        args = grad_loss.to(DEVICE), z, stats, count, y, y, weight, *options
        got = tk.soft_target_cross_entropy_backward(*args)
        torch.testing.assert_close(got, reference.soft_target_cross_entropy_backward(*args))


@pytest.mark.parametrize("target", ["host", "dense"])
def test_infinite_logits_where_the_target_is_zero(target, monkeypatch):
    for kernel in ("loss", "loss_weighted"):  # chunks of 512 and of 256
        small = configs.DEFAULT[kernel]._replace(warps=1)
        monkeypatch.setitem(configs.DEFAULT, kernel, small)
    z = logits_of((3, 1100), torch.float32)
    y, other, w = target_of(z, target)
    z[:, :1024] = -torch.inf  # the first chunks hold no finite logit
    z[:, 1040:1044] = -torch.inf
    if target == "host":
        y, other = torch.full_like(y, 1030), torch.full_like(y, 1050)
    else:
        y[:, :1044] = 0
    check_loss(z, (y, other, w))
    call = tk.soft_target_cross_entropy
    options = z, y, other, w, None, IGNORE, 0.0
    loss = call(*options, 0.0, 0.0, 0.0, 2, False)[0]
    assert bool(loss.isfinite().all())
    loss = call(*options, 0.1, 0.0, 0.0, 2, False)[0]
    assert bool((loss == torch.inf).all())
    z[0] = -torch.inf
    z[1, 20] = torch.nan
    loss = call(*options, 0.0, 0.0, 0.0, 2, False)[0]
    assert loss.isnan().tolist() == [True, True, False]
    grad = tk.soft_target_cross_entropy_grad(*options, 0.0, 0.0, 0.0, 2, False)[1]
    assert bool(grad[:2].isnan().all())
    assert bool(grad[2].isfinite().all())


@pytest.mark.parametrize("shift", [-3e4, 3e4])
def test_loss_of_far_logits(shift):
    """Kernels subtract the largest logit so far, so a common shift changes nothing."""
    z = logits_of((1, 5000), torch.float32) + shift  # multiples of 1/4 are exact after the shift
    check_loss(z, target_of(z, "host"), (IGNORE, 0.1, 0.0, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_focal_loss_and_z_loss(dtype, target):
    for shape, gamma, reduction in (((3, 40), 2.0, 0), ((2, 5, 3), 0.5, 2), ((2, 6), 0.0, 1)):
        z = logits_of(shape, dtype)
        w = class_weights(shape[1], dtype) if reduction else None
        focal = 0.0 if target == "dense" else gamma, 0.1
        check_loss(z, target_of(z, target), (IGNORE, 0.0, 0.0, reduction), w, focal)


def test_focal_loss_of_labels_masked_ignored_and_sure():
    z = logits_of((5, 7), torch.float32)
    z[0, 2] = -torch.inf  # a label of weight 0
    z[1] = -torch.inf
    z[2, 3] = 400.0  # p = 1 at one label, 0 at the other
    y = torch.tensor([1, 2, 3, IGNORE, 9], device=DEVICE)
    other = torch.tensor([2, 3, 4, IGNORE, 1], device=DEVICE)
    weight = torch.tensor([[1.0, 0.0], *[[0.3, 0.7]] * 4], device=DEVICE)
    for gamma in (0.5, 2.0):
        check_loss(z, (y, other, weight), focal=(gamma, 0.1))
    options = None, IGNORE, 0.0, 0.1, 1.0, 0.0, 2, False
    with pytest.raises(ValueError, match="focal_gamma: expected 0 with a dense or smoothed"):
        tk.soft_target_cross_entropy(z, y, other, weight, *options)


@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 3), (2, 5, 0)])
def test_empty_batches_of_the_loss(shape):
    z = logits_of(shape, torch.float32)
    y = torch.zeros((shape[0], *shape[2:]), dtype=torch.int64, device=DEVICE)
    target = y, y, torch.full((shape[0], 2), 0.5, device=DEVICE)
    for reduction in range(3):
        arguments = *target, None, IGNORE, 0.1, 0.0, 0.0, 0.1, reduction
        loss, stats, count, ranks = tk.soft_target_cross_entropy(z, *arguments, True)
        assert ranks.shape == (2, *y.shape)
        assert stats.shape == (3, *y.shape)
        assert count == 0
        if reduction == 0:
            assert loss.isnan()
        elif reduction == 1:
            assert loss == 0
        else:
            assert loss.shape == y.shape
        grad = tk.soft_target_cross_entropy_backward(loss, z, stats, count, *arguments)
        assert grad.shape == shape
        assert tk.soft_target_cross_entropy_grad(z, *arguments, False)[1].shape == shape


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ranks(layout, dtype):
    z = logits_of((2, 23, 4, 3), dtype, layout)
    z[0, 4, 1] = torch.nan  # NaN ranks first, but last if it is the label's logit
    z[1, :, 2] = -torch.inf
    y, other, _ = target_of(z, "host")
    y[0, 1, 0] = 4
    y[0, 0, 0], other[0, 0, 0] = -1, 23
    for labels in ((y, other), (y, None)):
        want = reference.label_ranks(z, *labels)
        assert torch.equal(tk.label_ranks(z, *labels), want)
    assert want[0, 0, 0, 0] == want[0, 0, 1, 0] == 23


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_scale(dtype, layout):
    x = logits_of((2, 3, 4, 5), dtype, layout)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    want = (x.to(acc) * 0.3).to(dtype)
    tk.scale_(x, torch.tensor(1.0, dtype=acc, device=DEVICE))
    assert torch.equal(x, logits_of((2, 3, 4, 5), dtype, layout))
    tk.scale_(x, torch.tensor(0.3, dtype=acc, device=DEVICE))
    assert torch.equal(x, want)
