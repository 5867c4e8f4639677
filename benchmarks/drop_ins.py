"""The drop-ins beside the installed timm and torchvision: the same calls with the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from fused_mixup import timm as our_timm
from fused_mixup import torchvision as our_torchvision

from . import installed_peers
from .cases import Case
from .timing import rotated

K = 1000
BATCH, SHAPE = 64, (3, 224, 224)


def _seeded(seed: Callable[[int], object], run: Callable[[], object]) -> Callable[[], object]:
    """``run`` from one seed after another, so that both sides of a case draw the same."""
    seeds = cycle(range(16))

    def call() -> object:
        seed(next(seeds))
        return run()

    return call


def _same(a: tuple, b: tuple) -> bool:
    return all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def timm_mixup(device: str) -> Iterator[Case]:
    timm, _ = installed_peers.load()
    xs = rotated(lambda: torch.randn(BATCH, *SHAPE, device=device))
    y = torch.randint(0, K, (BATCH,), device=device)
    label = f"float32 {BATCH}×{'×'.join(map(str, SHAPE))}"
    both = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    for name, options in (
        ("batch MixUp", {"mixup_alpha": 0.8}),
        ("batch CutMix", {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}),
        ("elem MixUp", {"mixup_alpha": 0.8, "mode": "elem"}),
        ("elem both", {**both, "mode": "elem"}),
        ("pair both", {**both, "mode": "pair"}),
    ):
        ours, peer = our_timm.Mixup(**options), timm.data.Mixup(**options)
        results = []
        for mixer in (ours, peer):
            np.random.seed(1)  # noqa: NPY002  (what both draw from)
            results.append(mixer(xs[0].clone(), y))
        assert _same(*results), f"{name}: differs from timm"

        def call(mixer: Callable) -> Callable[[], object]:
            turn = cycle(xs)
            return _seeded(np.random.seed, lambda: mixer(next(turn), y))

        yield Case(f"timm.Mixup {name}, {label}", call(ours), {"timm": call(peer)}, None)


def torchvision_mix(device: str) -> Iterator[Case]:
    _, torchvision = installed_peers.load()
    xs = rotated(lambda: torch.randn(BATCH, *SHAPE, device=device))
    y = torch.randint(0, K, (BATCH,), device=device)
    label = f"float32 {BATCH}×{'×'.join(map(str, SHAPE))}"
    for name in ("MixUp", "CutMix"):
        peer = getattr(torchvision.transforms.v2, name)(num_classes=K)
        for inplace in (True, False):
            ours = getattr(our_torchvision, name)(num_classes=K, inplace=inplace)
            results = []
            for mixer in (ours, peer):
                torch.manual_seed(1)
                results.append(mixer(xs[0].clone(), y))
            assert _same(*results), f"{name}: differs from torchvision"

            def call(mixer: Callable) -> Callable[[], object]:
                turn = cycle(xs)
                # torch.manual_seed would ask every device, for longer than a small mix takes.
                seed = torch.default_generator.manual_seed
                return _seeded(seed, lambda: mixer(next(turn), y))

            where = "in place" if inplace else "out of place"
            title = f"torchvision.{name} {where}, {label}"
            yield Case(title, call(ours), {"torchvision": call(peer)}, None)


class _Images(Dataset):
    """``count`` uint8 images in memory, as arrays or tensors, with labels."""

    def __init__(self, kind: str, count: int) -> None:
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
        if kind == "HWC arrays":  # what timm's transforms give: [C, H, W] views of decoded images
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        samples = torch.from_numpy(images) if kind == "tensors" else images
        self.items = [(sample, i % K) for i, sample in enumerate(samples)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple:
        return self.items[index]


def collate(device: str) -> Iterator[Case]:
    timm, _ = installed_peers.load()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    modes = (
        ("MixUp", {"mixup_alpha": 0.8}),
        ("CutMix", {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}),
    )
    label = f"{BATCH} uint8 images {'×'.join(map(str, SHAPE))}"
    for kind in ("arrays", "HWC arrays", "tensors"):
        items = _Images(kind, 8 * BATCH).items
        batches = [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
        for name, options in modes:
            ours, peer = (m.FastCollateMixup(**options) for m in (our_timm, timm.data))
            results = []
            for mixer in (ours, peer):
                np.random.seed(1)  # noqa: NPY002
                results.append(mixer(batches[0]))
            assert _same(*results), f"{name}: differs from timm"

            def call(mixer: Callable, batches: list = batches) -> Callable[[], object]:
                turn = cycle(batches)
                return _seeded(np.random.seed, lambda: mixer(next(turn)))

            title = f"timm.FastCollateMixup {name}, {label}, {kind}"
            yield Case(title, call(ours), {"timm": call(peer)}, None)
    data = _Images("HWC arrays", 8 * BATCH)
    for name, options in modes:
        runs = []
        for module in (our_timm, timm.data):
            loader = DataLoader(
                data,
                BATCH,
                num_workers=2,
                collate_fn=module.FastCollateMixup(**options),
                persistent_workers=True,
            )
            runs.append(lambda loader=loader: [x[0, 0, 0, 0].item() for x, _ in loader])
        title = f"loader of 8 batches, 2 workers, FastCollateMixup {name}, {label}, HWC arrays"
        yield Case(title, runs[0], {"timm": runs[1]}, None)
    torch.set_num_threads(threads)
