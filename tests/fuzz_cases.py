"""Hypothesis strategies of random inputs for every op; ``properties.py`` checks the ops on them.

Hypothesis draws the structure of a case (sizes, strides, pairing, kinds of rows), so that a failure
shrinks to a small one; values come from a seeded generator, with special values among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from fused_mixup.codes import PAIRINGS

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BLENDABLE = (*FLOATS, torch.uint8)
MOVABLE = (*BLENDABLE, torch.bool, torch.int16, torch.int32, torch.int64, torch.complex128)
TENSOR = PAIRINGS["tensor"]
# λ = 0, ½ and 1, thirds that no float represents, and weights that do not sum to one.
_WEIGHTS = (0.0, 0.5, 1.0, 0.3, 0.7, 1 / 3, 1e-12, 1e-60, -0.75, 1.5)
_SPECIAL = (-0.0, math.inf, -math.inf, math.nan, 1e-40, 65504.0, -3e38)
# Strategies are made once: making one costs more than drawing from it.
seeds = st.integers(0, 2**32 - 1)
EITHER = st.booleans()
_STEPS = st.sampled_from([(1, 0), (1, 3), (2, 1), (3, 0)])
_OFFSETS = st.sampled_from([0, 0, 1, 3, 8])
_BATCHES = st.one_of(st.sampled_from([0, 1, 2, 3, 33, 257]), st.integers(0, 40))
# Multiples of 16 take the vector paths, other sizes their remainders too.
_SIZES = st.one_of(st.integers(0, 40), st.sampled_from([1, 4, 8, 16, 32, 64]))
_DIMS = st.integers(0, 5)
_PAIRINGS = st.sampled_from(list(PAIRINGS.values()))
_PARTNERS = st.sampled_from(["permutation", "any", "few", "out of range"])
SMOOTHING = st.sampled_from([0.0, 0.0, 0.1, 0.37, 1.0])
_WEIGHT = st.sampled_from(_WEIGHTS)
FLOAT = st.sampled_from(FLOATS)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ tensors


def describe(value) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    where = f"strides {value.stride()} offset {value.storage_offset()}"
    text = f"{value.dtype} {list(value.shape)} {where}"
    return f"{text} {value.tolist()}" if value.numel() <= 12 else text


class Case:
    """A case prints its structure on a few lines: that tells more than its values."""

    def __repr__(self) -> str:
        shown = (f"{name}: {describe(value)}" for name, value in vars(self).items())
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer, cycle) -> None:  # hypothesis calls this
        printer.text(repr(self))


@dataclass(repr=False)
class View(Case):
    """A tensor inside a larger storage, so that a test sees writes outside the tensor."""

    storage: Tensor
    tensor: Tensor

    @staticmethod
    def of(storage: Tensor, like: Tensor) -> View:
        view = storage.as_strided(like.shape, like.stride(), like.storage_offset())
        return View(storage, view)

    def copy(self) -> View:
        return View.of(self.storage.clone(), self.tensor)

    def __repr__(self) -> str:
        return describe(self.tensor)


def values(numel: int, dtype: torch.dtype, seed: int, special: bool) -> Tensor:
    g = generator(seed)
    if dtype == torch.bool:
        return torch.rand(numel, generator=g) < 0.5
    if not dtype.is_floating_point and not dtype.is_complex:
        info = torch.iinfo(dtype)
        low, high = max(info.min, -(2**62)), min(info.max, 2**62)
        return torch.randint(low, high, (numel,), generator=g).to(dtype)
    x = torch.randn(numel, generator=g, dtype=torch.float64)
    if special:
        at = torch.rand(numel, generator=g) < 0.1
        which = torch.randint(0, len(_SPECIAL), (numel,), generator=g)
        x = torch.where(at, torch.tensor(_SPECIAL, dtype=torch.float64)[which], x)
    return x.to(dtype)


@st.composite
def views(draw, shape, dtype, *, special=False, expanded=False, dense=None) -> View:
    """A tensor of ``shape`` in a random memory layout; ``expanded``: perhaps a stride of 0."""
    dense = draw(EITHER) if dense is None else dense
    n = len(shape)
    order = list(range(n)) if draw(EITHER) else draw(st.permutations(range(n)))
    stretched = draw(st.integers(0, n)) if expanded and draw(st.integers(0, 7)) == 0 else n
    strides, reach = [0] * n, 1
    for k in reversed(order):
        if k == stretched:
            continue
        step, room = (1, 0) if dense else draw(_STEPS)
        strides[k] = reach * step
        reach = strides[k] * max(shape[k], 1) + room
    offset = draw(_OFFSETS)
    storage = values(offset + reach + 5, dtype, draw(seeds), special)
    return View(storage, storage.as_strided(shape, strides, offset))


@st.composite
def shapes(draw, most: int = 3000) -> tuple[int, list[int]]:
    """(batch size, shape of a sample) of at most ``most`` elements together."""
    batch = draw(_BATCHES)
    left = max(most // max(batch, 1), 1)
    shape = []
    for _ in range(draw(_DIMS)):
        shape.append(min(draw(_SIZES), left))
        left //= max(shape[-1], 1)
    return batch, shape


# ------------------------------------------------------------------ plans


@dataclass(repr=False)
class Mixing(Case):
    """The arguments of a plan, as the ops take them."""

    partner: Tensor | None
    blend: Tensor
    box: Tensor
    pairing: int

    @property
    def args(self) -> tuple:
        return self.partner, self.blend, self.box, self.pairing


@st.composite
def partners(draw, batch: int) -> Tensor | None:
    kind = draw(_PARTNERS)
    g = generator(draw(seeds))
    if kind == "permutation":
        return torch.randperm(batch, generator=g).int()
    low, high = {"any": (0, batch), "few": (0, 2), "out of range": (-batch - 2, 2 * batch + 3)}[
        kind
    ]
    at = torch.randint(low, max(high, low + 1), (batch,), generator=g)
    return (at.clamp(0, max(batch - 1, 0)) if kind == "few" else at).int()


@st.composite
def boxes(draw, batch: int, shape: list[int]) -> Tensor:
    """int32 [B, 2·D]: boxes inside, empty, reversed, across the borders and beyond them."""
    d = draw(st.integers(0, min(3, len(shape))))
    if d == 0:
        return torch.empty((batch, 0), dtype=torch.int32)
    uniform = draw(EITHER)
    g = generator(draw(seeds))
    size = torch.tensor(shape[len(shape) - d :], dtype=torch.float64)
    ends = torch.rand((2, 1 if uniform else batch, d), generator=g, dtype=torch.float64)
    wild = draw(EITHER)
    ends = (ends * (size + (5 if wild else 1))).floor() - (2 if wild else 0)
    if not (wild and draw(EITHER)):
        ends = ends.sort(0).values
    return torch.cat((ends[0], ends[1]), 1).int().expand(batch, 2 * d)


@st.composite
def two_weights(draw, batch: int, dtype: torch.dtype) -> Tensor:
    """[B, 2]: one row expanded, or rows, of which some are (1, 0) and (0, 1)."""
    if draw(EITHER):
        pair = draw(_WEIGHT), draw(_WEIGHT)
        return torch.tensor([pair], dtype=dtype).expand(batch, 2)
    g = generator(draw(seeds))
    if draw(EITHER):
        lam = torch.rand(batch, generator=g, dtype=torch.float64)
        lam[::3], lam[1::5] = 1.0, 0.0
        return torch.stack((lam, 1 - lam), 1).to(dtype)
    which = torch.randint(0, len(_WEIGHTS), (batch, 2), generator=g)
    return torch.tensor(_WEIGHTS, dtype=dtype)[which]


@st.composite
def mixings(draw, batch: int, shape: list[int]) -> Mixing:
    pairing = draw(_PAIRINGS)
    partner = draw(partners(batch)) if pairing == TENSOR else None
    return Mixing(
        partner, draw(two_weights(batch, torch.float64)), draw(boxes(batch, shape)), pairing
    )


@dataclass(repr=False)
class MixCase(Case):
    x: View
    out: View
    plan: Mixing


@st.composite
def mix_cases(draw, dtypes=BLENDABLE) -> MixCase:
    batch, shape = draw(shapes())
    dtype = draw(st.sampled_from(dtypes))
    x = draw(views([batch, *shape], dtype, special=draw(EITHER)))
    out = draw(views([batch, *shape], dtype))
    return MixCase(x, out, draw(mixings(batch, shape)))


# ------------------------------------------------------------------ targets


@dataclass(repr=False)
class TargetCase(Case):
    labels: Tensor
    plan: Mixing
    weight: Tensor
    num_classes: int
    label_smoothing: float
    dtype: torch.dtype


def labels_of(shape, num_classes: int, seed: int, wild: bool) -> Tensor:
    g = generator(seed)
    y = torch.randint(0, num_classes, shape, generator=g)
    if wild:
        bad = torch.tensor([-1, -100, num_classes, 2**40])
        at = torch.randint(0, 4, shape, generator=g)
        y = torch.where(torch.rand(shape, generator=g) < 0.1, bad[at], y)
    return y


@st.composite
def target_cases(draw) -> TargetCase:
    batch = draw(st.integers(0, 12))
    rest = draw(st.lists(st.integers(0, 4), max_size=2))
    k = draw(st.one_of(st.integers(1, 40), st.sampled_from([64, 1000])))
    return TargetCase(
        labels_of([batch, *rest], k, draw(seeds), draw(EITHER)),
        draw(mixings(batch, [])),
        draw(two_weights(batch, torch.float32)),
        k,
        draw(SMOOTHING),
        draw(FLOAT),
    )
