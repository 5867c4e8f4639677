"""FSDP2 with mixed precision, in one CPU process: a MixedTarget and a plan go into the module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fused_mixup import MixedTarget, MixPlan, mix, soft_target_cross_entropy

K = 5


class WithLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, K)
        self.seen = []

    def forward(self, x, target):
        self.seen.append((x.dtype, target.weight.dtype, target.labels.dtype))
        return soft_target_cross_entropy(self.layer(x), target)


class Manifold(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, K)
        self.seen = []

    def forward(self, x, plan):
        self.seen.append((x.dtype, plan.weight.dtype, plan.blend.dtype))
        return self.second(mix(self.first(x), plan)).float().square().mean()


@pytest.fixture
def one_process():
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this PyTorch has no gloo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(model):
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import init_device_mesh

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    return fully_shard(model, mesh=init_device_mesh("cpu", (1,)), mp_policy=policy)


@pytest.mark.parametrize("kind", [WithLoss, Manifold])
@pytest.mark.parametrize("per_sample", [False, True])
def test_three_steps_as_without_sharding(kind, per_sample, one_process):
    generator = torch.Generator().manual_seed(0)
    losses = []
    for shard in (lambda model: model, sharded):
        torch.manual_seed(0)
        model = shard(kind())
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        generator.manual_seed(0)
        losses.append([])
        for step in range(3):
            lam = torch.rand(4, generator=generator)
            plan = MixPlan.per_sample(lam) if per_sample else MixPlan.uniform(4, "flip", lam[0])
            target = MixedTarget.from_labels((torch.arange(4) + step) % K, plan, K, 0.1)
            x = torch.rand(4, 6, generator=generator)
            loss = model(x, target if kind is WithLoss else plan)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    # Activations are cast; weights of labels and of values are not.
    kept = {
        WithLoss: (torch.float32, torch.int64),
        Manifold: (torch.float32, torch.float64),
    }[kind]
    assert model.seen == [(torch.bfloat16, *kept)] * 3
    assert losses[1] == pytest.approx(losses[0], abs=0.02)
