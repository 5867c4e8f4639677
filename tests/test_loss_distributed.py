"""DTensors as logits, targets and weights (tensor parallel, FSDP2): refused with the remedy."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

Z, Y = torch.randn(8, 5), torch.arange(8) % 5
TARGET = MixedTarget.from_labels(Y, MixPlan.uniform(8, "flip", 0.3), 5)
W = torch.rand(5)


@pytest.fixture(scope="module")
def spread():
    """A function that makes a DTensor of a tensor, on a mesh of this one process."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    yield lambda t, whole=True: distribute_tensor(t, mesh, [Replicate() if whole else Shard(0)])
    dist.destroy_process_group()


def calls(d):
    dense = TARGET.dense()
    for loss in (fm.soft_target_cross_entropy, fm.soft_target_binary_cross_entropy):
        yield "logits", lambda f=loss: f(d(Z), Y)
        yield "logits", lambda f=loss: f(d(Z, whole=False), TARGET)
        yield "logits", lambda f=loss: f(d(Z), d(dense))
        yield "target", lambda f=loss: f(Z, d(Y))
        yield "target", lambda f=loss: f(Z, d(dense))
        yield "weight", lambda f=loss: f(Z, Y, weight=d(W))
    one = fm.soft_target_binary_cross_entropy
    yield "logits", lambda: one(d(Z[:, 0]), d(W[Y]))
    yield "pos_weight", lambda: one(Z, Y, pos_weight=d(W))
    yield "logits", lambda: fm.SoftTargetCrossEntropy()(d(Z), Y)
    yield "logits", lambda: fm.mixed_accuracy(d(Z), TARGET)
    yield "target", lambda: fm.mixed_accuracy(Z, d(Y))
    # A parameter of a layer that FSDP2 shards.
    linear = fm.linear_soft_target_cross_entropy
    parameter = torch.nn.Parameter(d(torch.eye(5), whole=False))
    yield "weight", lambda: linear(Z, parameter, None, Y)
    yield "features", lambda: linear(d(Z), parameter, None, Y)
    yield "bias", lambda: linear(Z, torch.eye(5), d(W), Y)
    yield "target", lambda: linear(Z.view(2, 4, 5), torch.eye(5), None, d(Y.view(2, 4)))


def test_dtensors_are_refused_with_the_remedy(spread):
    for name, call in calls(spread):
        with pytest.raises(TypeError, match=rf"^{name}: .*DTensor.*\.full_tensor\(\).*to_local"):
            call()


def test_the_remedy_works(spread):
    z = spread(Z).requires_grad_()
    loss = fm.soft_target_cross_entropy(z.full_tensor(), TARGET)
    torch.testing.assert_close(loss, F.cross_entropy(Z, TARGET.dense()))
    (got,) = torch.autograd.grad(loss, z)
    leaf = Z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(leaf, TARGET.dense()), leaf)
    torch.testing.assert_close(got.full_tensor(), expected)


def test_a_mixed_target_of_dtensors(spread):
    target = MixedTarget(Y, Y.flip(0), TARGET.weight.contiguous(), 5)
    for name in ("labels", "partner_labels", "weight"):
        object.__setattr__(target, name, spread(getattr(target, name)))
        with pytest.raises(TypeError, match=rf"^target\.{name}: .*full_tensor"):
            fm.soft_target_cross_entropy(Z, target)
        object.__setattr__(target, name, getattr(target, name).full_tensor())
