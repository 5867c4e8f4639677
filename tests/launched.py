"""What the launched trainings of test_distributed_launchers.py run on every rank."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from global_cases import assert_same, share_of
from torch import Tensor, nn

from benchmarks import installed_peers
from fused_mixup import BatchMix, soft_target_cross_entropy
from fused_mixup.distributed import GlobalMix

OPTIONS = {"cutmix_alpha": 1.0, "pairing": "shuffle", "per": "sample", "seed": 3}
STEPS, SAMPLES = 3, (3, 5)  # of two ranks
_twin: BatchMix | None = None


def _gathered(x: Tensor) -> tuple[Tensor, list[int]]:
    """The samples of all ranks, which may differ in number."""
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, x)
    return torch.cat(every), [len(part) for part in every]


def checked(mix: GlobalMix, x: Tensor, labels: Tensor) -> Any:
    """``mix(x, labels)``, equal to one process with the batches of all ranks."""
    global _twin
    if _twin is None:
        options = {"cutmix_alpha": 1.0, "pairing": "shuffle", "rank": 0}
        _twin = BatchMix(mix.batch_mix.num_classes, **options)
    whole, sizes = _gathered(x)
    expected = _twin(whole, _gathered(labels)[0])
    start = sum(sizes[: dist.get_rank()])
    got = mix(x, labels)
    assert_same(got, share_of(expected, start, start + len(x)))
    return got


def batches() -> list[tuple[Tensor, Tensor]]:
    pick = torch.Generator().manual_seed(1)
    n = sum(SAMPLES)
    return [
        (torch.rand(n, 3, 8, 8, generator=pick), torch.randint(0, 10, (n,), generator=pick))
        for _ in range(STEPS)
    ]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 10)).double()


def train(net: nn.Module, mix: nn.Module, rank: int | None) -> None:
    """A few steps of one rank, or of one process with the whole batches; gradients accumulate."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    n = sum(SAMPLES)
    start = 0 if not rank else SAMPLES[0]
    own = slice(0, n) if rank is None else slice(start, start + SAMPLES[rank])
    for step, (x, labels) in enumerate(batches()):
        x, target = mix(x[own].double(), labels[own])
        ranks = 1 if rank is None else len(SAMPLES)
        loss = soft_target_cross_entropy(net(x), target) * (len(x) * ranks / n)
        loss.backward()
        if step != 0:  # the first two steps make one
            optimizer.step()
            optimizer.zero_grad()


def in_one_process() -> dict[str, list]:
    net = network()
    train(net, BatchMix(10, **OPTIONS, rank=0), None)
    return {name: p.detach().tolist() for name, p in net.named_parameters()}


def in_ddp(rank: int) -> dict[str, list]:
    dist.init_process_group("gloo")
    net = nn.parallel.DistributedDataParallel(network())
    train(net, GlobalMix(BatchMix(10, **OPTIONS)), rank)
    weights = {name: p.detach().tolist() for name, p in net.module.named_parameters()}
    del net  # before its group, see examples/train_distributed.py
    dist.destroy_process_group()
    return weights


def in_fsdp(rank: int) -> dict[str, list]:
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    net = network()
    fully_shard(net)
    train(net, GlobalMix(BatchMix(10, **OPTIONS)), rank)
    weights = {name: p.detach().full_tensor().tolist() for name, p in net.named_parameters()}
    del net
    dist.destroy_process_group()
    return weights


def in_lightning(rank: int, folder: str) -> dict[str, list]:
    installed_peers.fit_torchvision()
    import lightning
    from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def on_fit_start(self):
            self.mix = GlobalMix(BatchMix(10, **OPTIONS))

        def training_step(self, batch, _):
            x, target = self.mix(*batch)
            return soft_target_cross_entropy(self.net(x), target)

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.1)

    pick = torch.Generator().manual_seed(1)
    images = torch.rand(16, 3, 8, 8, generator=pick).double()
    data = TensorDataset(images, torch.randint(0, 10, (16,), generator=pick))
    module = Module()
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {**dict.fromkeys(silent, False), "default_root_dir": folder, "max_epochs": 2}
    options["use_distributed_sampler"] = False  # it would shuffle
    trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy="ddp", **options)
    sampler = DistributedSampler(data, len(SAMPLES), rank, shuffle=False)
    trainer.fit(module, DataLoader(data, 4, sampler=sampler))
    return {name: p.detach().tolist() for name, p in module.net.named_parameters()}


def lightning_by_hand() -> dict[str, list]:
    """The same in one process: rank r has samples r, r + 2, … of each four of a batch."""
    pick = torch.Generator().manual_seed(1)
    images = torch.rand(16, 3, 8, 8, generator=pick).double()
    labels = torch.randint(0, 10, (16,), generator=pick)
    net, mix = network(), BatchMix(10, **OPTIONS, rank=0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        for start in (0, 8):
            rows = torch.arange(start, start + 8).view(4, 2).T.flatten()
            x, target = mix(images[rows], labels[rows])
            loss = soft_target_cross_entropy(net(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return copy.deepcopy({name: p.detach().tolist() for name, p in net.named_parameters()})
