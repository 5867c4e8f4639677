"""Times mix_ against the eager lines of timm and torchvision, with the same λ, box and partners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

import fused_mixup as fm
from fused_mixup import MixPlan

from .. import installed_peers
from ..registry import OURS_TRITON, Case, Provider, Work
from ..sides import LAM, compiler, our_providers, reference, rounding
from ..timing import rotate

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def batches(case: Case, device: str) -> list[torch.Tensor]:
    def one() -> torch.Tensor:
        x = torch.randn(case.shape, device=device).to(case.dtype)
        return x.to(memory_format=case.memory_format)

    return rotate(one)


def work(
    case: Case,
    device: str,
    plan: MixPlan,
    peers: Callable[[list[torch.Tensor]], dict[str, Provider | str]],
    part: float = 1.0,
) -> Work:
    """Work of mix_ and its ``peers``. ``plan`` changes ``part`` of the batch."""
    xs = batches(case, device)
    size = int(xs[0].numel() * xs[0].element_size() * part)
    mixing = partial(fm.mix_, plan=plan)
    providers = our_providers(mixing, device) | peers(xs)
    return Work(xs, providers, reference(partial(fm.mix, plan=plan)), size, size)


# ------------------------------------------------------------------ one plan for the batch


def eager_flip(x: torch.Tensor) -> torch.Tensor:  # timm, mode "batch"
    flipped = x.flip(0).mul_(1.0 - LAM)
    return x.mul_(LAM).add_(flipped)


def equation(x: torch.Tensor) -> torch.Tensor:  # in place, for torch.compile
    return x.copy_(x * LAM + x.flip(0) * (1.0 - LAM))


def flip(case: Case, device: str) -> Work:
    tolerance = rounding(case.dtype)

    def peers(xs: list[torch.Tensor]) -> dict[str, Provider | str]:
        found: dict[str, Provider | str] = {"timm's lines": Provider(eager_flip, tolerance)}
        if case.sweep is None:
            out = torch.empty_like(xs[0])
            found["copy of N"] = Provider(out.copy_, checked=False)
            found["torch.compile"] = compiler(equation, device, tolerance)
        return found

    return work(case, device, MixPlan.uniform(case.shape[0], "flip", LAM), peers)


def permutation(case: Case, device: str) -> Work:
    order = torch.randperm(case.shape[0], device=device)
    flipped = MixPlan.uniform(case.shape[0], "flip", LAM)

    def peers(xs: list[torch.Tensor]) -> dict[str, Provider | str]:
        return {
            "eager": Provider(lambda x: x * LAM + x[order] * (1 - LAM), rounding(case.dtype)),
            "mix_ flip": Provider(partial(fm.mix_, plan=flipped), checked=False),
        }

    return work(case, device, MixPlan.uniform(case.shape[0], order, LAM), peers)


# ------------------------------------------------------------------ a box


def quarter(case: Case) -> tuple[tuple[int, ...], float, tuple[slice, ...]]:
    """A box over a quarter of the image, the λ of its area, and the index of its pixels."""
    height, width = case.shape[2:]
    box, lam = fm.cutmix_box((height, width), 0.75, (height // 2, width // 2))
    top, left, bottom, right = box
    return box, lam, (slice(None), slice(None), slice(top, bottom), slice(left, right))


def cutmix(case: Case, device: str) -> Work:
    box, lam, at = quarter(case)

    def eager(x: torch.Tensor) -> torch.Tensor:  # timm
        x[at] = x.flip(0)[at]
        return x

    plan = MixPlan.uniform(case.shape[0], "flip", lam, box)
    return work(case, device, plan, lambda xs: {"timm's lines": Provider(eager)}, 1 - lam)


def cutmix_roll(case: Case, device: str) -> Work:
    box, lam, at = quarter(case)

    def eager(x: torch.Tensor) -> torch.Tensor:  # torchvision
        rolled = x.roll(1, 0)
        output = x.clone()
        output[at] = rolled[at]
        return output

    plan = MixPlan.uniform(case.shape[0], "roll", lam, box)
    return work(case, device, plan, lambda xs: {"torchvision's lines": Provider(eager)}, 1 - lam)


# ------------------------------------------------------------------ a λ for each sample


def per_sample(case: Case, device: str, alike: int = 1) -> Work:
    """``alike`` neighbours share a λ. The eager side loops over the λ, as timm does."""
    batch_size = case.shape[0]
    lam = torch.rand(batch_size // alike).repeat_interleave(alike)
    weights = lam[::alike].tolist()

    def eager(x: torch.Tensor) -> torch.Tensor:
        original = x.clone()
        flipped = original.flip(0) if alike > 1 else None
        for i, own in enumerate(weights):
            if flipped is None:  # timm, mode "elem"
                x[i] = original[i] * own + original[batch_size - 1 - i] * (1 - own)
            else:
                at = slice(i * alike, (i + 1) * alike)
                x[at] = original[at] * own + flipped[at] * (1 - own)
        return x

    tolerance = rounding(case.dtype)

    def peers(xs: list[torch.Tensor]) -> dict[str, Provider | str]:
        found: dict[str, Provider | str] = {"timm's elem lines": Provider(eager, tolerance)}
        if case.sweep is None:
            found["Kornia"] = kornia(lam, xs[0], tolerance)
        return found

    return work(case, device, MixPlan.per_sample(lam, "flip", device=device), peers)


def kornia(lam: torch.Tensor, x: torch.Tensor, tolerance: tuple[float, float]) -> Provider | str:
    """Kornia's blend with our draws. Kornia's λ is the partner's weight."""
    augmentation = installed_peers.kornia()
    if isinstance(augmentation, str):
        return augmentation
    params = {
        "mixup_pairs": torch.arange(len(lam) - 1, -1, -1, device=x.device),
        "mixup_lambdas": (1 - lam).to(x.device),
    }
    mixer = augmentation.RandomMixUpV2(p=1.0)
    return Provider(lambda x: mixer.apply_transform(x, params), tolerance)


# ------------------------------------------------------------------ the cases


VARIANTS = {
    "flip": flip,
    "permutation": permutation,
    "per sample": per_sample,
    "CutMix ¼": cutmix,
    "CutMix ¼ roll": cutmix_roll,
}
PEERS = {
    "flip": ("timm's lines", "copy of N", "torch.compile"),
    "permutation": ("eager", "mix_ flip"),
    "per sample": ("timm's elem lines", "Kornia"),
    "CutMix ¼": ("timm's lines",),
    "CutMix ¼ roll": ("torchvision's lines",),
}
CPU_GOALS = dict(
    zip(
        VARIANTS,
        ("flip", "permutation", "elem", "cutmix timm", "cutmix torchvision"),
        strict=True,
    )
)


def goals_of(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[str, ...]:
    if device == "cpu":
        return (f"cpu {CPU_GOALS[name]}",) if dtype == torch.float32 else ()
    sizes = {
        "flip": (1024, "cuda flip"),
        "permutation": (shape[0], f"cuda permutation {shape[0]}"),
        "per sample": (256, "cuda elem"),
        "CutMix ¼": (1024, "cuda cutmix"),
    }
    batch_size, goal = sizes.get(name, (None, ""))
    return (goal,) if shape[0] == batch_size and dtype == torch.bfloat16 else ()


def cases(device: str) -> Iterator[Case]:
    usual = torch.float32 if device == "cpu" else torch.bfloat16
    for batch_size in (64,) if device == "cpu" else (1024, 256):
        shape = (batch_size, 3, 224, 224)
        for layout in LAYOUTS:
            for dtype in DTYPES:
                group = f"mix_ {dtype} {shape} {layout}"
                rare = layout is torch.channels_last or dtype not in (usual, torch.bfloat16)
                for name, build in VARIANTS.items():
                    if name == "per sample" and batch_size > 256:
                        continue  # its eager launches alone would take seconds
                    plain = layout is torch.contiguous_format
                    goals = goals_of(name, shape, dtype, device) if plain else ()
                    peers = (OURS_TRITON, *PEERS[name])
                    yield Case(
                        "mix_", name, shape, dtype, build, group, peers, layout, goals, full=rare
                    )
    yield from sweeps(usual, 64 if device == "cpu" else 256)


def sweeps(dtype: torch.dtype, batch_size: int) -> Iterator[Case]:
    def point(name: str, shape: tuple[int, ...], build, axis: str, value: int, rare: bool) -> Case:
        peer = "timm's lines" if build is flip else "timm's elem lines"
        peers, sweep = (OURS_TRITON, peer), (axis, value)
        return Case("mix_", name, shape, dtype, build, "sweep", peers, sweep=sweep, full=rare)

    for n in (4, 8, 16, 32, 64, 128, 256, 512):
        rare = n not in {8, 32, 128}
        yield point("flip", (n, 3, 224, 224), flip, "batch size", n, rare)
    for n in (32, 64, 96, 128, 160, 224, 320, 448):
        rare = n not in {32, 96, 224, 320}
        yield point("flip", (batch_size, 3, n, n), flip, "image size", n, rare)
    for n in (1, 2, 4, 8, 16, 32, 64):
        build = partial(per_sample, alike=batch_size // n)
        rare = n not in {1, 4, 16, 64}
        shape = (batch_size, 3, 224, 224)
        yield point(f"{n} λ", shape, build, "λ drawn for a batch", n, rare)
