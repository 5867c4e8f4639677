"""Sizes beyond 32-bit indices, or beyond a block's shared memory.

The CPU runs the same tests on small sizes, which proves the tests. `make gpu` runs them in one
process, in sequence: two at once would count the same free memory.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, backends, reference

GIB = 2**30
pytestmark = pytest.mark.xdist_group("large")


@pytest.fixture
def large(device):
    """Whether the test uses large sizes; the reference would make temporaries of that size."""
    if device == "cuda" and backends.chosen("CUDA") == "reference":
        pytest.skip("the reference takes many times the memory of the batch")
    return device == "cuda"


def need(device, large, gib):
    """Skip where the GPU has less free memory than a test takes."""
    if large:
        torch.cuda.empty_cache()  # PyTorch's cache of the previous test counts as free
        free, _ = torch.cuda.mem_get_info(device)
        if free < gib * GIB:
            pytest.skip(f"needs {gib} GiB of free GPU memory, there are {free / GIB:.1f}")


def rows_of_shared_memory():
    """The most rows of 16 bytes that a block can hold: one more takes another kernel."""
    properties = torch.cuda.get_device_properties(0)
    return getattr(properties, "shared_memory_per_block_optin", 227 * 1024) // 16


def check_against_reference(x, plan):
    """Compare mix_ and mix with the reference piece by piece: elements mix independently."""
    step = max((GIB // 16) // x.shape[0], 1)
    original = x.clone()
    out = fm.mix(x, plan)
    fm.mix_(x, plan)
    assert torch.equal(out, x)
    flat, before = x.flatten(1), original.flatten(1)
    args = plan.partner_or_none, plan.blend, plan.box[:, :0], plan.rule
    for first in range(0, flat.shape[1], step):
        piece = before[:, first : first + step]
        expected = reference.mix(piece, *args)
        assert torch.equal(flat[:, first : first + step], expected), f"from element {first}"


@pytest.mark.parametrize("pairing", ["roll", "permutation", "many"])
@pytest.mark.parametrize("extra", [-1, 0, 1, 5000])
def test_rows_beyond_shared_memory(device, large, pairing, extra):
    size = max((rows_of_shared_memory() if large else 9000) + extra, 2)
    partner = {"permutation": torch.randperm(size), "many": torch.arange(size) // 2}
    lam = torch.rand(size)
    start = torch.randint(0, 20, (size,))
    boxes = torch.stack((start, start + torch.randint(0, 20, (size,))), 1)
    plan = MixPlan.per_sample(lam, partner.get(pairing, pairing), boxes, lam < 0.5)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(size, 40).to(dtype)
        expected = reference.mix(x, plan.partner_or_none, plan.blend, plan.box, plan.rule)
        got = fm.mix_(x.to(device, copy=True), plan.to(device))
        assert torch.equal(got.cpu(), expected), str(dtype)


def test_rows_beyond_tritons_tile(device):
    for size in (8192, 8193):
        plan = MixPlan.uniform(size, torch.randperm(size), 0.3)
        x = torch.randn(size, 9)
        expected = reference.mix(x, plan.partner_or_none, plan.blend, plan.box, plan.rule)
        got = fm.mix_(x.to(device, copy=True), plan.to(device))
        assert torch.equal(got.cpu(), expected), str(size)


@pytest.mark.parametrize("pairing", ["flip", "roll", "permutation"])
def test_batch_of_more_than_32_bits(device, large, pairing):
    need(device, large, 20)
    x = torch.empty(5, 2**29 + 40 if large else 2**12, dtype=torch.uint8, device=device).random_()
    partner = torch.tensor([3, 0, 4, 1, 2], device=device) if pairing == "permutation" else pairing
    check_against_reference(x, MixPlan.uniform(5, partner, 0.3))


@pytest.mark.parametrize("pairing", ["flip", "roll"])
def test_sample_of_more_than_32_bits(device, large, pairing):
    need(device, large, 45)
    shape = (3, 3, 2**30 - 8) if large else (3, 3, 2**10)
    x = torch.empty(shape, dtype=torch.uint8, device=device).random_()
    check_against_reference(x, MixPlan.uniform(3, pairing, 0.3))
    # The box lies at the far end, in every channel.
    before, n = x[:, :, -64:].clone(), shape[-1]
    fm.paste_(x, MixPlan.uniform(3, pairing, 0.5, [n - 32, n - 8]))
    other = before.flip(0) if pairing == "flip" else before.roll(1, 0)
    before[:, :, 32:56] = other[:, :, 32:56]
    assert torch.equal(x[:, :, -64:], before)


def test_logits_of_more_than_32_bits(device, large):
    need(device, large, 24)
    size, classes = (70_000, 32_768) if large else (70, 32)
    z = torch.empty(size, classes, dtype=torch.bfloat16, device=device).normal_()
    z.requires_grad_()
    labels = torch.randint(0, classes, (size,), device=device)
    target = MixedTarget.from_labels(labels, MixPlan.uniform(size, "flip", 0.3), classes, 0.1)
    loss = fm.soft_target_cross_entropy(z, target, reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), z)
    dense = fm.mix_targets(labels, MixPlan.uniform(size, "flip", 0.3), classes, 0.1, torch.bfloat16)
    some = torch.cat((torch.arange(9), torch.randint(0, size, (50,)), size - 1 - torch.arange(9)))
    some = some.to(device)
    t = MixedTarget(labels[some], labels.flip(0)[some], target.weight[: len(some)], classes, 0.1)
    exact = z.detach()[some].double().requires_grad_()
    expected = F.cross_entropy(exact, t.dense(torch.float64), reduction="none")
    (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(loss[some].double(), expected, rtol=3e-6, atol=1e-5)
    torch.testing.assert_close(grad[some].double(), expected_grad, rtol=2**-8 * 1.01, atol=2e-6)
    assert torch.equal(dense[some], t.dense(torch.bfloat16))


@pytest.mark.parametrize("channels_last", [False, True])
def test_maps_of_more_than_32_bits(device, large, channels_last):
    """Both losses, their gradients made in the forward and over the logits."""
    need(device, large, 30)
    size, classes, side = (9, 41, 2480) if large else (3, 5, 6)
    z = torch.empty(size, classes, side, side, dtype=torch.bfloat16, device=device)
    z = z.to(memory_format=torch.channels_last) if channels_last else z
    z.normal_()
    labels = torch.randint(0, classes, (size, side, side), device=device)
    labels[:, 0] = -100
    weight = MixPlan.uniform(size, "flip", 0.3).weight
    target = MixedTarget(labels, labels.flip(0), weight, classes, 0.1, ignore_index=-100)
    leaf = z.clone().requires_grad_()
    loss = fm.soft_target_cross_entropy(leaf, target, grad_in_forward=True)
    (grad,) = torch.autograd.grad(loss, leaf)
    some = -1, slice(None), slice(-2, None)  # the last rows
    count = (side - 1) * side * size
    ends = z[some].unsqueeze(0).double().requires_grad_()
    t = MixedTarget(labels[-1:, -2:], labels[:1, -2:], weight[:1], classes, 0.1)
    expected = F.cross_entropy(ends, t.dense(torch.float64), reduction="sum") / count
    (expected_grad,) = torch.autograd.grad(expected, ends)
    close = {"rtol": 2**-8 * 1.01, "atol": 2e-6 / count}
    torch.testing.assert_close(grad[some].double(), expected_grad[0], **close)
    assert (grad[:, :, 0] == 0).all()
    del grad, leaf

    labels[:, 0] = 0
    target = MixedTarget(labels, labels.flip(0), weight, classes, 0.1)
    each = fm.soft_target_binary_cross_entropy(
        z.requires_grad_() * 1, target, sum_classes=True, inplace_backward=True, reduction="none"
    )
    (grad,) = torch.autograd.grad(each.sum(), z)
    dense = t.dense(torch.float64)
    expected = F.binary_cross_entropy_with_logits(ends, dense, reduction="none").sum(1)
    (expected_grad,) = torch.autograd.grad(expected.sum(), ends)
    torch.testing.assert_close(each[-1, -2:].double(), expected[0], rtol=3e-6, atol=1e-5)
    torch.testing.assert_close(grad[some].double(), expected_grad[0], rtol=2**-8 * 1.01, atol=2e-6)
