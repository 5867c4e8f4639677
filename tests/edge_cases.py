"""Inputs at the edges of every clamp, and pairings of more rows than a block has threads.

Each check takes the ops of one backend: the CPU's, Triton's, or those of the CUDA kernels on the
host. Batches lie between rows of NaN, and indices between entries that name a sample, so that one
step too far changes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from comparing import same_bits
from torch import Tensor

from fused_mixup import reference
from fused_mixup.codes import (
    BILINEAR,
    MASK_SEPARABLE,
    MASK_STORED,
    MASK_THRESHOLD,
    NEAREST,
    RAW,
    RESIZE_ALIGNED,
    RESIZE_BILINEAR,
    RESIZE_NEAREST,
)
from fused_mixup.reference.pairing import transpose_pairing

B, H, W = 6, 5, 16
LOW, HIGH = -(2**31), 2**31 - 1
PARTNERS = ([-1, B, B + 1, 0, B - 1, HIGH], [B, -1, LOW, 1, B, 3])
BOXES = (
    [[-1, -1, H + 1, W + 1], [0, 0, H, W], [H, W, H + 1, W + 1], [H - 1, W - 1, H + 1, W + 1]]
    + [[-1, -1, 0, 0], [LOW, LOW, HIGH, HIGH]],
    [[-1, 3, 2, W + 1], [2, -1, H + 1, 9], [H, 0, H + 1, W], [0, W, H, W + 1], [0, 1, 1, 2]]
    + [[LOW, 5, HIGH, 6]],
)
# No row keeps its own values, which would hide a wrong partner; one adds its partner's to them.
BLEND = torch.stack((torch.linspace(0.2, 0.8, B), torch.linspace(0.7, 0.3, B)), 1).double()
BLEND[2, 0] = 1.0
PASTE = torch.tensor([[1.0, 0.0]], dtype=torch.float64)  # no row blends, and boxes alone are walked
DTYPES = (torch.float32, torch.float16, torch.uint8)


def guarded(dtype: torch.dtype, device: str, channels_last: bool) -> tuple[Tensor, Tensor]:
    """A batch, and the memory around it: a row before it and one behind it."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(B + 2, 3, H, W, generator=generator).mul(40).abs().to(dtype)
    if dtype.is_floating_point:
        base[0] = base[-1] = torch.nan
    else:
        base[0] = base[-1] = 255
    if channels_last:
        base = base.contiguous(memory_format=torch.channels_last)
    base = base.to(device)
    return base[1:-1], base


def edge_plans(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(partner, blend, box) with values out of range. One row for all stays on the host."""
    for partner, boxes in zip(PARTNERS, BOXES, strict=True):
        indices = torch.tensor(partner, dtype=torch.int32, device=device)
        yield indices, BLEND.to(device), torch.empty((B, 0), dtype=torch.int32, device=device)
        for rows in BOXES:
            box = torch.tensor(rows, dtype=torch.int32, device=device)
            yield indices, BLEND.to(device), box
        for row in boxes[:2]:
            yield indices, PASTE.expand(B, 2), torch.tensor([row], dtype=torch.int32).expand(B, 4)
        for row in boxes[::2]:
            box = torch.tensor([row], dtype=torch.int32)
            yield indices, BLEND[:1].expand(B, 2), box.expand(B, 4)


def check_mix(
    ops: object,
    device: str = "cpu",
    in_place: tuple[dict, ...] = ({},),
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    step: int = 1,
) -> None:
    """``in_place``: the options under which mix_ is called. ``step``: takes every step-th plan."""
    for dtype in dtypes:
        for channels_last in (False, True):
            for plan in [*edge_plans(device)][::step]:
                x, base = guarded(dtype, device, channels_last)
                want = reference.mix(x, *plan, 0)
                assert same_bits(ops.mix(x, *plan, 0), want), plan
                for options in in_place:
                    _, y_base = guarded(dtype, device, channels_last)
                    ops.mix_(y_base[1:-1], *plan, 0, **options)
                    assert same_bits(y_base[1:-1], want), (plan, options)
                    for row in (0, -1):  # what lies around the batch is not written
                        assert same_bits(y_base[row], base[row]), (plan, options)


def wrong_transposes(partner: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """``sources, offsets`` that mean the right ones once they are clamped."""
    sources, offsets = transpose_pairing(partner)
    sources = torch.where(sources == B - 1, B, torch.where(sources == 0, -1, sources))
    around = torch.full((B + 2,), 2, dtype=torch.int32, device=partner.device)
    around[1:-1] = sources
    for low, high in ((-1, B + 1), (LOW, HIGH)):
        wrong = offsets.clone()
        wrong[0], wrong[-1] = low, high
        yield around[1:-1], wrong


def check_transpose(
    backward: Callable, device: str = "cpu", rest: tuple = (), step: int = 1
) -> None:
    """``backward``: mix_backward, or mix_masked_backward with its mask as ``rest``."""
    name = "mix_masked_backward" if rest else "mix_backward"
    grad, _ = guarded(torch.float32, device, False)
    for partner, blend, box in [*edge_plans(device)][::step]:
        right = transpose_pairing(partner)
        want = getattr(reference, name)(grad, partner, *right, blend, box, 0, *rest)
        for wrong in wrong_transposes(partner):
            got = backward(grad, partner, *wrong, blend, box, 0, *rest)
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-5)


def check_targets(ops: object, device: str = "cpu") -> None:
    weight = torch.tensor([[0.25, 0.5]], device=device).repeat(B, 1)
    for classes in (3, 16):
        labels = torch.tensor([-1, classes, classes - 1, 0, 1, classes], device=device)
        for partner in PARTNERS:
            rows = torch.tensor(partner, dtype=torch.int32, device=device)
            args = labels, rows, weight, 0, classes, 0.1, torch.float32
            got, want = ops.mix_targets(*args), reference.mix_targets(*args)
            assert torch.equal(got.nan_to_num(9), want.nan_to_num(9)), (classes, partner)


def check_boxes(ops: object, device: str = "cpu") -> None:
    """Counts of boxes one beyond the room for them; a cut that a box touches."""
    most = 20
    generator = torch.Generator().manual_seed(2)
    corners = torch.randint(0, 13, (B + 2, most, 4), generator=generator).float()
    corners[..., 2:] += corners[..., :2]
    boxes = corners.to(device)[1:-1]
    count = torch.tensor([most + 1, most + 40, -1, 0, most, 3], device=device)
    cut = torch.tensor([[0, 0, 4, 16], [2, 2, 2, 9], [5, 5, 9, 9]] * 2).int().to(device)
    for partner in PARTNERS:
        rows = torch.tensor(partner, dtype=torch.int32, device=device)
        for blend in (BLEND, torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(B, 1)):
            for least in (0.0, 0.5, 1.0):
                args = boxes, count, rows, blend.to(device), cut, 0, least
                for got, want in zip(ops.mix_boxes(*args), reference.mix_boxes(*args), strict=True):
                    assert same_bits(got, want), (partner, least)


def masks(device: str, interpolation: int) -> tuple:
    """Separable masks and stored ones in turn; the map lies between values that no mask has."""
    generator = torch.Generator().manual_seed(4)
    # Quarters, so that many values of the third kind are its threshold.
    code = torch.tensor([MASK_SEPARABLE, MASK_STORED, MASK_SEPARABLE + MASK_THRESHOLD])
    code = code.repeat(B // 3).int()
    quarters = (torch.randint(1, 5, (B, 1, n), generator=generator) / 4 for n in (H, W))
    rows, columns = quarters
    around = torch.full((B + 2, 3, 4), torch.nan)
    around[1:-1] = torch.rand(B, 3, 4, generator=generator)
    placed = (t.to(device) for t in (code, torch.full((B,), 0.25), rows, columns, around))
    *first, around = placed
    return (*first, around[1:-1], interpolation)


def check_masks(ops: object, device: str = "cpu", step: int = 1) -> None:
    """``step``: takes every step-th plan, where a call takes long."""
    x, _ = guarded(torch.float32, device, False)
    pool = x[1:4]  # partners are clamped into it, among rows that would be other values
    for interpolation in (NEAREST, BILINEAR):
        mask = masks(device, interpolation)
        for plan in [*edge_plans(device)][interpolation::step]:
            want = reference.mix_masked(x, *plan, 0, *mask)
            assert same_bits(ops.mix_masked(x, *plan, 0, *mask), want), plan
            out, want = torch.empty_like(x), torch.empty_like(x)
            reference.mix_masked_out(x, pool, *plan, 0, *mask, False, want)
            ops.mix_masked_out(x, pool, *plan, 0, *mask, False, out)
            assert same_bits(out, want), plan
    check_transpose(ops.mix_masked_backward, device, masks(device, NEAREST), step)
    # More channels than a thread, or a program, takes at once.
    partner, blend, box = next(edge_plans(device))
    x = torch.randn(B, 13, H, W, generator=torch.Generator().manual_seed(6)).to(device)
    args = partner, blend, box, 0, *masks(device, BILINEAR)
    assert same_bits(ops.mix_masked(x, *args), reference.mix_masked(x, *args))
    back = partner, *transpose_pairing(partner), *args[1:]
    want = reference.mix_masked_backward(x, *back)
    torch.testing.assert_close(ops.mix_masked_backward(x, *back), want, rtol=1e-6, atol=1e-6)


def check_collages(ops: object, device: str = "cpu", step: int = 1) -> None:
    """Samples, patches, rectangles and their sources one beyond the first and the last."""

    def ints(values: list) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    x, _ = guarded(torch.float32, device, False)
    out, want = torch.empty_like(x), torch.empty_like(x)
    cells = H * 4
    patches = torch.arange(B * cells).add(7).remainder(cells + 2).sub(1).view(B, H, 4)
    index = ints(patches.tolist())  # -1 to the number of patches
    halves = torch.full((B, H, 4), 0.25, device=device)
    for own, other in (PARTNERS, PARTNERS[::-1]):
        for args in (
            (ints(own), index, None, None, None),
            (ints(own), index, ints(other), index.flip(0), halves),
        ):
            reference.mix_patches(x, *args, want)
            ops.mix_patches(x, *args, out)
            assert same_bits(out, want), args
    source = torch.stack([ints(partner) for partner in PARTNERS], 1)
    for k, boxes in enumerate((BOXES, BOXES[::-1])):
        box, part = (torch.stack((ints(rows), ints(rows[::-1])), 1) for rows in boxes)
        for resample in (RAW, RESIZE_NEAREST, RESIZE_BILINEAR, RESIZE_ALIGNED)[k::step]:
            for other, fill in ((None, None), (x[1:4], 3.0)):
                args = other, source, part, box, None, resample, fill
                reference.mix_rectangles(x, *args, want)
                ops.mix_rectangles(x, *args, out)
                assert same_bits(out, want), (resample, fill)


def check_labels(ops: object, device: str = "cpu", step: int = 1) -> None:
    """Labels one beyond the first and the last class poison their row, own ones and partners'."""
    for shape in ((B, 16), (B, 7), (B, 16, 4), (B, 7, 3))[::step]:
        k = shape[1]
        generator = torch.Generator().manual_seed(k)
        logits = torch.randn(shape, generator=generator)
        rest = [1] * (len(shape) - 2)
        wrong = torch.tensor([k - 1, -1, k, 0, 1, k]).view(B, *rest).expand(B, *shape[2:])
        right = wrong.clamp(0, k - 1).flip(0)
        weight = torch.tensor([[0.75, 0.25]]).repeat(B, 1)
        z = logits.to(device)
        for labels in ((wrong, right), (right, wrong), (wrong, wrong)):
            sparse = [t.contiguous().to(device) for t in (*labels, weight)]
            args = (*sparse, None, -100, 0.0, 0.1, 0.0, 0.0, 2, True)
            got, want = (o.soft_target_cross_entropy(z, *args) for o in (ops, reference))
            torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-6, equal_nan=True)
            assert torch.equal(got[3], want[3])
            args = (*sparse, None, None, 0.0, None, 0.0, 2, True)
            got, want = (o.soft_target_binary_cross_entropy(z, *args) for o in (ops, reference))
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6, equal_nan=True)
            args = (*sparse, None, None, 0.0, None, 0.0, 1, True)
            got, want = (
                o.soft_target_binary_cross_entropy_grad(z, *args) for o in (ops, reference)
            )
            torch.testing.assert_close(got[1], want[1], rtol=1e-4, atol=1e-6, equal_nan=True)
            ranks = [o.label_ranks(z, *sparse[:2]) for o in (ops, reference)]
            assert torch.equal(*ranks)


# ------------------------------------------------------------------ more rows than a block


def long_graphs(batch: int) -> Iterator[Tensor]:
    """Pairings of more rows than a block has threads: a cycle, a chain, cycles and trees."""
    generator = torch.Generator().manual_seed(batch)
    i = torch.arange(batch)
    yield (i + 7) % batch
    yield torch.randperm(batch, generator=generator)
    yield (i + 1).clamp(max=batch - 1)
    yield torch.randint(0, batch, (batch,), generator=generator)


def check_long_graphs(
    ops: object, batch: int, device: str = "cpu", in_place: tuple[dict, ...] = ({},)
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 5, generator=generator).to(device)
    lam = torch.rand(batch, generator=generator, dtype=torch.float64) * 0.5 + 0.2
    blend = torch.stack((lam, 1 - lam), 1).to(device)
    box = torch.empty((batch, 0), dtype=torch.int32, device=device)
    for partner in long_graphs(batch):
        rows = partner.int().to(device)
        want = reference.mix(x, rows, blend, box, 0)
        for options in in_place:
            y = x.clone()
            ops.mix_(y, rows, blend, box, 0, **options)
            assert same_bits(y, want), options
