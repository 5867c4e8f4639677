"""Batches, plans and expected results for the tests of the Triton kernels that mix."""

from __future__ import annotations

import torch
from triton_place import DEVICE, INTERPRETED

import fused_mixup.triton_kernels as tk
from fused_mixup import reference
from fused_mixup.plan import MixPlan
from fused_mixup.reference.pairing import transpose_pairing


def batch(size: int, shape=(3, 5, 7), dtype=torch.float32, layout="contiguous") -> torch.Tensor:
    """Random values in a given layout; the first value is a zero with a sign."""
    torch.manual_seed(size + len(shape))
    extra = {"offset": (size + 1, *shape), "strided": (size, *shape[:-1], 2 * shape[-1] + 1)}
    full = extra.get(layout, (size, *shape))
    x = torch.randn(full) if dtype.is_floating_point else torch.randint(0, 256, full)
    x = x.to(dtype).to(DEVICE)
    if layout == "channels_last":
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        x = x.contiguous(memory_format=formats[x.ndim])
    elif layout == "offset":
        x = x[1:]  # rows of odd length lie off 16-byte boundaries
    elif layout == "strided":
        x = x[..., 1::2]
    elif layout == "transposed":
        x = x.transpose(0, 1).contiguous().transpose(0, 1)  # samples are not dense
    if x.numel() and dtype.is_floating_point:
        x[(0,) * x.ndim] = -0.0
    return x


def pairing(name: str, size: int):
    if name == "permutation":
        return torch.randperm(size, generator=torch.Generator().manual_seed(size))
    if name == "many":  # several samples share a partner
        return torch.arange(size) // 2
    return name


PAIRINGS = ("flip", "roll", "self", "permutation", "many")


def boxes(kind: str, size: int, spatial: tuple[int, ...]):
    """Boxes per row: inside, empty, touching each border, everything."""
    d = len(spatial)
    choice = [
        [*[1] * d, *[n - 1 for n in spatial]],
        [0] * (2 * d),
        [*[0] * d, *[n // 2 for n in spatial]],
        [*[n // 2 for n in spatial], *spatial],
        [*[0] * d, *spatial],
    ]
    return choice[3] if kind == "uniform" else [choice[i % 5] for i in range(size)]


def plan_of(size: int, name: str, box: str, spatial: tuple[int, ...]) -> MixPlan:
    partner = pairing(name, size)
    if box == "none":
        plan = MixPlan.uniform(size, partner, 0.3)
    elif box == "uniform":
        plan = MixPlan.uniform(size, partner, 0.3, boxes("uniform", size, spatial))
    else:
        lam = torch.linspace(0, 1, max(size, 1), dtype=torch.float64)[
            :size
        ]  # (0, 1) and (1, 0) too
        rows = None if box == "rows" else boxes("rows", size, spatial)
        if rows == []:
            rows = torch.empty((0, 2 * len(spatial)), dtype=torch.int64)
        plan = MixPlan.per_sample(lam, partner, rows)
    return plan if DEVICE == "cpu" or plan._portable else plan.to(DEVICE)


def arguments(plan: MixPlan) -> tuple:
    return plan.partner_or_none, plan.blend, plan.box, plan.rule


def truncate(op, x: torch.Tensor, *args) -> torch.Tensor:
    """Run ``op`` of the reference for bfloat16, truncating its result instead of rounding."""
    exact = op(x.float(), *args)
    return (exact.view(torch.int32) & -65536).view(torch.float32).to(torch.bfloat16)


def expect(op, x: torch.Tensor, *args) -> torch.Tensor:
    if INTERPRETED and x.dtype == torch.bfloat16:
        return truncate(op, x, *args)
    return op(x, *args)


def check_all(x: torch.Tensor, plan: MixPlan) -> None:
    """Check mix, mix_ and mix_backward on one batch."""
    args = arguments(plan)
    want = expect(reference.mix, x, *args)
    got = tk.mix(x, *args)
    assert torch.equal(got, want) and got.stride() == torch.empty_like(x).stride()
    if x.is_floating_point():
        sources, offsets = (
            transpose_pairing(plan.partner.to(DEVICE)) if plan.rule == 0 else (None,) * 2
        )
        back = args[0], sources, offsets, *args[1:]
        # The reference runs on the CPU: on a GPU its index_add_ sums in any order.
        host = [a.cpu() if isinstance(a, torch.Tensor) else a for a in back]
        want_grad = expect(reference.mix_backward, x.cpu(), *host).to(DEVICE)
        assert torch.equal(tk.mix_backward(x, *back), want_grad)
    y = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=DEVICE).copy_(x)
    assert tk.mix_(y, *args) is None
    assert torch.equal(y, want)
