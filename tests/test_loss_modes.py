"""The losses' memory modes: same numbers, less memory, and clear errors where a mode fails."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import loss_targets

import fused_mixup as fm

MODES = ("grad_in_forward", "inplace_backward")
LOSSES = (fm.soft_target_cross_entropy, fm.soft_target_binary_cross_entropy)


def model(features=7, classes=11):
    layer = torch.nn.Linear(features, classes)
    x = torch.randn(6, features)
    return layer, x


def gradients(layer, x, loss, target, **kw):
    layer.zero_grad()
    value = loss(layer(x), target, **kw)
    value.sum().backward()
    return value.detach(), layer.weight.grad.clone(), layer.bias.grad.clone()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_mode_gives_the_same_gradients(loss, reduction, mode):
    layer, x = model()
    for _, target in loss_targets(6, 11):
        for t in (target, target.dense()):
            expected = gradients(layer, x, loss, t, reduction=reduction)
            got = gradients(layer, x, loss, t, reduction=reduction, **{mode: True})
            for a, b in zip(got, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", LOSSES)
def test_upstream_gradients(loss, mode):
    (_, target), *_ = loss_targets(6, 11)
    leaf = torch.randn(6, 11, requires_grad=True)
    for reduction in ("mean", "none"):
        z = leaf * 1.0
        value = loss(z, target, reduction=reduction, **{mode: True})
        upstream = torch.rand(value.shape)
        (got,) = torch.autograd.grad(value, leaf, upstream)
        (expected,) = torch.autograd.grad(loss(leaf, target, reduction=reduction), leaf, upstream)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_gradient_is_made_where_none_is_asked(loss):
    (_, target), *_ = loss_targets(6, 11)
    z = torch.randn(6, 11)
    before = z.clone()
    for mode in MODES:
        value = loss(z, target, **{mode: True})
        with torch.no_grad():
            again = loss(z.clone().requires_grad_(), target, **{mode: True})
        assert not value.requires_grad and torch.equal(value, again)
    assert torch.equal(z, before)


# ------------------------------------------------------------------ grad_in_forward


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_backward_through_grad_in_forward(loss, reduction):
    (_, target), *_ = loss_targets(6, 11)
    z = torch.randn(6, 11, requires_grad=True)
    value = loss(z, target, reduction=reduction, grad_in_forward=True)
    upstream = torch.full(value.shape, 3.0)
    (first,) = torch.autograd.grad(value, z, upstream, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(value, z, upstream * 2, retain_graph=True)
    (third,) = torch.autograd.grad(value, z, upstream)
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, 2 * kept)
    torch.testing.assert_close(third, kept)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, z, upstream)


def test_no_double_backward_through_grad_in_forward():
    (_, target), *_ = loss_targets(6, 11)
    z = torch.randn(6, 11, requires_grad=True)
    value = fm.soft_target_cross_entropy(z, target, grad_in_forward=True)
    with pytest.raises(RuntimeError, match="leave grad_in_forward out"):
        torch.autograd.grad(value, z, create_graph=True)


def test_grad_in_forward_does_not_keep_the_logits():
    (_, target), *_ = loss_targets(6, 11)
    z = torch.randn(6, 11, requires_grad=True) * 1.0
    saved = []

    def keep(t):
        saved.append(t.data_ptr())
        return t

    for mode, kept in (({}, True), ({"grad_in_forward": True}, False)):
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            fm.soft_target_cross_entropy(z, target, **mode)
        assert (z.data_ptr() in saved) == kept


def test_what_each_mode_holds(extra_memory):
    (_, target), *_ = loss_targets(64, 4096)
    if fm.backends.chosen("CPU") != "native":
        pytest.skip("the reference makes temporaries of the logits' size")
    x = torch.randn(64, 4096, requires_grad=True)
    size, slack = x.numel() * 4, 64 * 1024

    def step(**mode):
        z = x * 2
        return torch.autograd.grad(fm.soft_target_cross_entropy(z, target, **mode), z)

    assert extra_memory(lambda: step(inplace_backward=True)) <= size + slack
    for mode in ({}, {"grad_in_forward": True}):
        assert 2 * size <= extra_memory(lambda mode=mode: step(**mode)) <= 2 * size + slack


# ------------------------------------------------------------------ inplace_backward


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_lies_where_the_logits_lay(loss):
    (_, target), *_ = loss_targets(6, 11)
    leaf = torch.randn(6, 11, requires_grad=True)
    z = leaf * 1.0
    (grad,) = torch.autograd.grad(loss(z, target, inplace_backward=True), z)
    assert grad.data_ptr() == z.data_ptr()
    torch.testing.assert_close(grad, torch.autograd.grad(loss(leaf, target), leaf)[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_only_the_elements_of_a_view_are_written(loss):
    (_, target), *_ = loss_targets(6, 11)
    leaf = torch.randn(6, 23, requires_grad=True)
    whole = leaf * 1.0
    before = whole.detach().clone()
    z = whole[:, 1:23:2]
    value = loss(z, target, inplace_backward=True)
    (grad,) = torch.autograd.grad(value, z)
    assert torch.equal(whole.detach()[:, ::2], before[:, ::2])
    expected = torch.autograd.grad(loss(leaf[:, 1:23:2], target), leaf)[0][:, 1:23:2]
    torch.testing.assert_close(grad, expected)


def test_who_saved_the_logits_gets_an_error():
    (_, target), *_ = loss_targets(6, 11)
    leaf = torch.randn(6, 11, requires_grad=True)
    z = leaf.sigmoid()  # the backward of exp needs its result
    value = fm.soft_target_cross_entropy(z, target, inplace_backward=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_views_of_one_tensor_share_its_version():
    (_, target), *_ = loss_targets(6, 11)
    both = torch.randn(6, 22, requires_grad=True) * 1.0
    first, second = (
        fm.soft_target_cross_entropy(z, target, inplace_backward=True)
        for z in (both[:, :11], both[:, 11:])
    )
    first.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        second.backward()


def test_logits_that_changed_after_the_forward_are_an_error():
    (_, target), *_ = loss_targets(6, 11)
    z = torch.randn(6, 11, requires_grad=True) * 1.0
    value = fm.soft_target_cross_entropy(z, target, inplace_backward=True)
    with torch.no_grad():
        z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("loss", LOSSES)
def test_one_backward_in_place(loss):
    (_, target), *_ = loss_targets(6, 11)
    leaf = torch.randn(6, 11, requires_grad=True)
    z = leaf * 1.0
    value = loss(z, target, inplace_backward=True)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="expected one backward"):
        value.backward()
    value = loss(leaf * 1.0, target, inplace_backward=True)
    with pytest.raises(RuntimeError, match="without create_graph"):
        torch.autograd.grad(value, leaf, create_graph=True)


LEAF = torch.randn(4, 6, requires_grad=True)
WIDE = torch.randn(4, 8, requires_grad=True)
(_, TARGET), *_ = loss_targets(4, 6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("logits", "target", "kw", "says"),
    [
        (LEAF, TARGET, dict.fromkeys(MODES, True), "got both"),
        (LEAF, TARGET, {"inplace_backward": True}, "a leaf that requires grad"),
        (torch.randn(4, 8)[:, 1:7].requires_grad_(), TARGET, {"inplace_backward": True}, "a leaf"),
        (WIDE[:, 1:7], TARGET, {"inplace_backward": True}, "a view of one"),
        (WIDE.t()[:6].t(), TARGET, {"inplace_backward": True}, "a view of one"),
        (LEAF * 2, LEAF.softmax(1), {"inplace_backward": True}, "target.detach"),
        (LEAF * 2, LEAF.softmax(1), {"grad_in_forward": True}, "target.detach"),
        ((LEAF * 2)[:1].expand(4, 6), TARGET, {"inplace_backward": True}, "overlapping"),
    ],
)
def test_bad_modes(loss, logits, target, kw, says):
    with pytest.raises(ValueError, match=says):
        loss(logits, target, **kw)


# ------------------------------------------------------------------ around the losses


def loss_of(layer, x, target, **mode):
    return fm.soft_target_cross_entropy(layer(x), target, **mode)


@pytest.mark.parametrize("mode", [{}, {"grad_in_forward": True}, {"inplace_backward": True}])
def test_compiled_whole(mode):
    torch._dynamo.reset()
    (_, target), *_ = loss_targets(6, 11)
    labels = torch.randint(0, 11, (6,))
    weight = torch.rand(11)
    z = torch.randn(6, 11, requires_grad=True)

    def step(z):
        loss, accuracy = fm.soft_target_cross_entropy(
            z * 1.0, target, weight=weight, return_accuracy=True, **mode
        )
        loss = loss + fm.soft_target_cross_entropy(z, labels, weight=weight)
        return loss + fm.soft_target_binary_cross_entropy(z * 1.0, target, **mode), accuracy

    results = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        loss, accuracy = run(z)
        results.append((loss.detach(), accuracy, torch.autograd.grad(loss, z)[0]))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize("loss", LOSSES)
def test_functional_transforms(loss):
    (_, target), *_ = loss_targets(4, 6)
    z = torch.randn(4, 6)
    for mode in ({}, {"grad_in_forward": True}):
        got = torch.func.grad(lambda z, m=mode: loss(z, target, **m))(z)
        leaf = z.clone().requires_grad_()
        torch.testing.assert_close(got, torch.autograd.grad(loss(leaf, target), leaf)[0])

    def steepness(z):
        return torch.func.grad(lambda z: loss(z, target))(z).square().sum()

    leaf = z.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf, target), leaf, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), leaf)
    torch.testing.assert_close(torch.func.grad(steepness)(z), expected)


@pytest.mark.parametrize("mode", [{}, {"grad_in_forward": True}, {"inplace_backward": True}])
def test_autocast_and_grad_scaler(mode):
    layer, x = model()
    (_, target), *_ = loss_targets(6, 11)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = layer(x)
        assert z.dtype == torch.bfloat16
        for loss in LOSSES:
            assert loss(z, target).dtype == torch.float32
        value = fm.soft_target_cross_entropy(z, target, **mode)
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    got = layer.weight.grad.clone()
    layer.zero_grad()
    F.cross_entropy(layer(x), target.dense()).backward()
    torch.testing.assert_close(got, layer.weight.grad, rtol=0.05, atol=2e-3)


def test_distributed_training(tmp_path):
    """In a wrapped model each mode's gradients are averaged over processes (here one)."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    # The last reference to the group waits for its thread, which may need the interpreter's lock.
    # Dropping this reference releases the lock meanwhile; dropping the model's would not.
    group = torch.distributed.group.WORLD
    try:
        distributed_steps()
    finally:
        torch.distributed.destroy_process_group()
    del group


def distributed_steps():
    from torch.nn.parallel import DistributedDataParallel

    layer, x = model()
    (_, target), *_ = loss_targets(6, 11)
    expected = gradients(layer, x, fm.soft_target_cross_entropy, target)
    wrapped = DistributedDataParallel(layer)
    for mode in ({}, {"grad_in_forward": True}, {"inplace_backward": True}):
        layer.zero_grad()
        fm.soft_target_cross_entropy(wrapped(x), target, **mode).backward()
        torch.testing.assert_close(layer.weight.grad, expected[1])
