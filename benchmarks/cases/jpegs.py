"""Times an epoch from JPEG files to the model's input: by timm, by torchvision's recipe, by ours.

Two workers decode with Pillow. All sides crop to 224² at random, mirror, mix and end with bfloat16
in channels_last. The parts are CPU seconds of all processes for a batch: where two workers share
two cores, these limit the images of a second. "between processes" is what no other part names:
pickling, shared memory, queues.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from fused_mixup import mix_normalize
from fused_mixup import timm as our_timm

from .. import installed_peers
from ..registry import OURS, Case, Provider, Work
from .drop_ins import CLASSES
from .input import MEAN, STD

OP = "loader of JPEG files"
WORKERS, BATCHES = 2, 4
SIDE = 224
PHOTOGRAPH = (500, 375)  # as ImageNet's
ALPHA = 0.8
PARTS = ("decode", "augment", "collate", "between processes", "normalise")
IN_WORKERS = PARTS[:3]

Step = Callable[[torch.Tensor], torch.Tensor]  # what the main process does to a batch


def write_photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of some 100 KB, with detail at every scale as photographs have it."""
    from PIL import Image

    generator = np.random.default_rng(0)
    paths = []
    for i in range(count):
        total = np.zeros((*PHOTOGRAPH[::-1], 3), dtype=np.float32)
        for scale in (4, 16, 64, 250):
            small = generator.integers(0, 256, (scale, scale, 3), dtype=np.uint8)
            total += np.asarray(Image.fromarray(small).resize(PHOTOGRAPH)) / np.float32(4)
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(total.astype(np.uint8)).save(paths[-1], quality=92)
    return paths


class Clock:
    """CPU seconds of the workers: those of three parts, and of the whole process."""

    def __init__(self) -> None:
        self.seconds = torch.zeros(WORKERS, len(IN_WORKERS) + 1, dtype=torch.float64)
        self.seconds.share_memory_()

    def add(self, part: str, seconds: float) -> None:
        row = self.seconds[get_worker_info().id]
        row[IN_WORKERS.index(part)] += seconds
        row[-1] = time.process_time()


class Files(Dataset):
    """JPEG files and labels. timm's create_loader sets ``transform``."""

    def __init__(self, paths: list[Path], clock: Clock, transform: Callable | None = None) -> None:
        self.paths, self.clock, self.transform = paths, clock, transform
        self.worker: int | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        if self.worker is None:  # a worker inherits the core of the main thread
            self.worker = os.getpid()
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, range(os.cpu_count() or 1))
        begin = time.thread_time()
        image = Image.open(self.paths[index]).convert("RGB")
        decoded = time.thread_time()
        assert self.transform is not None
        sample = self.transform(image)
        self.clock.add("decode", decoded - begin)
        self.clock.add("augment", time.thread_time() - decoded)
        return sample, index % CLASSES


class Timed:
    """A collate function whose CPU seconds are counted."""

    def __init__(self, collate: Callable, clock: Clock) -> None:
        self.collate, self.clock = collate, clock

    def __call__(self, samples: list) -> Any:
        begin = time.thread_time()
        batch = self.collate(samples)
        self.clock.add("collate", time.thread_time() - begin)
        return batch


# ------------------------------------------------------------------ the three sides


def timm_loader(paths: list[Path], clock: Clock, batch_size: int, collate: Callable) -> Any:
    """create_loader's transforms and workers, with ``collate``; without its normalising."""
    timm, _ = installed_peers.load()
    loader = timm.data.create_loader(
        Files(paths, clock),
        (3, SIDE, SIDE),
        batch_size,
        is_training=True,
        color_jitter=0.0,
        num_workers=WORKERS,
        collate_fn=Timed(collate, clock),
        device=torch.device("cpu"),
        img_dtype=torch.bfloat16,
    )
    return loader


def ours(paths: list[Path], clock: Clock, batch_size: int) -> tuple[Iterable, Step]:
    collate = our_timm.FastCollateMixup(ALPHA, num_classes=CLASSES, sparse_targets=True)
    loader = timm_loader(paths, clock, batch_size, collate).loader
    return loader, lambda x: mix_normalize(x, mean=MEAN, std=STD)


def timm_side(paths: list[Path], clock: Clock, batch_size: int) -> tuple[Iterable, Step]:
    timm, _ = installed_peers.load()
    collate = timm.data.FastCollateMixup(ALPHA, num_classes=CLASSES)
    loader = timm_loader(paths, clock, batch_size, collate)

    def normalise(x: torch.Tensor) -> torch.Tensor:  # PrefetchLoader, then timm's train.py
        x = x.to(loader.img_dtype).sub_(loader.mean).div_(loader.std)
        return x.contiguous(memory_format=torch.channels_last)

    return loader.loader, normalise


def torchvision_side(paths: list[Path], clock: Clock, batch_size: int) -> tuple[Iterable, Step]:
    """Its classification reference: normalised in the workers, mixed in the collate function."""
    _, torchvision = installed_peers.load()
    v2 = torchvision.transforms.v2
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    mixer = v2.MixUp(alpha=ALPHA, num_classes=CLASSES)
    loader = DataLoader(
        Files(paths, clock, transform),
        batch_size,
        shuffle=True,
        num_workers=WORKERS,
        collate_fn=Timed(lambda samples: mixer(*default_collate(samples)), clock),
        persistent_workers=True,
    )
    return loader, lambda x: x.to(torch.bfloat16, memory_format=torch.channels_last)


SIDES = {OURS: ours, "timm": timm_side, "torchvision": torchvision_side}


def provider(loader: Iterable, step: Step, clock: Clock) -> Provider:
    parts: dict[str, list[float]] = {name: [] for name in PARTS}

    def epoch(_: object) -> torch.Tensor:
        before = clock.seconds.clone()
        main, all_threads, images = time.thread_time(), 0.0, 0
        stepping = 0.0
        for x, _target in loader:
            begin, begin_all = time.thread_time(), time.process_time()
            x = step(x)
            stepping += time.thread_time() - begin
            all_threads += time.process_time() - begin_all
            assert x.dtype == torch.bfloat16 and x.stride(1) == 1
            images += len(x)
        receiving = time.thread_time() - main - stepping
        *named, whole = (clock.seconds - before).sum(0).tolist()
        seconds = (*named, whole - sum(named) + receiving, all_threads)
        for name, spent in zip(PARTS, seconds, strict=True):
            parts[name].append(spent / BATCHES)
        return torch.tensor(images)

    return Provider(epoch, parts=parts)


def epochs(case: Case, device: str) -> Work:
    why = installed_peers.reason_missing()
    if why is not None:
        return Work([None], dict.fromkeys(SIDES, why), tuple)
    folder = tempfile.TemporaryDirectory()
    count = BATCHES * case.shape[0]
    paths = write_photographs(Path(folder.name), count)

    def side(name: str) -> Provider:
        clock = Clock()
        loader, step = SIDES[name](paths, clock, case.shape[0])
        made = provider(loader, step, clock)
        run = made.run
        # The files stay as long as somebody reads them.
        return Provider(lambda x, _files=folder: run(x), parts=made.parts)

    # Draws differ from worker to worker, so that the number of images alone is compared.
    return Work([None], {name: side(name) for name in SIDES}, lambda _: torch.tensor(count))


def cases(device: str) -> Iterator[Case]:
    if device == "cpu":
        peers = tuple(name for name in SIDES if name != OURS)
        variant = f"MixUp, {BATCHES} batches, {WORKERS} workers"
        yield Case(OP, variant, (32, 3, SIDE, SIDE), torch.bfloat16, epochs, OP, peers)
