"""Checks of the ops' arguments, for calls that bypass the public functions.

``torch.ops.fused_mixup.*`` can be called from anywhere (exported graphs, opcheck). The native
backends check in C++, csrc/common/arguments.h, by the same names; the reference and Triton check
here. Most dtypes are not checked, as both convert what they read. Labels must be int64: they are
compared with an ignore_index that smaller integers cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import expect as expect
from .arguments import expect_shape as expect_shape
from .codes import (
    CONST,
    CROSS_CLASS,
    ERASE_SETTINGS,
    MASK_RANK,
    MAX_BATCH,
    MAX_CHANNELS,
    MAX_ERASED,
    MAX_MASK_SIZE,
    MAX_SPATIAL,
    MAX_VARIANTS,
    NONE,
    PIXEL,
    RESIZEMIX,
    SELF,
    SETTINGS,
    TENSOR,
    VARIANT_NUMBERS,
    VARIANT_RANKS,
)
from .dtypes import BLENDABLE, NORMALIZED
from .schemas import BinaryCrossEntropyArguments, CrossEntropyArguments, focal_everywhere


def check_pairing(pairing: int, partner: Tensor | None, batch: int) -> None:
    expect(TENSOR <= pairing <= SELF, "pairing", "0 to 3", pairing)
    if pairing == TENSOR:
        expect_shape("partner", partner, batch)


def check_plan(
    x: Tensor, pairing: int, partner: Tensor | None, blend: Tensor | None, box: Tensor
) -> None:
    expect(x.ndim >= 1, "x", "at least one dim", x.ndim)
    batch = x.shape[0]
    check_pairing(pairing, partner, batch)
    if blend is not None:
        expect(x.dtype in BLENDABLE, "x", "floats or uint8", x.dtype)
        expect_shape("blend", blend, batch, 2)
    expect(box.ndim == 2, "box", "shape [B, 2 D]", list(box.shape))
    columns = box.shape[1]
    most = 2 * min(x.ndim - 1, MAX_SPATIAL)
    expect(columns % 2 == 0 and columns <= most, "box", f"an even number up to {most}", columns)
    expect_shape("box", box, batch, columns)


def check_transpose(
    pairing: int, sources: Tensor | None, offsets: Tensor | None, batch: int
) -> None:
    if pairing == TENSOR:
        expect_shape("sources", sources, batch)
        expect_shape("offsets", offsets, batch + 1)


def check_out(out: Tensor, x: Tensor) -> None:
    expect(out.dtype == x.dtype, "out", str(x.dtype), out.dtype)
    expect_shape("out", out, *x.shape)


def check_samples(samples: Sequence[Tensor], out: Tensor) -> None:
    fits = bool(samples) and out.ndim >= 1 and out.shape[0] <= len(samples)
    expect(fits, "out", f"at most {len(samples)} rows", list(out.shape))
    for s in samples:
        expect(s.dtype == out.dtype, "samples", str(out.dtype), s.dtype)
        expect_shape("samples", s, *out.shape[1:])


def check_mix_normalize(
    images: Sequence[Tensor],
    mean: Sequence[float],
    std: Sequence[float],
    flip: Tensor | None,
    erase_box: Tensor | None,
    erase_value: Tensor | None,
    erase_noise: Tensor | None,
    out: Tensor,
) -> None:
    expect(out.dtype in NORMALIZED, "out", "float16, bfloat16 or float32", out.dtype)
    expect(out.ndim == 4, "out", "[B, C, H, W]", list(out.shape))
    batch, channels = out.shape[:2]
    whole = len(images) == 1 and images[0].ndim == 4
    expect(whole or len(images) == batch, "images", f"{batch} of them, or one", len(images))
    for x in images:
        expect(x.dtype in (*NORMALIZED, torch.uint8), "images", "uint8 or floats", x.dtype)
        expect(x.dtype == images[0].dtype, "images", str(images[0].dtype), x.dtype)
        expect_shape("images", x, *(out.shape if whole else out.shape[1:]))
    for name, values in (("mean", mean), ("std", std)):
        expect(len(values) == channels, name, f"{channels} numbers", len(values))
    expect(channels <= MAX_CHANNELS, "images", f"up to {MAX_CHANNELS} channels", channels)
    if flip is not None:
        expect(flip.dtype == torch.bool, "flip", "bool", flip.dtype)
        expect_shape("flip", flip, batch)
    filled = (erase_value is not None) + (erase_noise is not None)
    expect(filled == (erase_box is not None), "erase_value, erase_noise", "one with boxes", filled)
    if erase_box is None:
        return
    expect(erase_box.dtype == torch.int32, "erase_box", "int32", erase_box.dtype)
    boxes = erase_box.shape[1] if erase_box.ndim == 3 else 0
    expect_shape("erase_box", erase_box, batch, boxes, 4)
    if erase_noise is not None:
        expect(erase_noise.dtype == torch.int64, "erase_noise", "int64", erase_noise.dtype)
        expect_shape("erase_noise", erase_noise, batch)
    elif erase_value is not None:
        expect(erase_value.dtype == torch.float32, "erase_value", "float32", erase_value.dtype)
        sizes = zip(erase_value.shape, (batch, boxes, channels), strict=False)
        fits = erase_value.ndim == 3 and all(n in (1, whole) for n, whole in sizes)
        expected = f"shape [{batch} or 1, {boxes} or 1, {channels} or 1]"
        expect(fits, "erase_value", expected, list(erase_value.shape))


def check_label_pairs(
    labels: Tensor, pairing: int, partner: Tensor | None, weight: Tensor, num_classes: int
) -> None:
    expect(labels.ndim >= 1, "labels", "at least one dim", labels.ndim)
    expect_labels("labels", labels, *labels.shape)
    expect(0 <= num_classes < 2**31, "num_classes", "0 to 2^31 - 1", num_classes)
    check_pairing(pairing, partner, labels.shape[0])
    expect_shape("weight", weight, labels.shape[0], 2)


def check_mix_boxes(
    boxes: Tensor,
    dims: int,
    count: Tensor | None,
    pairing: int,
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    batch: int,
) -> None:
    expect(boxes.dtype in (torch.float32, torch.float64), "boxes", "floats", boxes.dtype)
    fits = boxes.ndim == dims and boxes.shape[-1] == 4
    expect(fits, "boxes", f"{dims} dims, the last of size 4", list(boxes.shape))
    if count is not None:
        integer = count.dtype in (torch.int32, torch.int64)
        expect(integer, "count", "int32 or int64", count.dtype)
        expect_shape("count", count, batch)
    check_pairing(pairing, partner, batch)
    expect_shape("blend", blend, batch, 2)
    expect_shape("box", box, batch, 0 if box.ndim == 2 and box.shape[1] == 0 else 4)


def expect_labels(name: str, labels: Tensor, *sizes: int) -> None:
    expect(labels.dtype == torch.int64, name, "int64", labels.dtype)
    expect_shape(name, labels, *sizes)


def row_shape(logits: Tensor) -> tuple[int, ...]:
    return (logits.shape[0], *logits.shape[2:])


def check_logits(logits: Tensor) -> None:
    fits = logits.ndim >= 2 and logits.is_floating_point()
    expect(fits, "logits", "floats [B, K, …]", f"{logits.dtype} {list(logits.shape)}")


def check_loss(
    logits: Tensor,
    arguments: CrossEntropyArguments | BinaryCrossEntropyArguments,
    more_labels: bool = False,
) -> None:
    """Raise for arguments that do not fit; ``more_labels``: rows may have more than two."""
    target, partner_labels, weight = arguments[:3]
    check_logits(logits)
    expect(0 <= arguments.reduction <= NONE, "reduction", "0 to 2", arguments.reduction)
    for name in ("focal_gamma", "z_loss"):
        value = getattr(arguments, name, 0.0)
        expect(0 <= value < math.inf, name, "a finite number >= 0", value)
    both = (partner_labels is None) == (weight is None)
    expect(
        both, "weight", "a tensor where there are partner_labels, and only there", weight is None
    )
    if partner_labels is None:
        expect_shape("target", target, *logits.shape)
    else:
        expect_labels("target", target, *row_shape(logits))
        batch, *inner = row_shape(logits)
        more: tuple[int, ...] = ()
        if more_labels and partner_labels.ndim > target.ndim:
            more = (partner_labels.shape[1],)
        expect_labels("partner_labels", partner_labels, batch, *more, *inner)
        expect_shape("weight", weight, batch, *(n + 1 for n in more or (1,)))
    for w in (arguments.class_weight, getattr(arguments, "pos_weight", None)):
        if w is not None:
            expect_shape("class_weight, pos_weight", w, logits.shape[1])


def check_ranks(logits: Tensor, labels: Tensor, partner_labels: Tensor | None) -> None:
    check_logits(logits)
    expect_labels("labels", labels, *row_shape(logits))
    if partner_labels is not None:
        expect_labels("partner_labels", partner_labels, *row_shape(logits))


def check_kernel_focal(arguments: CrossEntropyArguments) -> None:
    expected = "0 with a dense or smoothed target; the public function takes it"
    expect(not focal_everywhere(arguments), "focal_gamma", expected, arguments.focal_gamma)


def check_grad_loss(
    grad_loss: Tensor, logits: Tensor, reduction: int, of_elements: bool = False
) -> None:
    each = tuple(logits.shape) if of_elements else row_shape(logits)
    expect_shape("grad_loss", grad_loss, *(each if reduction == NONE else ()))


def check_saved(stats: Tensor, count: Tensor, logits: Tensor) -> None:
    expect_shape("stats", stats, 3, *row_shape(logits))
    expect_shape("count", count)


def check_draw(
    state: Tensor,  # [4]
    settings: Tensor,  # [6]
    labels: Tensor | None,  # [B]
    partner: Tensor | None,  # [B]
    batch: int,
    spatial: Sequence[int],
    per: int,
    pairing: int,
    samples: Tensor | None,  # [B]
) -> None:
    expect_shape("settings", settings, SETTINGS)
    sizes = len(spatial) <= MAX_SPATIAL and all(0 <= n < 2**31 for n in spatial)
    expect(sizes, "spatial", "at most 3 sizes of 31 bits", list(spatial))
    _check_drawn(state, labels, partner, samples, batch, per, pairing)


def check_draw_variants(
    state: Tensor,  # [4]
    settings: Tensor,  # [1 + 10·M]
    labels: Tensor | None,  # [B]
    partner: Tensor | None,  # [B]
    kinds: Sequence[int],  # [M]
    batch: int,
    height: int,
    width: int,
    rank: int,
    per: int,
    pairing: int,
    samples: Tensor | None,  # [B]
) -> None:
    known = 1 <= len(kinds) <= MAX_VARIANTS and all(0 <= k <= RESIZEMIX for k in kinds)
    expect(known, "kinds", f"1 to {MAX_VARIANTS} numbers up to {RESIZEMIX}", list(kinds))
    expect_shape("settings", settings, 1 + VARIANT_NUMBERS * len(kinds))
    sizes = 1 <= height <= MAX_MASK_SIZE and 1 <= width <= MAX_MASK_SIZE
    expect(sizes, "height, width", f"1 to {MAX_MASK_SIZE:,}", (height, width))
    least = max(VARIANT_RANKS.get(kind, 0) for kind in kinds)
    expect(least <= rank <= MASK_RANK, "rank", f"{least} to {MASK_RANK}", rank)
    _check_drawn(state, labels, partner, samples, batch, per, pairing)


def _check_drawn(
    state: Tensor,
    labels: Tensor | None,
    partner: Tensor | None,
    samples: Tensor | None,
    batch: int,
    per: int,
    pairing: int,
) -> None:
    expect(state.dtype == torch.int64, "state", "int64, as it is written", state.dtype)
    expect_shape("state", state, 4)
    expect(0 <= batch <= MAX_BATCH, "batch_size", f"0 to {MAX_BATCH:,}", batch)
    expect(0 <= per <= 2, "per", "0 to 2", per)
    expect(TENSOR <= pairing <= CROSS_CLASS, "pairing", "0 to 6", pairing)
    if pairing == TENSOR:
        expect_shape("partner", partner, batch)
    expect(samples is None or pairing == TENSOR, "samples", "None, as pairing is not 0", pairing)
    if samples is not None:
        expect_shape("samples", samples, batch)
    if pairing == CROSS_CLASS:
        expect_shape("labels", labels, batch)


def check_draw_erasing(
    state: Tensor,  # [4]
    settings: Tensor,  # [5]
    fill: Sequence[float],
    batch: int,
    height: int,
    width: int,
    max_count: int,
    channels: int,
    erase_mode: int,
    clean: int,
) -> None:
    expect(state.dtype == torch.int64, "state", "int64, as it is written", state.dtype)
    expect_shape("state", state, 4)
    expect_shape("settings", settings, ERASE_SETTINGS)
    expect(0 <= batch <= MAX_BATCH, "batch_size", f"0 to {MAX_BATCH:,}", batch)
    sizes = 0 <= height < 2**31 and 0 <= width < 2**31
    expect(sizes, "height, width", "sizes of 31 bits", (height, width))
    expect(1 <= max_count <= MAX_ERASED, "max_count", f"1 to {MAX_ERASED}", max_count)
    expect(1 <= channels <= MAX_CHANNELS, "channels", f"1 to {MAX_CHANNELS}", channels)
    expect(CONST <= erase_mode <= PIXEL, "erase_mode", "0 to 2", erase_mode)
    filled = (1 <= len(fill) <= MAX_CHANNELS) if erase_mode == CONST else not fill
    expect(filled, "fill", f"1 to {MAX_CHANNELS} numbers for erase_mode 0, else none", len(fill))
    expect(0 <= clean <= batch, "clean", f"0 to {batch}", clean)
