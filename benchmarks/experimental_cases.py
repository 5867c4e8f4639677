"""The cases of benchmarks/experimental.py: what each experimental kernel computes, in two ways."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import fused_mixup as fm
from fused_mixup import MixPlan, ops
from fused_mixup.codes import IGNORE_INDEX, MEAN, NONE

from . import rehearsal
from .timing import rotate

Call = Callable[[Tensor], Sequence[Tensor]]
HALF, SINGLE = torch.bfloat16, torch.float32
DTYPES = (torch.float16, HALF, SINGLE, torch.float64, torch.uint8)
IMAGES = (3, 224, 224)


@dataclass(frozen=True)
class PathCase:
    """``call(x)``, for a tensor of ``shape``, gives the function whose two paths are compared."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    call: Callable[[Tensor], Call]
    moved: float = 2.0  # bytes that a call moves at least, in sizes of its input
    tolerance: tuple[float, float] | None = None  # None: the same bits
    timed: bool = True
    least: int = 90  # the architecture that it needs

    @property
    def about(self) -> str:
        return f"{self.name}, {str(self.dtype)[6:]} {'x'.join(map(str, self.shape))}"

    def input(self, device: str) -> Tensor:
        small = tuple(min(n, rehearsal.MOST) for n in self.shape)
        shape = small if rehearsal.is_rehearsal() else self.shape
        if self.dtype == torch.uint8:
            return torch.randint(256, shape, device=device).to(torch.uint8)
        return torch.randn(shape, device=device).to(self.dtype)

    def inputs(self, device: str) -> list[Tensor]:
        return rotate(partial(self.input, device))


# ------------------------------------------------------------------ losses


def _loss_call(kind: str, x: Tensor) -> Call:
    batch, classes = x.shape
    labels = torch.arange(batch, device=x.device) * 7919 % classes
    target = (labels, labels.flip(0), torch.tensor([[0.3, 0.7]]).expand(batch, 2))
    if kind == "dense":
        target = (torch.rand(batch, classes, device=x.device).to(x.dtype), None, None)
    gamma, smoothing = (2.0, 0.0) if kind == "focal" else (0.0, 0.1)
    reduction = NONE if kind == "none" else MEAN
    options = (None, IGNORE_INDEX, 0.0, smoothing, gamma, 0.0, reduction, kind == "ranks")
    op = ops.default_op("soft_target_cross_entropy_grad")
    return lambda z: op(z, *target, *options)


def losses() -> Iterator[PathCase]:
    """Loss and gradient of long rows: a row stays in the shared memory of a cluster."""
    for rows, classes, dtype, kind in (
        (16384, 21841, HALF, "labels"),
        (8192, 131072, HALF, "labels"),
        (16384, 32768, HALF, "labels"),
        (8192, 65536, HALF, "labels"),
        (8192, 21841, SINGLE, "labels"),
        (4096, 32000, HALF, "dense"),
        (4096, 32000, HALF, "ranks"),
        (4096, 50257, HALF, "focal"),
        (4096, 50257, HALF, "none"),
        (1024, 400000, HALF, "labels"),
    ):
        # Sums in another order; then an entry may be rounded the other way.
        tolerance = (max(torch.finfo(dtype).eps, 1e-5), 1e-7)
        moved = 3.0 if kind == "dense" else 2.0
        name = f"loss and gradient, {kind}"
        yield PathCase(name, (rows, classes), dtype, partial(_loss_call, kind), moved, tolerance)


# ------------------------------------------------------------------ mixes


def permutation(x: Tensor, boxes: bool = False, order: str = "permutation") -> MixPlan:
    """Weights for each sample, and boxes; every third sample keeps its values outside the box."""
    batch, edge = len(x), min(x.shape[-2:])
    generator = torch.Generator().manual_seed(batch)
    partner = torch.randperm(batch, generator=generator)
    if order == "shared":
        partner = torch.randint(batch, (batch,), generator=generator)
    lam = torch.rand(batch, generator=generator, dtype=torch.float64)
    lam[::3] = 1.0
    ends = torch.randint(0, edge + 1, (batch, 2, 2), generator=generator).sort(1).values
    box = torch.cat((ends[:, 0], ends[:, 1]), 1).int()
    return MixPlan(
        partner=None if order == "roll" else partner.int(),
        weight=torch.stack((lam, 1 - lam), 1).float(),
        blend=torch.stack((lam, 1 - lam), 1),
        box=box if boxes else box[:, :0],
        pairing="roll" if order == "roll" else "tensor",
    ).to(x.device)


def uniform(x: Tensor, pairing: str) -> MixPlan:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
    return MixPlan.uniform(len(x), order if pairing == "permutation" else pairing, 0.3)


def _mix_call(plan_of: Callable[[Tensor], MixPlan], x: Tensor) -> Call:
    plan = plan_of(x)
    return lambda z: (fm.mix_(z, plan),)


def mixes() -> Iterator[PathCase]:
    """In place: bulk copies for permutations, wider accesses for flips."""
    for name, batch, dtype, plan, least in (
        ("permutation", 256, HALF, partial(uniform, pairing="permutation"), 90),
        ("permutation", 1024, HALF, partial(uniform, pairing="permutation"), 90),
        ("roll", 256, HALF, partial(uniform, pairing="roll"), 90),
        ("λ and boxes", 256, HALF, partial(permutation, boxes=True), 90),
        ("λ and boxes", 1024, HALF, partial(permutation, boxes=True), 90),
        ("permutation", 256, SINGLE, partial(uniform, pairing="permutation"), 90),
        ("permutation", 256, torch.uint8, partial(uniform, pairing="permutation"), 90),
        ("flip", 1024, HALF, partial(uniform, pairing="flip"), 100),
        ("flip", 256, SINGLE, partial(uniform, pairing="flip"), 100),
    ):
        yield PathCase(name, (batch, *IMAGES), dtype, partial(_mix_call, plan), least=least)


def grid() -> Iterator[PathCase]:
    """Mixes whose bits alone are compared: every dtype, pairing, edge of a size."""
    sizes = itertools.cycle([(7, 1, 1031, 1024), (64, 3, 224, 226), (333, 1, 160, 200)])
    orders = itertools.cycle(["permutation", "roll", "shared"])
    for dtype, boxes in itertools.product(DTYPES, (False, True)):
        for _ in range(3):
            plan = partial(permutation, boxes=boxes, order=next(orders))
            yield PathCase("bits", next(sizes), dtype, partial(_mix_call, plan), timed=False)
        next(sizes)


def _drawn_call(pairing: str, x: Tensor) -> Call:
    start = fm.plan_state(0, device=x.device)
    state, spatial = start.clone(), tuple(x.shape[2:])

    def call(z: Tensor) -> Sequence[Tensor]:
        state.copy_(start)  # each call draws the same plan
        plan = fm.draw_plan(len(z), spatial, state=state, pairing=pairing)
        return (fm.mix(z, plan),)

    return call


def drawn() -> Iterator[PathCase]:
    """A plan drawn on the device and its mix, whose launch overlaps the draw."""
    for pairing in ("flip", "shuffle"):
        call = partial(_drawn_call, pairing)
        yield PathCase(f"draw_plan and mix, {pairing}", (64, *IMAGES), HALF, call)


def cases() -> Iterator[PathCase]:
    """Those of which a figure is wanted most come first."""
    yield from itertools.chain(losses(), mixes(), drawn(), grid())
