"""Random calls of the ops that mix by masks, for every test that compares backends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from fused_mixup.codes import (
    FLIP,
    MASK_FUNCTION,
    MASK_INVERT,
    MASK_PARITY,
    MASK_SEPARABLE,
    MASK_SIGMOID,
    MASK_STORED,
    MASK_THRESHOLD,
    ROLL,
    SELF,
    TENSOR,
)
from fused_mixup.reference.pairing import transpose_pairing

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8)
MAPS = (torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32)
FORMATS = ("contiguous", "channels_last", "transposed", "offset", "every second")


class Call(NamedTuple):
    """The arguments of the ops by one plan and one mask."""

    x: torch.Tensor
    plan: tuple[Any, ...]  # partner, blend, box, pairing
    mask: tuple[Any, ...]
    rough: bool  # some mask is a sigmoid, which differs between backends in the last bits
    what: str

    @property
    def lists(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return (None, None) if self.plan[3] != TENSOR else transpose_pairing(self.plan[0])

    def backward(self, grad: torch.Tensor) -> tuple[Any, ...]:
        partner, *rest = self.plan
        return (grad, partner, *self.lists, *rest, *self.mask)


def batch(
    rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype, form: str
) -> torch.Tensor:
    """A batch whose elements lie in memory as ``form`` says; at times with a NaN."""
    x = torch.randn(shape)
    if dtype != torch.uint8 and x.numel() and rng.random() < 0.2:
        x.view(-1)[rng.randrange(x.numel())] = torch.nan
    x = (x * 60 + 128).clamp(0, 255).to(dtype) if dtype == torch.uint8 else x.to(dtype)
    if form == "channels_last" and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if form == "transposed":
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    width, step = shape[-1], 2 if form == "every second" else 1
    if form in ("offset", "every second"):
        wide = torch.zeros(*shape[:-1], step * width + 3, dtype=dtype)
        x = wide[..., 1 : 1 + step * width : step].copy_(x)
    return x


def masks(rng: random.Random, size: int, height: int, width: int, sigmoid: bool) -> tuple[Any, ...]:
    """The mask arguments of the ops: every form and function, each sample's own or one for all."""
    functions = [0, MASK_THRESHOLD, MASK_PARITY] + ([MASK_SIGMOID] if sigmoid else [])
    shared = rng.random() < 0.3
    rows = min(size, 1) if shared else size
    codes = [
        form and form + rng.choice(functions) + rng.choice([0, MASK_INVERT])
        for form in (rng.choice([0, MASK_SEPARABLE, MASK_STORED]) for _ in range(rows))
    ]
    code = torch.tensor(codes, dtype=torch.int32)
    whole = bool(((code & MASK_FUNCTION) == MASK_PARITY).any())
    rank = rng.randint(1, 4)
    row, column = torch.rand(rows, rank, height) / rank, torch.rand(rows, rank, width)
    if whole or rng.random() < 0.2:
        row, column = (row > 0.3 / rank).float(), (column > 0.5).float()
    small = height, width
    if rng.random() < 0.7:
        small = rng.randint(1, max(1, height)), rng.randint(1, width + 3)
    stored = torch.rand(rows, max(small[0], 1), small[1])
    dtype = torch.bool if whole else rng.choice(MAPS)
    stored = (stored > 0.5).to(dtype) if dtype in MAPS[:2] else stored.to(dtype)
    tensors = (code, torch.rand(rows), row, column, stored)
    if shared:
        tensors = tuple(t.expand(size, *t.shape[1:]) for t in tensors)
    return *tensors, 0 if whole else rng.randint(0, 1)


def random_call(rng: random.Random, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Call:
    size, height = rng.choice([0, 1, 2, 3, 4, 5, 8]), rng.choice([0, 1, 2, 5, 16])
    width = rng.choice([1, 3, 8, 17, 40, 67])
    inner = rng.choice([(), (1,), (3,), (2, 2), (17,)])
    if rng.random() < 0.02:
        inner, height, width = (2,), 1, 9001
    dtype, form, rough = rng.choice(dtypes), rng.choice(FORMATS), rng.random() < 0.2
    x = batch(rng, (size, *inner, height, width), dtype, form)
    mask = masks(rng, size, height, width, rough)
    lam = torch.rand(size, dtype=torch.float64)
    blend = torch.stack((lam, 1 - lam), 1)
    if rng.random() < 0.4:
        blend = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(size, 2)
    box = torch.empty(size, 0, dtype=torch.int32)
    if rng.random() < 0.5:
        ends = [torch.randint(0, n + 1, (size, 2)).sort(1).values for n in (height, width)]
        box = torch.stack([e[:, k] for k in (0, 1) for e in ends], 1).int()
    pairing = rng.choice([TENSOR, FLIP, ROLL, SELF])
    partner = torch.randint(0, max(size, 1), (size,)).int() if pairing == TENSOR else None
    what = f"{tuple(x.shape)} {dtype} {form} pairing {pairing} code {mask[0].tolist()}"
    return Call(x, (partner, blend, box, pairing), mask, rough, what)


def random_calls(count: int, seed: int, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Iterator[Call]:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    for _ in range(count):
        yield random_call(rng, dtypes)


def pool_calls(call: Call, rng: random.Random) -> tuple[Any, ...]:
    """The arguments of mix_masked_out: partners from another tensor, the clean batch beside."""
    size, *rest = call.x.shape
    partner, blend, box, pairing = call.plan
    other = None
    if size and rng.random() < 0.6:
        other = batch(rng, (size + 2, *rest), call.x.dtype, rng.choice(FORMATS))
        if pairing == TENSOR:
            partner = torch.randint(0, size + 2, (size,)).int()
    clean = rng.random() < 0.5
    out = torch.zeros((2 if clean else 1) * size, *rest, dtype=call.x.dtype)
    return call.x, other, partner, blend, box, pairing, *call.mask, clean, out


# By how much a sigmoid may move a result, relative to values of a few units.
ROUGH = {
    torch.float32: 4e-6,
    torch.float64: 4e-6,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
    torch.uint8: 1.0,
}
