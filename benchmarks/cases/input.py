"""Times mix_normalize against the eager lines that it replaces, with the same λ, box and partners.

A byte is read and two or four are written for each value; a copy of so many bytes runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import torch

import fused_mixup as fm
from fused_mixup import Erasing, MixPlan

from .. import installed_peers
from ..registry import OURS_TRITON, Case, Provider, Work
from ..sides import LAM, compiler, our_providers, reference, rounding
from ..timing import rotate
from .drop_ins import CLASSES
from .mixing import quarter

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COPY = "copy of the bytes"
TIMM = "timm's loader and mixer"
COLLATE = "timm's collate, eager"
CHANNELS_LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format


@dataclass(frozen=True)
class Variant:
    """What a case does; the eager lines do the same."""

    cut: bool = False  # CutMix of a quarter, else MixUp
    dtype: torch.dtype = torch.bfloat16
    extras: bool = False  # half of the images mirrored, a ninth of each erased
    given: str = "NCHW"  # what the loader hands over; "list": of HWC samples
    peers: tuple[str, ...] = ("eager", COPY)
    goals: tuple[str, ...] = ()


def constants(device: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    def each(values: tuple[float, ...]) -> torch.Tensor:
        return torch.tensor([255 * v for v in values], device=device, dtype=dtype).view(-1, 1, 1)

    return each(MEAN), each(STD)


def bytes_of(case: Case, device: str) -> torch.Tensor:
    return torch.randint(0, 256, case.shape, dtype=torch.uint8, device=device)


def inputs(case: Case, device: str, given: str) -> list[Any]:
    def one() -> torch.Tensor:
        x = bytes_of(case, device)
        if given == "NCHW":
            return x
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    batches = rotate(one)
    return [[*x] for x in batches] if given == "list" else batches


def erasing(case: Case, device: str) -> Erasing:
    height, width = case.shape[2:]
    box = torch.tensor(
        [height // 4, width // 4, height // 4 + height // 3, width // 4 + width // 3]
    )
    return Erasing(box.expand(case.shape[0], 4)).to(device)


def eager_lines(case: Case, device: str, variant: Variant) -> Callable[[Any], torch.Tensor]:
    """What a training loop runs between loader and model."""
    mean, std = constants(device)
    _, lam, at = quarter(case)
    boxes = erasing(case, "cpu").box[:, 0].tolist() if variant.extras else []
    mirrored = flips(case, device) if variant.extras else None

    def run(x: Any) -> torch.Tensor:
        x = torch.stack(x) if isinstance(x, list) else x
        if mirrored is not None:
            x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)
        y = x.float().sub_(mean).div_(std)
        if variant.cut:
            y[at] = y.flip(0)[at]
        else:
            flipped = y.flip(0).mul_(1.0 - LAM)
            y.mul_(LAM).add_(flipped)
        for image, (y0, x0, y1, x1) in zip(y, boxes, strict=False):
            image[:, y0:y1, x0:x1] = 0
        return y.contiguous(memory_format=case.memory_format).to(variant.dtype)

    return run


def equation(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    y = (x.float() - mean) / std  # for torch.compile
    y = y * LAM + y.flip(0) * (1.0 - LAM)
    return y.contiguous(memory_format=CHANNELS_LAST).to(torch.bfloat16)


def flips(case: Case, device: str) -> torch.Tensor:
    return torch.arange(case.shape[0], device=device) % 2 == 0


def timm_lines(case: Case, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """PrefetchLoader in bfloat16, then Mixup in the training step."""
    mean, std = constants(device, torch.bfloat16)

    def run(x: torch.Tensor) -> torch.Tensor:
        y = x.to(torch.bfloat16).sub_(mean).div_(std)
        flipped = y.flip(0).mul_(1.0 - LAM)
        return y.mul_(LAM).add_(flipped).contiguous(memory_format=case.memory_format)

    return run


def copy_of(size: int, device: str) -> Provider:
    """A threaded copy that reads and writes ``size`` bytes, which are in no cache, as inputs."""
    sources = cycle(rotate(lambda: torch.ones(size, dtype=torch.uint8, device=device)))
    target = torch.empty(size, dtype=torch.uint8, device=device)
    return Provider(lambda _: target.copy_(next(sources)), checked=False)


def work(case: Case, device: str, variant: Variant) -> Work:
    xs = inputs(case, device, variant.given)
    batch_size = case.shape[0]
    box, lam, _ = quarter(case)
    plan = (
        MixPlan.uniform(batch_size, "flip", lam, box)
        if variant.cut
        else MixPlan.uniform(batch_size, "flip", LAM)
    )
    options: dict[str, Any] = {"dtype": variant.dtype, "memory_format": case.memory_format}
    if variant.extras:
        options |= {"flip": flips(case, device), "erase": erasing(case, device)}
    ours = partial(fm.mix_normalize, plan=plan, mean=MEAN, std=STD, **options)
    values = batch_size * case.shape[1] * case.shape[2] * case.shape[3]
    written = values * variant.dtype.itemsize
    tolerance = rounding(variant.dtype)
    made: dict[str, Callable[[], Provider | str]] = {
        "eager": lambda: Provider(eager_lines(case, device, variant), tolerance),
        COPY: lambda: copy_of((values + written) // 2, device),
        "torch.compile": lambda: compiler(
            partial(equation, mean=constants(device)[0], std=constants(device)[1]),
            device,
            tolerance,
        ),
        TIMM: lambda: Provider(timm_lines(case, device), checked=False),  # rounds three times
    }
    providers = our_providers(ours, device) | {name: made[name]() for name in variant.peers}
    return Work(xs, providers, reference(ours), values, written)


# ------------------------------------------------------------------ as FastCollateMixup mixes


def before(case: Case, device: str) -> Work:
    """mix="before": the bytes that FastCollateMixup gives, normalised, from a list of samples."""
    arrays = [[sample.numpy() for sample in x] for x in inputs(case, device, "list")]
    ours = partial(
        fm.mix_normalize,
        plan=MixPlan.uniform(case.shape[0], "flip", LAM),
        mean=MEAN,
        std=STD,
        dtype=torch.float32,
        mix="before",
    )
    values = case.shape[0] * case.shape[1] * case.shape[2] * case.shape[3]
    providers = our_providers(ours, device) | {COLLATE: collate_lines(case)}
    return Work(arrays, providers, reference(ours), values, 4 * values)


def collate_lines(case: Case) -> Provider | str:
    why = installed_peers.reason_missing()
    if why is not None:
        return why
    timm, _ = installed_peers.load()
    collate = timm.data.FastCollateMixup(mixup_alpha=0.8, num_classes=CLASSES)
    collate._params_per_batch = lambda: (LAM, False)  # our λ
    mean, std = constants("cpu")

    def run(samples: list) -> torch.Tensor:
        x, _ = collate([(sample, 0) for sample in samples])
        y = x.float().sub_(mean).div_(std)
        return y.contiguous(memory_format=CHANNELS_LAST)

    return Provider(run)  # bit for bit


# ------------------------------------------------------------------ the cases


ON_CPU = {
    "MixUp": Variant(peers=("eager", "torch.compile", COPY), goals=("cpu normalise",)),
    "CutMix ¼": Variant(cut=True, goals=("cpu normalise variants",)),
    "MixUp, NHWC": Variant(given="NHWC", goals=("cpu normalise variants",)),
    "MixUp to float32": Variant(dtype=torch.float32, goals=("cpu normalise variants",)),
    "MixUp, flip, erase": Variant(extras=True, goals=("cpu normalise variants",)),
    "MixUp, list of HWC samples": Variant(given="list"),
}
ON_GPU = {
    "MixUp": ("NCHW", CHANNELS_LAST, "cuda normalise layout"),
    "MixUp, NHWC": ("NHWC", CHANNELS_LAST, "cuda normalise"),
    "MixUp, NCHW": ("NCHW", CONTIGUOUS, "cuda normalise"),
}


def cases(device: str) -> Iterator[Case]:
    op, dtype = "mix_normalize", torch.uint8
    if device == "cpu":
        shape = (64, 3, 224, 224)
        for name, variant in ON_CPU.items():
            build, peers = partial(work, variant=variant), (OURS_TRITON, *variant.peers)
            yield Case(op, name, shape, dtype, build, op, peers, CHANNELS_LAST, variant.goals)
        name, peers = "MixUp before, list of HWC samples", (OURS_TRITON, COLLATE)
        yield Case(op, name, shape, dtype, before, op, peers, CHANNELS_LAST)
        return
    shape = (256, 3, 224, 224)
    for name, (given, memory_format, goal) in ON_GPU.items():
        variant = Variant(given=given, peers=("eager", TIMM))
        build, peers = partial(work, variant=variant), (OURS_TRITON, *variant.peers)
        yield Case(op, name, shape, dtype, build, op, peers, memory_format, (goal,))
    for name in ("CutMix ¼", "MixUp to float32", "MixUp, flip, erase"):
        variant = ON_CPU[name]
        build, peers = partial(work, variant=variant), (OURS_TRITON, *variant.peers)
        yield Case(op, name, shape, dtype, build, op, peers, CHANNELS_LAST)
