"""The loss kernels of csrc/cuda, run on the host (tests/host_cuda), against float64."""

from __future__ import annotations

import edge_cases
import pytest
import torch
import unrounded
from comparing import same_bits
from host_cuda import build, lib, loss_grid
from host_cuda import loss_ops as host
from host_cuda.loss_grid import COLUMNS, NO_IGNORE, cases, check_binary, check_values
from host_cuda.ops import DTYPES

from fused_mixup import reference
from fused_mixup.dtypes import arithmetic

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]

FLOATING = DTYPES[:4]


@pytest.mark.parametrize("classes", loss_grid.CLASSES)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_rows(dtype, classes):
    generator = torch.Generator().manual_seed(classes)
    for case in cases(start=classes, step=2):
        loss_grid.check(dtype, classes, case, generator)
        loss_grid.check_bce(dtype, classes, case, generator)


# 1030 classes at few positions: blocks of rows go through them class by class.
@pytest.mark.parametrize("classes", [1, 3, 19, 150, 1030])
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_columns(dtype, classes):
    generator = torch.Generator().manual_seed(classes)
    for case in cases(COLUMNS, start=classes, step=2):
        loss_grid.check(dtype, classes, case, generator)
        loss_grid.check_bce(dtype, classes, case, generator)


@pytest.mark.parametrize("shape", [(), (4,)], ids=["rows", "columns"])
@pytest.mark.parametrize("classes", [5, 1000])
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_hard_logits(dtype, classes, shape):
    """Logits far from zero, and −inf at classes without a label, also in long runs."""
    generator = torch.Generator().manual_seed(4)
    logits = (torch.randn(6, classes, *shape, generator=generator) * 3).to(dtype)
    labels = torch.randint(0, 2, (6, *shape), generator=generator)
    weight = torch.tensor([[1.0, 0.0], [0.25, 0.75]]).repeat(3, 1)
    target = torch.zeros(6, classes, *shape).to(dtype)
    target[:, :2] = 0.5
    masked = logits.clone()
    masked[:, 2::2] = -torch.inf
    masked[1:, 2 : classes - 1] = -torch.inf
    partner = labels.clone()
    partner[::2] = classes - 1  # weight 0: its logit may be −inf
    masked[::2, -1] = -torch.inf
    check_values(masked, labels, partner, weight, 0.0, 0.0, generator, ranks=True)
    check_values(masked, target, None, None, 0.0, 0.0, generator)
    if dtype != torch.float16:  # near 1e4 float16 cannot tell these logits apart
        shifted = (logits.double() + 1e4).to(dtype)
        for ts in (0.0, 0.1):
            check_values(shifted, labels, partner, weight, ts, 0.0, generator)
        check_values(shifted, target, None, None, 0.0, 0.1, generator)


@pytest.mark.parametrize("shape", [(), (4,)], ids=["rows", "columns"])
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_binary_far_from_zero(dtype, shape):
    """At these logits a loss is exp(-|x|), or the logit alone."""
    generator = torch.Generator().manual_seed(4)
    steps = torch.tensor([-300.0, -90.0, -30.0, -10.0, -1e-3, 0.0, 1e-3, 10.0, 30.0, 90.0, 300.0])
    logits = steps.view(1, -1, *[1] * len(shape)).expand(3, -1, *shape).contiguous().to(dtype)
    labels = torch.tensor([0, 5, 10]).view(-1, *[1] * len(shape)).expand(3, *shape).contiguous()
    weight = torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]])
    args = (labels, labels.flip(0), weight, 0.0, None, False, generator, (None, None))
    check_binary(logits, *args)
    # Each loss has a relative bound, the smallest ones too.
    one = (torch.zeros_like(logits), None, None, None, None, 0.0, None, 0.0, 2, False)
    loss = host.soft_target_binary_cross_entropy(logits, *one)
    want = torch.nn.functional.softplus(logits.double())
    seen = want > 1e-30  # exp of float32 flushes smaller results to zero
    torch.testing.assert_close(loss.double()[seen], want[seen], rtol=4e-6, atol=0)


@pytest.mark.parametrize("shape", [(), (4,)], ids=["rows", "columns"])
@pytest.mark.parametrize(("gamma", "z_loss"), [(0.0, 0.0), (2.0, 0.1)])
@pytest.mark.parametrize("bad", [-1, -100, 9, 2**40, 2**32 + 1])
def test_labels_out_of_range_poison_their_row(bad, gamma, z_loss, shape):
    logits = torch.randn(4, 9, *shape)
    good = torch.arange(4).view(-1, *[1] * len(shape)).expand(4, *shape).contiguous()
    wrong = good.clone()
    wrong[2] = bad
    weight = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    expected = [False, False, True, False]
    for labels, partner in ((wrong, good), (good, wrong)):
        sparse = (labels, partner, weight)
        args = (*sparse, None, NO_IGNORE, 0.0, 0.0, gamma, z_loss, 2)
        loss, stats, count, ranks = host.soft_target_cross_entropy(logits, *args, True)
        ones = torch.ones_like(loss)
        grad = host.soft_target_cross_entropy_backward(ones, logits, stats, count, *args)
        both = host.soft_target_cross_entropy_grad(logits, *args, False)[1]
        binary = (*sparse, None, None, 0.0, None, gamma, 2, True)
        bce, bce_grad = host.soft_target_binary_cross_entropy_grad(logits, *binary)
        for t in (loss, bce):
            assert t.flatten(1).all(1).isnan().tolist() == [False] * 4 if t.ndim > 1 else True
            assert t.reshape(4, -1).isnan().any(1).tolist() == expected
        for t in (grad, both, bce_grad):
            assert t.flatten(1).isnan().any(1).tolist() == expected
            assert t[2].isnan().all()
        assert (ranks[0 if labels is wrong else 1, 2] == 9).all()
        loss = host.soft_target_cross_entropy(logits, *args[:-1], 0, False)[0]
        assert loss.isnan()


def test_ignored_rows_have_gradient_zero_whatever_their_logits():
    logits = torch.randn(4, 9, 4)
    logits[1] = torch.nan
    for z in (logits, logits[..., 0].contiguous()):
        labels = torch.ones(4, *z.shape[2:], dtype=torch.int64)
        labels[1] = -100
        weight = torch.tensor([[0.5, 0.5]]).expand(4, 2)
        args = (labels, labels, weight, None, -100, 0.1, 0.1, 0.0, 0.1, 0)
        loss, stats, count, _ = host.soft_target_cross_entropy(z, *args, False)
        assert loss.isfinite() and count == 3 * z[0, 0].numel()
        grad = host.soft_target_cross_entropy_backward(torch.ones(()), z, stats, count, *args)
        both = host.soft_target_cross_entropy_grad(z, *args, False)
        assert same_bits(both[0], loss)
        for g in (grad, both[1]):
            assert (g[1] == 0).all() and g.isfinite().all()
        everything = torch.full_like(labels, -100)
        args = (everything, everything, *args[2:])
        assert host.soft_target_cross_entropy(z, *args, False)[0].isnan()
        assert host.soft_target_cross_entropy(z, *args[:-1], 1, False)[0] == 0


def test_a_label_that_is_ignored_may_be_a_class():
    """With ignore_index 0 class 0 is no label in loss, gradient or ranks."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([[0, 1, 2, 0], [1, 0, 0, 0]])
    weight = torch.tensor([[0.25, 0.75]]).expand(4, 2)
    for shape in ((), (4,)):
        logits = torch.randn(4, 3, *shape, generator=generator)
        own, other = (y.view(-1, *[1] * len(shape)).expand(4, *shape).contiguous() for y in labels)
        check_values(
            logits, own, other, weight, 0.1, 0.1, generator, ignore=0, ranks=True,
            class_weight=torch.tensor([0.0, 2.0, 0.5]),
        )  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_ranks_of_ties_and_of_what_is_no_number(dtype):
    generator = torch.Generator().manual_seed(2)
    for classes in (7, 300):
        for shape in ((), (4,)):
            logits = torch.randint(-2, 3, (12, classes, *shape), generator=generator).to(dtype)
            logits[1] = 0.0
            logits[2, ::2] = -0.0
            logits[3, ::3] = torch.nan
            logits[4, ::2] = -torch.inf
            logits[5] = -torch.inf
            logits[6, 1::2] = torch.inf
            labels = torch.randint(0, classes, (2, 12, *shape), generator=generator)
            labels[0, :2] = classes
            labels[1, 2] = -1
            for partner in (labels[1], None):
                got = host.label_ranks(logits, labels[0], partner)
                assert torch.equal(got, reference.label_ranks(logits, labels[0], partner))


def test_ranks_of_rows_that_take_more_than_16_warps():
    logits = torch.randn(2, 30000, generator=torch.Generator().manual_seed(5))
    labels = torch.tensor([29999, 12])
    weight = torch.tensor([[0.3, 0.7]]).expand(2, 2)
    args = (labels, labels.flip(0), weight, None, NO_IGNORE, 0.0, 0.0, 0.0, 0.0, 2, True)
    got = host.soft_target_cross_entropy(logits, *args)[3]
    assert torch.equal(got, reference.soft_target_cross_entropy(logits, *args)[3])


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_one_logit_that_is_no_number_spoils_its_row_alone(dtype):
    """Wherever it stands: first of all, first and last of a vector, in the tail."""
    generator = torch.Generator().manual_seed(4)
    for shape in ((6, 1027), (6, 2051), (6, 21, 8)):
        for at in (0, 7, 8, shape[1] - 1):
            logits = torch.randn(shape, generator=generator).to(dtype)
            logits[2, at] = torch.nan
            labels = torch.randint(0, shape[1], (2, 6, *shape[2:]), generator=generator)
            weight = torch.rand(6, 2, generator=generator)
            args = (labels[0], labels[1], weight, None, -100, 0.0, 0.1, 0.0, 0.0, 2)
            loss, grad, _ = host.soft_target_cross_entropy_grad(logits, *args, False)
            for t in (loss, grad):
                wrong = t.isnan().reshape(6, -1)
                assert wrong[2].all() and not wrong[[0, 1, 3, 4, 5]].any()


def test_gradients_of_expanded_and_strided_losses():
    """Upstream gradients as the backward of sum() and of a slice gives them."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 5, 4, generator=generator)
    labels = torch.randint(0, 5, (3, 4), generator=generator)
    weight = torch.tensor([[0.3, 0.7]]).expand(3, 2)
    args = (labels, labels.flip(0), weight, None, NO_IGNORE, 0.0, 0.1, 0.0, 0.1, 2)
    _, stats, count, _ = host.soft_target_cross_entropy(logits, *args, False)
    for upstream in (
        torch.tensor(0.5).expand(3, 4),
        torch.rand(4, 3).t(),
        torch.rand(3, 8)[:, ::2],
    ):
        call = (upstream, logits, stats, count, *args)
        torch.testing.assert_close(
            host.soft_target_cross_entropy_backward(*call),
            reference.soft_target_cross_entropy_backward(*call),
        )
    binary = (labels, labels.flip(0), weight, None, None, 0.1, None, 1.5, 2, False)
    for upstream in (torch.tensor(0.5).expand(3, 5, 4), torch.rand(5, 3, 4).transpose(0, 1)):
        call = (upstream, logits, *binary)
        torch.testing.assert_close(
            host.soft_target_binary_cross_entropy_backward(*call),
            reference.soft_target_binary_cross_entropy_backward(*call),
        )


def test_many_rows_are_summed_by_many_blocks():
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(1, 2, 9000, generator=generator)
    labels = torch.randint(-1, 2, (1, 9000), generator=generator)
    weight = torch.tensor([[0.5, 0.5]])
    args = (labels, labels, weight, None, -1, 0.0, 0.0, 0.0, 0.0, 0)
    loss, grad, _ = host.soft_target_cross_entropy_grad(logits, *args, False)
    want, want_grad, _ = reference.soft_target_cross_entropy_grad(logits.double(), *args, False)
    torch.testing.assert_close(loss.double(), want, rtol=1e-6, atol=0)
    torch.testing.assert_close(grad.double(), want_grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 3), (2, 5, 0)])
def test_no_rows(shape):
    logits = torch.empty(shape)
    labels = torch.empty(shape[:1] + shape[2:], dtype=torch.int64)
    weight = torch.ones(1, 2).expand(shape[0], 2)
    sparse = (labels, labels, weight)
    for reduction in (0, 1, 2):
        options = (None, -100, 0.0, 0.0, 2.0, 0.1, reduction, True)
        got = host.soft_target_cross_entropy(logits, *sparse, *options)
        want = reference.soft_target_cross_entropy(logits, *sparse, *options)
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape and torch.allclose(a, b, equal_nan=True)
        got = host.soft_target_cross_entropy_grad(logits, *sparse, *options)
        assert same_bits(got[0], want[0]) and got[1].shape == logits.shape
        binary = (*sparse, None, None, 0.0, None, 2.0, reduction, True)
        loss = host.soft_target_binary_cross_entropy(logits, *binary)
        assert torch.allclose(
            loss, reference.soft_target_binary_cross_entropy(logits, *binary), equal_nan=True
        )


def test_all_minus_infinity_is_nan():
    labels = torch.tensor([0, 1])
    weight = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    args = (labels, labels, weight, None, NO_IGNORE, 0.0, 0.0, 0.0, 0.0, 2, False)
    assert host.soft_target_cross_entropy(torch.full((2, 9), -torch.inf), *args)[0].isnan().all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "misaligned", "strided"])
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_scale(dtype, layout):
    lib.set_order(0)
    loss_grid.check_scale(dtype, layout, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_scale_of_samples_that_lie_apart(dtype):
    base = torch.randn(5, 6, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    for start, stop in ((0, 8), (3, 10)):
        x, want = base.clone(), base.clone()
        want[:, 1:5, start:stop] *= 2
        host.scale_(x[:, 1:5, start:stop], torch.tensor(2.0, dtype=arithmetic(dtype)))
        assert same_bits(x, want)


@pytest.mark.parametrize("shape", unrounded.UNROUNDED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_unrounded_logits(dtype, shape):
    lib.set_order(0)
    unrounded.check_unrounded(host, shape, dtype)


def test_labels_one_beyond_the_classes():
    lib.set_order(0)
    edge_cases.check_labels(host)
