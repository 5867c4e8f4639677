"""Times FastCollateMixup against timm's: one call, and a data loader with workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from fused_mixup import timm as our_timm

from .. import installed_peers
from ..registry import OURS, Case, Provider, Work
from .drop_ins import CLASSES, CUTMIX, MIXUP, compare

BATCHES = 8
WORKERS = 2
PIXEL = (slice(None), 0, 0, 0)  # a read of these waits for the batch


class Images(Dataset):
    """``count`` uint8 images in memory, as arrays or tensors, with labels."""

    def __init__(self, kind: str, count: int, shape: tuple[int, ...]) -> None:
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
        if kind == "HWC arrays":  # as from timm: [C, H, W] views of HWC images
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        samples = torch.from_numpy(images) if kind == "tensors" else images
        self.items = [(sample, i % CLASSES) for i, sample in enumerate(samples)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple:
        return self.items[index]


def collate(case: Case, device: str, kind: str, options: dict) -> Work:
    batch_size, *shape = case.shape
    items = Images(kind, BATCHES * batch_size, tuple(shape)).items
    batches = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
    peer = installed_peers.reason_missing()
    if peer is None:
        peer = installed_peers.load()[0].data.FastCollateMixup(**options)
    work = compare("timm", our_timm.FastCollateMixup(**options), peer, np.random.seed, batches)
    work.read = work.written = batch_size * int(np.prod(shape))
    work.threads = 1  # as in a worker
    return work


def _use_all_cores(_worker: int) -> None:
    """Undoes the pinning that a worker inherits: otherwise all workers would share one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def loader(case: Case, device: str, options: dict) -> Work:
    """Loads one epoch of images from memory, so that no side has to decode."""
    data = Images("HWC arrays", BATCHES * case.shape[0], tuple(case.shape[1:]))

    def provider(collate_fn) -> Provider:
        loader = DataLoader(
            data,
            case.shape[0],
            num_workers=WORKERS,
            collate_fn=collate_fn,
            persistent_workers=True,
            worker_init_fn=_use_all_cores,
        )
        # Each worker has a seed of its own, so results differ; `collate` checks them.
        return Provider(lambda _: [x[PIXEL].sum() for x, _ in loader], checked=False)

    providers: dict[str, Provider | str] = {OURS: provider(our_timm.FastCollateMixup(**options))}
    why = installed_peers.reason_missing()
    if why is None:
        why = provider(installed_peers.load()[0].data.FastCollateMixup(**options))
    providers["timm"] = why
    return Work([None], providers, tuple)


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":
        return
    shape, dtype, op = (64, 3, 224, 224), torch.uint8, "timm.FastCollateMixup"
    for kind in ("arrays", "HWC arrays", "tensors"):
        for name, options in (("MixUp", MIXUP), ("CutMix", CUTMIX)):
            build = partial(collate, kind=kind, options=options)
            goals = ("cpu collate",) if name == "MixUp" else ()
            yield Case(
                op, f"{name}, {kind}", shape, dtype, build, "collate", ("timm",), goals=goals
            )
    # On images this small the host's part of a call shows.
    build = partial(collate, kind="arrays", options=MIXUP)
    yield Case(op, "MixUp, arrays", (64, 3, 32, 32), dtype, build, "collate", ("timm",))
    for name, options in (("MixUp", MIXUP), ("CutMix", CUTMIX)):
        build = partial(loader, options=options)
        variant = f"{name}, loader of {BATCHES} batches, {WORKERS} workers"
        yield Case(op, variant, shape, dtype, build, "loader", ("timm",))
