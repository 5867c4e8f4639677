"""The Triton kernels of the binary cross-entropy against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from triton_losses import TARGETS, class_weights, close, logits_of, target_of, to_float64
from triton_place import DEVICE, HALF, quiet

import fused_mixup.triton_kernels as tk
from fused_mixup import reference
from fused_mixup.codes import MEAN, NONE, SUM

pytestmark = [pytest.mark.gpu, quiet]


def check_bce(z, target, options=(0.1, None, NONE, False), weights=(None, None), gamma=0.0):
    """Check all four ops; ``options``: smoothing, threshold, reduction, sum_classes."""
    arguments = (*target, *weights, *options[:2], gamma, *options[2:])
    truth = (z.double(), *to_float64(arguments))
    want = reference.soft_target_binary_cross_entropy(*truth)
    # A row or the whole is summed, with terms as large as a logit.
    terms = z.numel() if options[2] == SUM else z.shape[1] if options[3] else 1
    loss = tk.soft_target_binary_cross_entropy(z, *arguments)
    assert loss.dtype == (torch.float64 if z.dtype == torch.float64 else torch.float32)
    close(loss, want, terms)

    grad_loss = torch.rand_like(loss) + 0.5
    want = reference.soft_target_binary_cross_entropy_backward(grad_loss.double(), *truth)
    grad = tk.soft_target_binary_cross_entropy_backward(grad_loss, z, *arguments)
    assert grad.dtype == z.dtype
    assert grad.stride() == torch.empty_like(z).stride()
    close(grad, want)
    both = tk.soft_target_binary_cross_entropy_grad(z, *arguments)
    want = reference.soft_target_binary_cross_entropy_grad(*truth)
    close(both[0], want[0], terms)
    close(both[1], want[1])
    written = torch.empty_strided(z.shape, z.stride(), dtype=z.dtype, device=DEVICE).copy_(z)
    tk.soft_target_binary_cross_entropy_backward_(grad_loss, written, *arguments)
    assert torch.equal(written.nan_to_num(99), grad.nan_to_num(99))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(2, 1), (3, 33), (1, 2500)])
def test_bce_sizes(shape, target):
    z = logits_of(shape, torch.float32)
    check_bce(z, target_of(z, target), (0.1, None, NONE, True))


@pytest.mark.parametrize("dtype", [torch.float64, *HALF], ids=str)
@pytest.mark.parametrize("target", ["host", "dense", "dense32"])
def test_bce_dtypes(dtype, target):
    z = logits_of((2, 40), dtype)
    weights = class_weights(40, dtype), class_weights(40, dtype).flip(0)
    check_bce(z, target_of(z, target), (0.1, None, NONE, False), weights)


@pytest.mark.parametrize("reduction", [MEAN, SUM, NONE])
@pytest.mark.parametrize("sum_classes", [False, True])
def test_bce_reductions(reduction, sum_classes):
    z = logits_of((2, 5, 7), torch.float32)
    weights = class_weights(5, torch.float32), None
    check_bce(z, target_of(z, "rows"), (0.1, None, reduction, sum_classes), weights)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((3, 20), "transposed"),
        ((1, 5, 130), "contiguous"),
        ((2, 21, 3, 2), "channels_last"),
        ((2, 3, 2, 3), "strided"),
    ],
)
@pytest.mark.parametrize("target", ["rows", "dense"])
def test_bce_layouts(shape, layout, target):
    z = logits_of(shape, torch.float32, layout)
    check_bce(z, target_of(z, target), weights=(None, class_weights(shape[1], torch.float32)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("target", ["rows", "dense"])
def test_focal_bce(target, dtype):
    weights = class_weights(5, dtype), class_weights(5, dtype).flip(0)
    for shape, gamma, reduction in (((3, 5), 2.0, MEAN), ((2, 5, 7), 0.5, NONE)):
        z = logits_of(shape, dtype)
        check_bce(z, target_of(z, target), (0.1, None, reduction, gamma == 2), weights, gamma)


@pytest.mark.parametrize("target", TARGETS)
def test_bce_threshold(target):
    """A target equal to the threshold becomes 0: its two products are rounded as in eager."""
    z = logits_of((4, 12), torch.float32)
    t, other, weight = target_of(z, target)
    if target == "host":
        other = t.clone()
        row = torch.tensor([0.3, 0.7])
        weight = row.expand(4, 2)
        threshold = float((row * (1.0 - 0.1 + 0.1 / 12)).sum())
    else:
        threshold = float(t[1, 1]) if target == "dense" else 0.45
    arguments = t, other, weight, None, None, 0.1, threshold, 0.0, NONE, False
    got = tk.soft_target_binary_cross_entropy(z, *arguments)
    want = reference.soft_target_binary_cross_entropy(z, *arguments)
    torch.testing.assert_close(got, want)
    got = tk.soft_target_binary_cross_entropy_grad(z, *arguments)[1]
    want = reference.soft_target_binary_cross_entropy_grad(z, *arguments)[1]
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_bce_of_labels_out_of_range_is_nan_in_their_rows(threshold):
    z = logits_of((3, 7), torch.float32)
    y = torch.tensor([1, 7, 2], device=DEVICE)
    target = y, torch.tensor([-1, 0, 3], device=DEVICE), torch.tensor([[0.5, 0.5]]).expand(3, 2)
    check_bce(z, target, (0.1, threshold, NONE, True))
    loss = tk.soft_target_binary_cross_entropy(
        z, *target, None, None, 0.1, threshold, 0.0, NONE, True
    )
    assert loss.isnan().tolist() == [True, True, False]


def test_bce_of_equal_labels_and_of_far_logits():
    z = logits_of((2, 6), torch.float32)
    z[:, :4] = torch.tensor([-300.0, 300.0, -torch.inf, torch.nan], device=DEVICE)
    y = torch.tensor([1, 5], device=DEVICE)
    check_bce(z, (y, y, torch.tensor([[0.3, 0.7]]).expand(2, 2)), (0.2, None, NONE, False))


@pytest.mark.parametrize("shape", [(0, 5), (2, 5, 0)])
def test_empty_batches_of_bce(shape):
    z = logits_of(shape, torch.float32)
    for sum_classes in (False, True):
        for reduction, want in ((MEAN, torch.nan), (SUM, 0.0)):
            arguments = z, None, None, None, None, 0.0, None, 0.0, reduction, sum_classes
            loss, grad = tk.soft_target_binary_cross_entropy_grad(z, *arguments)
            assert torch.equal(
                loss.nan_to_num(99), torch.tensor(want, device=DEVICE).nan_to_num(99)
            )
            assert grad.shape == shape
        arguments = z, None, None, None, None, 0.0, None, 0.0, NONE, sum_classes
        loss = tk.soft_target_binary_cross_entropy(z, *arguments)
        assert loss.shape == ((shape[0], *shape[2:]) if sum_classes else shape)
