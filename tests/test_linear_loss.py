"""linear_soft_target_cross_entropy: the results of two steps, in a fraction of their memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import FLOATS, loss_targets

import fused_mixup as fm
from fused_mixup import MixedTarget


def layer(rows, features, classes, dtype, bias=True):
    x = torch.randn(rows, features).to(dtype).requires_grad_()
    w = (torch.randn(classes, features) / 3).to(dtype).requires_grad_()
    b = torch.randn(classes).to(dtype).requires_grad_() if bias else None
    return x, w, b


def two_steps(x, w, b, target, class_weight=None, **kw):
    return fm.soft_target_cross_entropy(F.linear(x, w, b), target, weight=class_weight, **kw)


def results(loss, leaves, *args, **kw):
    value = loss(*leaves, *args, **kw)
    wanted = [t for t in leaves if t is not None and t.requires_grad]
    upstream = torch.linspace(0.5, 2, value.numel()).view(value.shape).to(value.dtype)
    return value.detach(), *torch.autograd.grad(value, wanted, upstream)


def targets(rows, classes):
    for _, target in loss_targets(rows, classes):
        yield target
        yield target.dense()
    labels = torch.randint(0, classes, (rows,))
    labels[::4] = -100
    yield labels
    yield MixedTarget(labels, labels.flip(0), torch.rand(rows, 2), classes, 0.1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gives_what_the_two_steps_give(device, dtype, reduction):
    # 11 rows make three whole chunks and a part of one, 64 rows one chunk.
    for rows, chunk in ((11, 3), (11, None), (64, 64), (1, 1)):
        leaves = layer(rows, 5, 9, dtype, bias=rows != 64)
        weight = torch.rand(9)
        for target in targets(rows, 9):
            options = {"reduction": reduction, "label_smoothing": 0.1, "class_weight": weight}
            expected = results(two_steps, leaves, target, **options)
            options["chunk_rows"] = chunk
            got = results(fm.linear_soft_target_cross_entropy, leaves, target, **options)
            assert [t.dtype for t in got] == [t.dtype for t in expected]
            for a, b in zip(got, expected, strict=True):
                # Products and their type are equal; half gradients round in another order.
                size = float(b.abs().nan_to_num().max())
                eps = 4 * torch.finfo(a.dtype).eps
                torch.testing.assert_close(a, b, rtol=eps, atol=eps * size, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_weight_gradient_of_half_types_in_parts(device, dtype):
    # 2,300 × 1,000 is more than two of the parts that the CPU adds at a time.
    leaves = layer(6, 1000, 2300, dtype)
    labels = torch.randint(0, 2300, (6,))
    expected = results(two_steps, leaves, labels)
    for chunk in (2, 6):
        got = results(fm.linear_soft_target_cross_entropy, leaves, labels, chunk_rows=chunk)
        for a, b in zip(got, expected, strict=True):
            eps = 4 * torch.finfo(a.dtype).eps
            torch.testing.assert_close(a, b, rtol=eps, atol=eps * float(b.abs().max()))


def test_gradients_in_float64():
    leaves = layer(7, 3, 5, torch.float64)
    for target in targets(7, 5):
        for reduction in ("mean", "sum", "none"):

            def loss(*leaves, y=target, r=reduction):
                return fm.linear_soft_target_cross_entropy(
                    *leaves, y, reduction=r, label_smoothing=0.1, chunk_rows=2
                )

            assert torch.autograd.gradcheck(loss, leaves)


def test_many_positions():
    x = torch.randn(3, 4, 5, requires_grad=True)
    w = torch.randn(7, 5, requires_grad=True)
    labels = torch.randint(0, 7, (3, 4))
    for weight in (torch.rand(3, 2), torch.tensor([[0.3, 0.7]]).expand(3, 2)):
        mixed = MixedTarget(labels, labels.flip(0), weight, 7)
        for target in (mixed, mixed.dense().movedim(1, -1), labels):
            for reduction in ("mean", "none"):
                got = results(
                    fm.linear_soft_target_cross_entropy, (x, w, None), target, reduction=reduction
                )
                t = target if target is not mixed and target.dtype == torch.int64 else mixed
                logits = F.linear(x, w).movedim(-1, 1)
                loss = fm.soft_target_cross_entropy(logits, t, reduction=reduction)
                upstream = torch.linspace(0.5, 2, loss.numel()).view(loss.shape)
                expected = loss.detach(), *torch.autograd.grad(loss, (x, w), upstream)
                for a, b in zip(got, expected, strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_only_what_requires_grad_gets_one():
    x, w, b = layer(6, 3, 5, torch.float32)
    (_, target), *_ = loss_targets(6, 5)
    for leaves in ((x.detach(), w, b), (x, w.detach(), b), (x, w, b.detach())):
        got = results(fm.linear_soft_target_cross_entropy, leaves, target)
        for a, e in zip(got, results(two_steps, leaves, target), strict=True):
            torch.testing.assert_close(a, e)
    with torch.no_grad():
        assert not fm.linear_soft_target_cross_entropy(x, w, b, target).requires_grad


def test_a_second_backward_and_none_of_second_order():
    leaves = layer(6, 3, 5, torch.float32)
    (_, target), *_ = loss_targets(6, 5)
    for reduction in ("mean", "none"):
        loss = fm.linear_soft_target_cross_entropy(*leaves, target, reduction=reduction).sum()
        first = torch.autograd.grad(3 * loss, leaves, retain_graph=True)
        second = torch.autograd.grad(3 * loss, leaves, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        with pytest.raises(RuntimeError, match="use F.linear"):
            torch.autograd.grad(loss, leaves, create_graph=True)


def test_a_target_that_changed_after_the_forward_is_an_error():
    leaves = layer(6, 3, 5, torch.float32)
    labels = torch.randint(0, 5, (6,))
    weight = torch.rand(5)
    dense = torch.rand(6, 5)
    for target, changed in ((labels, labels), (dense, dense), (labels, weight)):
        loss = fm.linear_soft_target_cross_entropy(
            *leaves, target, class_weight=weight, reduction="none"
        )
        changed.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.sum().backward()


def test_no_rows_and_rows_that_do_not_count():
    x, w, b = layer(0, 3, 5, torch.float32)
    none = torch.zeros(0, dtype=torch.int64)
    assert fm.linear_soft_target_cross_entropy(x, w, b, none).isnan()
    assert fm.linear_soft_target_cross_entropy(x, w, b, none, reduction="none").shape == (0,)
    x, w, b = layer(4, 3, 5, torch.float32)
    value, *gradients = results(
        fm.linear_soft_target_cross_entropy, (x, w, b), torch.full((4,), -100)
    )
    assert value.isnan() and all((g == 0).all() for g in gradients)


def test_compiled_and_transformed():
    torch._dynamo.reset()
    leaves = layer(6, 3, 5, torch.float32)
    (_, target), *_ = loss_targets(6, 5)

    def loss(*leaves):
        return fm.linear_soft_target_cross_entropy(*leaves, target)

    expected = results(loss, leaves)
    got = results(torch.compile(loss, fullgraph=True, backend="aot_eager"), leaves)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    by_function = torch.func.grad(loss, argnums=(0, 1, 2))(*(t.detach() for t in leaves))
    upstream = 0.5  # results() takes the gradient of a scalar
    for a, b in zip(by_function, expected[1:], strict=True):
        torch.testing.assert_close(a * upstream, b)


def test_autocast():
    leaves = layer(6, 3, 5, torch.float32)
    (_, target), *_ = loss_targets(6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = results(fm.linear_soft_target_cross_entropy, leaves, target)
        expected = results(two_steps, leaves, target)
    assert got[0].dtype == torch.float32
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0.02, atol=2e-3)


def test_a_tenth_of_the_memory_of_two_steps(extra_memory):
    if fm.backends.chosen("CPU") != "native":
        pytest.skip("the reference makes temporaries of the logits' size")
    x, w, b = layer(512, 8, 8192, torch.float32)
    (_, target), *_ = loss_targets(512, 8192)
    gradients = 4 * (x.numel() + w.numel() + b.numel())

    def ours():
        loss = fm.linear_soft_target_cross_entropy(x, w, b, target)
        return torch.autograd.grad(loss, (x, w, b))

    def two_steps():
        return torch.autograd.grad(F.cross_entropy(F.linear(x, w, b), target.labels), (x, w, b))

    # The weight is small compared with the logits, so that the two steps' peak holds the logits,
    # their log-softmax and the gradient.
    extra = extra_memory(two_steps) - gradients
    assert extra_memory(ours) - gradients <= 0.1 * extra


X, W, B = (t.detach() for t in layer(4, 3, 6, torch.float32))
(_, TARGET), *_ = loss_targets(4, 6)


@pytest.mark.parametrize(
    ("args", "kw", "error", "says"),
    [
        ((X.long(), W, B, TARGET), {}, TypeError, "features: expected a floating"),
        ((X[0], W, B, TARGET), {}, ValueError, "features: expected shape"),
        ((X, W.half(), B, TARGET), {}, TypeError, "weight: expected torch.float32"),
        ((X, W[:, :2], B, TARGET), {}, ValueError, r"weight: expected shape \[K, 3\]"),
        ((X, W, B[:2], TARGET), {}, ValueError, r"bias: expected shape \[6\]"),
        ((X, W, W, TARGET), {}, ValueError, r"bias: expected shape \[K\]"),
        ((X, W.to("meta"), B, TARGET), {}, ValueError, "weight: expected it on cpu"),
        ((X, W, B, TARGET), {"chunk_rows": 0}, ValueError, "chunk_rows"),
        ((X, W, B, TARGET), {"reduction": "avg"}, ValueError, "reduction"),
        ((X[:3], W, B, TARGET), {}, ValueError, "target: expected labels"),
        ((X, W, B, torch.arange(4).view(2, 2)), {}, ValueError, "target: expected class indices"),
        ((X.view(2, 2, 3), W, B, torch.arange(4)), {}, ValueError, "target: expected shape"),
        ((X, W, B, torch.arange(4) + 3), {}, IndexError, "labels"),
        ((X, W, B, torch.rand(4, 6, requires_grad=True)), {}, ValueError, "no gradient reaches"),
    ],
)
def test_bad_input(args, kw, error, says):
    with pytest.raises(error, match=says):
        fm.linear_soft_target_cross_entropy(*args, **kw)
