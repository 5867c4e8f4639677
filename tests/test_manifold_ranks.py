"""ManifoldMixup under DistributedDataParallel and FSDP2 on gloo, against the step by hand."""

from __future__ import annotations

import pytest
import torch
from frameworks import run_ranks
from manifold_cases import (
    IMAGES,
    LABELS,
    LAYERS,
    K,
    Net,
    hooks_of,
    loss_of,
    net_by_hand,
    soft_labels,
)

from fused_mixup import ManifoldMixup

pytestmark = pytest.mark.proof


def averaged_by_hand(rank):
    import torch.distributed as dist

    dist.init_process_group("gloo")
    cases = (None, False), (False, False), (None, True)
    found = [ddp_by_hand(rank, *case) for case in cases]
    dist.destroy_process_group()
    return found


def ddp_by_hand(rank, region, compiles):
    """The largest difference between DDP's gradients and the mean of both ranks' by hand."""
    import torch.distributed as dist

    net = Net(region)
    ddp = torch.nn.parallel.DistributedDataParallel(net)
    model = torch.compile(ddp, backend="aot_eager") if compiles else ddp
    worst, layers = 0.0, []
    with ManifoldMixup(model, LAYERS, per="sample", cutmix=1.0, seed=3) as manifold:
        for step in range(5):
            x = IMAGES + rank + step
            net.zero_grad()
            logits, target = manifold(x, LABELS)
            loss_of(logits, target.dense(torch.float64)).backward()
            got = [p.grad.clone() for p in net.parameters()]
            net.zero_grad()
            layer, plan = manifold.last_layer, manifold.last_plan
            loss_of(net_by_hand(net, x, layer, plan), soft_labels(LABELS, plan, K)).backward()
            for p, grad in zip(net.parameters(), got, strict=True):
                dist.all_reduce(p.grad)
                worst = max(worst, (p.grad / 2 - grad).abs().max().item())
            layers.append(layer)
    return [worst, hooks_of(net), layers]


def test_two_ranks_of_ddp():
    """As it is, with a checkpoint around a layer, and compiled."""
    for (worst, left, layers), (other, _, others) in zip(*run_ranks(averaged_by_hand), strict=True):
        assert max(worst, other) <= 1e-12 and left == 0
        assert layers != others  # each rank has a stream of its own


def sharded_as_plain(rank):
    import torch.distributed as dist

    dist.init_process_group("gloo")
    found = [fsdp2_and_plain(rank, first) for first in (False, True)]
    dist.destroy_process_group()
    return found


def fsdp2_and_plain(rank, registered_first):
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    losses = []
    for shards in (False, True):
        net = Net(False)
        options = {"per": "sample", "cutmix": 1.0, "seed": 3, "rank": rank}
        manifold = ManifoldMixup(net, LAYERS, **options) if registered_first else None
        if shards:
            for layer in (net.a, net.b, net.c):
                fully_shard(layer)
            fully_shard(net)
        manifold = manifold or ManifoldMixup(net, LAYERS, **options)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        losses.append([])
        for step in range(5):
            logits, target = manifold(IMAGES + rank + step, LABELS)
            loss = loss_of(logits, target.dense(torch.float64))
            optimizer.zero_grad()
            loss.backward()
            if not shards:
                for p in net.parameters():
                    dist.all_reduce(p.grad)
                    p.grad /= 2
            optimizer.step()
            losses[-1].append(loss.item())
    return losses


def test_two_ranks_of_fsdp2():
    """Made before and behind fully_shard."""
    for found in run_ranks(sharded_as_plain):
        for plain, sharded in found:
            assert sharded == pytest.approx(plain, rel=1e-12, abs=1e-12)
