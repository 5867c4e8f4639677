"""The CPU kernels of the losses: every op against fused_mixup.reference in float64."""

from __future__ import annotations

import math
import os

import pytest
import torch
from cases import FLOATS
from loss_checks import (
    IGNORE,
    REDUCTIONS,
    all_ranks,
    all_scales,
    binary_cross_entropies,
    check_binary,
    check_cross_entropy,
    cross_entropies,
    labels_of,
    targets_of,
)

from fused_mixup import backends, ops
from fused_mixup.codes import MEAN, NO_IGNORE, NONE

pytestmark = pytest.mark.skipif(
    backends.reason_unavailable("native", "CPU") is not None,
    reason=str(backends.reason_unavailable("native", "CPU")),
)

# Rows have one class, part of a vector, or several chunks; columns have part of a vector, several
# tiles, or more classes than a buffer holds.
SHAPES = [(5, 1), (33, 10), (6, 2049), (2, 5000), (4, 21, 7, 5), (3, 1, 9), (2, 150, 70)]
SHAPES += [(1, 5, 2500), (2, 600, 3)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("check", [cross_entropies, binary_cross_entropies, all_ranks])
def test_against_the_reference(check, dtype, shape):
    torch.manual_seed(sum(shape))
    check(shape, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_scale(dtype):
    for shape in [(), (0, 3), (7, 5), (3, 4, 5, 6), (2, 40_001)]:
        all_scales(shape, dtype)


@pytest.mark.parametrize("shape", [(40, 10), (3, 6, 50)], ids=str)
def test_labels_out_of_range_and_rows_without_labels(shape):
    torch.manual_seed(0)
    b, k, *inner = shape
    z = torch.randn(shape)
    z[0] = math.nan
    z[1] = -math.inf
    z[2, 1] = math.inf
    for target, ts in targets_of(shape, z.dtype, outside=True):
        for reduction in REDUCTIONS:
            for focal in ((0.0, 0.0), (2.0, 0.1), (0.5, 0.0)):
                if not focal[0] or (ts == 0 and target[1] is not None):
                    check_cross_entropy(z, target, None, IGNORE, ts, 0.0, reduction, *focal)
    ignored = torch.full((b, *inner), IGNORE)
    target = ignored, ignored, torch.rand(b, 2)
    check_cross_entropy(z, target, None, IGNORE, 0.0, 0.1, MEAN)
    loss, _, count, _ = ops.soft_target_cross_entropy(
        z, *target, None, IGNORE, 0.0, 0.1, 0.0, 0.1, MEAN, False
    )
    assert loss.isnan() and count == 0


@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 3), (2, 5, 0)], ids=str)
def test_no_rows(shape):
    b, k, *inner = shape
    labels = torch.zeros((b, *inner), dtype=torch.int64)
    z = torch.randn(shape)
    for reduction in REDUCTIONS:
        check_cross_entropy(
            z, (labels, labels, torch.rand(b, 2)), None, NO_IGNORE, 0.0, 0.0, reduction
        )
        for summed in (False, True):
            check_binary(z, (labels, labels, torch.rand(b, 2)), None, 0.0, None, reduction, summed)


@pytest.mark.parametrize("shape", [(300, 70), (3, 9, 2000)], ids=str)
def test_the_number_of_threads_changes_no_bit(shape):
    b, k, *inner = shape
    z = torch.randn(shape)
    own, partner = labels_of((b, *inner), k)
    arguments = (own, partner, torch.rand(b, 2), None, IGNORE, 0.1, 0.1, 0.0, 0.1, MEAN, True)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(ops.soft_target_cross_entropy_grad(z, *arguments))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_binary_cross_entropy_of_large_and_strange_logits():
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-3, 30, -30, 88, -88, 1e4, -1e4, 3e38, -3e38, math.nan])
    for t in (0.0, 0.3, 1.0):
        check_binary(
            x[:, None].clone(), (torch.full((13, 1), t), None, None), None, 0.0, None, 2, 0
        )
    # Small losses and gradients keep their digits, as kernels subtract nothing from one. Without
    # fused products exp(-80) is off by some 4e-6.
    x = torch.linspace(-80, -5, 1000)[None]
    none = torch.zeros_like(x), None, None, None, None, 0.0, None, 0.0
    loss, grad = ops.soft_target_binary_cross_entropy_grad(x, *none, NONE, False)
    torch.testing.assert_close(loss.double(), x.double().exp().log1p(), rtol=1e-5, atol=0)
    torch.testing.assert_close(grad.double(), x.double().sigmoid(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_binary_cross_entropy_sums_small_terms_to_the_last_digits(dtype):
    """One product replaces many log(1 + e^-|x|); 1 + e^-|x| alone would lose small terms."""
    k, eps = 5003, torch.finfo(dtype).eps
    labels = torch.zeros(2, dtype=torch.int64)
    target = labels, labels, torch.tensor([[1.0, 0.0]]).expand(2, 2)
    # e^-|x| is half a unit in the last place of 1 near -17 in float and near -37 in double.
    for x in (-80, -40, -36.8, -20, -17.2, -16.7, -15, -9.7, -4, -1, -1e-3, 0, 0.3, 5, 40):
        z = torch.full((2, k), x, dtype=dtype)
        z[1] += torch.linspace(-0.5, 0.5, k, dtype=dtype)
        # No target exceeds the threshold 2: all become 0, and no large term hides the small ones.
        options = None, None, 0.0, 2.0, 0.0, NONE, True
        got = ops.soft_target_binary_cross_entropy(z, *target, *options)
        exact = [
            math.fsum(max(v, 0) + math.log1p(math.exp(-abs(v))) for v in row) for row in z.tolist()
        ]
        want = torch.tensor(exact, dtype=torch.float64)
        # exp errs by |x| / 2 units in the last place without FMA, and by less with it.
        plain = "DEFAULT", "baseline"
        fused = torch.backends.cpu.get_cpu_capability() not in plain
        fused = fused and os.environ.get("FUSED_MIXUP_CPU") not in plain
        bound = (6 + abs(x) / (20 if fused else 2)) * eps * want
        assert ((got.double() - want).abs() <= bound).all(), x
