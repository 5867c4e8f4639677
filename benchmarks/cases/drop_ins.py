"""Times our drop-ins against the installed timm and torchvision, with the same calls and draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

import numpy as np
import torch

from fused_mixup import timm as our_timm
from fused_mixup import torchvision as our_torchvision

from .. import installed_peers
from ..registry import OURS, Case, Provider, Work
from ..timing import rotate

CLASSES = 1000
SEEDS = 16
# torch.manual_seed seeds every device, which takes longer than a small mix.
SEED_TORCH = torch.default_generator.manual_seed

BOTH = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
MIXUP = {"mixup_alpha": 0.8}
CUTMIX = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}
TIMM = {
    "batch MixUp": MIXUP,
    "batch CutMix": CUTMIX,
    "elem MixUp": {**MIXUP, "mode": "elem"},
    "elem both": {**BOTH, "mode": "elem"},
    "pair both": {**BOTH, "mode": "pair"},
}


def reseed(seed: Callable[[int], object], run: Callable) -> Callable:
    """Seeds before each call of ``run``, so that all providers of a case draw the same."""
    seeds = cycle(range(SEEDS))

    def call(x):
        seed(next(seeds))
        return run(x)

    return call


def compare(
    name: str, ours: Callable, peer: Callable | str, seed: Callable[[int], object], inputs: list
) -> Work:
    """Compares our images and targets with the peer's, bit for bit."""
    if isinstance(peer, str):
        return Work(inputs, {OURS: Provider(reseed(seed, ours), checked=False), name: peer}, tuple)
    providers: dict[str, Provider | str] = {
        OURS: Provider(reseed(seed, ours)),
        name: Provider(reseed(seed, peer)),
    }

    def expected(x):
        seed(0)  # the first seed of each provider
        return peer(x)

    return Work(inputs, providers, expected)


def images(case: Case, device: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    xs = rotate(lambda: torch.randn(case.shape, device=device))
    return xs, torch.randint(0, CLASSES, (case.shape[0],), device=device)


def timm(case: Case, device: str, **options) -> Work:
    xs, y = images(case, device)
    ours, peer = our_timm.Mixup(**options), installed_peers.reason_missing()
    if peer is None:
        theirs = installed_peers.load()[0].data.Mixup(**options)
        peer = lambda x: theirs(x, y)  # noqa: E731
    return compare("timm", lambda x: ours(x, y), peer, np.random.seed, xs)


def torchvision(case: Case, device: str, mixer: str, inplace: bool) -> Work:
    xs, y = images(case, device)
    ours = getattr(our_torchvision, mixer)(num_classes=CLASSES, inplace=inplace)
    peer = installed_peers.reason_missing()
    if peer is None:
        theirs = getattr(installed_peers.load()[1].transforms.v2, mixer)(num_classes=CLASSES)
        peer = lambda x: theirs(x, y)  # noqa: E731
    return compare("torchvision", lambda x: ours(x, y), peer, SEED_TORCH, xs)


def cases(device: str) -> Iterator[Case]:
    shape, dtype = (64, 3, 224, 224), torch.float32
    for name, options in TIMM.items():
        yield Case("timm.Mixup", name, shape, dtype, partial(timm, **options), "timm", ("timm",))
    peer = ("torchvision",)
    for mixer in ("MixUp", "CutMix"):
        for inplace in (True, False):
            build = partial(torchvision, mixer=mixer, inplace=inplace)
            where = "in place" if inplace else "out of place"
            yield Case(f"torchvision.{mixer}", where, shape, dtype, build, "torchvision", peer)
