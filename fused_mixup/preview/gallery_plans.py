"""The plan of each variant for two photographs: λ is ``LAM`` for all that take one, places are
drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .. import (
    MixPlan,
    PatchPlan,
    RectanglePlan,
    cutmix_box,
    mix,
    mosaic_plan,
    resize_into,
    ricap_plan,
    shifted_cutmix,
)
from .. import masks as kinds
from ..label_weights.attention import snapmix_weights, tokenmix_weights, transmix_weights
from ..openmixup.puzzle_transport import transport
from ..saliency import gaussian_blur
from .gallery_photos import Photos

Plan = MixPlan | RectanglePlan | PatchPlan

LAM = 0.6  # what a variant that takes λ gives the first photograph
TOKENS = 14  # a side of the grid of ViTs and of what replaces their attention
CELLS = 8  # a side of the grids of PuzzleMix, Co-Mixup and Jigsaw; divides the size
MOSAIC_GREY = 114 / 255
TRANSPORT_COST = 0.8  # of PuzzleMix, for a patch that moves by a whole side


# ---------------------------------------------------------------- scalars and boxes


def mixup(_: Photos) -> Plan:
    return MixPlan.uniform(2, "flip", LAM)


def cutmix(photos: Photos) -> Plan:
    box, lam = cutmix_box(photos.size, LAM, photos.places((1, 1)))
    return MixPlan.uniform(2, "flip", lam, box)


def hmix(photos: Photos) -> Plan:
    box = photos.box((1 - LAM) / 2)
    area = (box[2] - box[0]) * (box[3] - box[1]) / math.prod(photos.size)
    own = LAM / (1 - area)
    return MixPlan(
        None,
        torch.tensor([[LAM, 1 - LAM]] * 2),
        torch.tensor([[own, 1 - own]] * 2, dtype=torch.float64),
        torch.tensor([box] * 2, dtype=torch.int32),
        "flip",
    )


def saliencymix(photos: Photos) -> Plan:
    at = int(photos.saliency[1].argmax())
    box, lam = cutmix_box(photos.size, LAM, divmod(at, photos.size[1]))
    return MixPlan.uniform(2, "flip", lam, box)


def transmix(photos: Photos) -> Plan:
    plan = cutmix(photos)
    assert isinstance(plan, MixPlan)
    seen = F.adaptive_avg_pool2d(mix(photos.saliency[:, None], plan), TOKENS)[:, 0]
    return plan.with_weight(transmix_weights(seen, plan.box, photos.size))


# ---------------------------------------------------------------- masks


def _with_mask(photos: Photos, mask: kinds.MixMask, lam: float | None = None) -> MixPlan:
    """Labels by the mean of the mask, or by λ."""
    plan = MixPlan.uniform(2, "flip", LAM if lam is None else lam).with_mask(mask.expand(2))
    return plan if lam is not None else plan.with_weight(mask.mean(photos.size).expand(2))


def fmix(photos: Photos) -> Plan:
    height, width = photos.size
    terms = width // 2 + 1 + width % 2
    normals = torch.randn(1, 2, terms, 2, generator=photos.generator)
    mask = kinds.fmix_mask(normals, [int(LAM * height * width)], photos.size)
    return _with_mask(photos, mask, LAM)


def gridmix(photos: Photos) -> Plan:
    crop = [int(n * math.sqrt(0.9)) for n in photos.size]
    period = [math.ceil(n / 4) for n in crop]
    hole = [min(max(int(p * math.sqrt(1 - LAM)), 1), p - 1) for p in period]
    top, left = photos.places(crop)
    numbers = [left, top, *crop[::-1], *period[::-1], *hole[::-1]]
    return _with_mask(photos, kinds.grid_mask(numbers, photos.size))


def smoothmix(photos: Photos) -> Plan:
    sigma = (0.25 + float(torch.rand((), generator=photos.generator)) / 4) * photos.size[0]
    return _with_mask(photos, kinds.gauss_mask(photos.places((1, 1)), sigma, photos.size))


def gmix(photos: Photos) -> Plan:
    sigma = math.sqrt((1 - LAM) * math.prod(photos.size) / (2 * math.pi))  # a bell of area 1 - λ
    return _with_mask(photos, kinds.gauss_mask(photos.places((1, 1)), sigma, photos.size))


def specmix(photos: Photos) -> Plan:
    widths = [int(0.3 * n) for n in photos.size]
    bands = [[[[a, a + n]]] for a, n in zip(photos.places(widths), widths, strict=True)]
    return _with_mask(photos, kinds.band_mask(bands[0], bands[1], photos.size))


def cutmix_seg(photos: Photos) -> Plan:
    boxes = [[photos.box((1 - LAM) / 2) for _ in range(3)]]
    return _with_mask(photos, kinds.rectangle_mask(boxes, photos.size, combine="xor"))


def cowmix(photos: Photos) -> Plan:
    sigma = min(photos.size) / 16
    width = 2 * math.ceil(2 * sigma) + 1
    normals = torch.randn(1, *photos.size, generator=photos.generator)
    noise = gaussian_blur(normals, (width, width), (sigma, sigma))
    level = noise.mean() + noise.std() * math.sqrt(2) * torch.erfinv(torch.tensor(1 - 2 * LAM))
    return _with_mask(photos, kinds.stored_mask(noise > level))


def classmix(photos: Photos) -> Plan:
    grey = photos.images.mean(1)
    edges = torch.quantile(grey.flatten(), torch.tensor([0.25, 0.5, 0.75]))
    classes = torch.bucketize(grey, edges)  # [2, H, W], four of them
    return _with_mask(photos, kinds.class_mask(classes, [[0, 1]] * 2))


def attentivemix(photos: Photos) -> Plan:
    maps = photos.cells(7).flatten(1)
    count = min(max(1, int(maps.shape[1] * LAM)), maps.shape[1])
    keep = torch.zeros(maps.shape, dtype=torch.bool)
    keep.scatter_(1, maps.topk(count, dim=1).indices, True)
    return _with_mask(photos, kinds.patch_mask(keep))


def tokenmix(photos: Photos) -> Plan:
    """Blocks of tokens are pasted until they are enough, as BEiT masks them."""
    pasted = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    wanted = int((1 - LAM) * TOKENS**2)
    while (left := wanted - int(pasted.sum())) > 0:
        area, aspect = torch.rand(2, generator=photos.generator).tolist()
        area, ratio = 1 + area * (left - 1), math.exp((2 * aspect - 1) * math.log(1 / 0.3))
        sides = [round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))]
        if min(sides) < 1 or max(sides) >= TOKENS:
            continue
        top, start = (photos.integer(0, TOKENS - side) for side in sides)
        block = pasted[top : top + sides[0], start : start + sides[1]]
        if 0 < int((~block).sum()) <= left:
            block.fill_(True)
    plan = MixPlan.uniform(2, "flip", LAM).with_mask(kinds.patch_mask(~pasted[None]).expand(2))
    own = (~pasted)[None].float()
    return plan.with_weight(tokenmix_weights(photos.cells(TOKENS), own, plan.partner))


def guidedmixup(photos: Photos) -> Plan:
    mask = kinds.saliency_mask(photos.saliency, photos.saliency.flip(0))
    return _with_mask(photos, mask)


# ---------------------------------------------------------------- rectangles


def resizemix(photos: Photos) -> Plan:
    return resize_into(2, photos.size, photos.box(1 - LAM), "flip", resample="nearest")


def smmix(photos: Photos) -> Plan:
    """The window of the partner with the most attention goes where the sample has the least."""
    side = TOKENS // 2
    sums = F.avg_pool2d(photos.cells(TOKENS)[:, None], side, stride=1).flatten(1)
    cells = divmod(int(sums[0].argmin()), TOKENS - side + 1)
    taken = divmod(int(sums[1].argmax()), TOKENS - side + 1)
    steps = [n / TOKENS for n in photos.size]
    start, source = ([int(c * s) for c, s in zip(at, steps, strict=True)] for at in (cells, taken))
    stop = [a + int(side * s) for a, s in zip(start, steps, strict=True)]
    return shifted_cutmix(2, photos.size, [*start, *stop], source, "flip")


def snapmix(photos: Photos) -> Plan:
    box, source = photos.box(1 - LAM), photos.box(0.25)
    cut, taken = (torch.tensor([b] * 2, dtype=torch.int32) for b in (box, source))
    partner, labels = torch.tensor([1, 0]), torch.arange(2)
    weight = snapmix_weights(photos.saliency, cut, taken, partner, labels)
    return resize_into(
        2, photos.size, box, "flip", source_box=source, resample="bilinear_aligned", weight=weight
    )


def ricap(photos: Photos) -> Plan:
    height, width = photos.size
    y, x = (int(n * LAM) for n in photos.size)
    sizes = (y, x), (height - y, x), (y, width - x), (height - y, width - x)
    start = [photos.places(size) for size in sizes]
    return ricap_plan(photos.size, (y, x), [[0, 1, 1, 0], [1, 0, 0, 1]], start)


def mosaic(photos: Photos) -> Plan:
    centre = [photos.integer(n // 2, 3 * n // 2) for n in photos.size]
    return mosaic_plan(photos.size, centre, [[0, 1, 1, 0], [1, 0, 0, 1]], fill=MOSAIC_GREY)


# ---------------------------------------------------------------- patches


def puzzlemix(photos: Photos) -> Plan:
    """A mask of 0, ½ and 1 by saliency, and patches that move to where they are seen."""
    maps = photos.cells(CELLS)
    share = maps / (maps + maps.flip(0))
    mask = (share > 1 / 3).float() / 2 + (share > 2 / 3).float() / 2
    index = transport(mask, maps, TRANSPORT_COST)
    others = transport(1 - mask, maps.flip(0), TRANSPORT_COST)
    return PatchPlan(index, None, mask, torch.tensor([1, 0]), others)


def comixup(photos: Photos) -> Plan:
    maps = photos.cells(CELLS)
    first = maps.argmax(0)  # the photograph that is more salient there
    return PatchPlan(sample=torch.stack((first, 1 - first)))


def jigsaw(photos: Photos) -> Plan:
    order = torch.randperm(CELLS**2 // 4, generator=photos.generator)
    return PatchPlan(order.view(1, CELLS // 2, CELLS // 2).repeat(2, 1, 1))


# ---------------------------------------------------------------- all


class Variant(NamedTuple):
    name: str
    rule: str  # of its label weights
    plan: Callable[[Photos], Plan]


VARIANTS = (
    Variant("MixUp", "λ", mixup),
    Variant("CutMix", "area", cutmix),
    Variant("HMix", "λ", hmix),
    Variant("SaliencyMix", "area", saliencymix),
    Variant("TransMix", "area and attention", transmix),
    Variant("FMix", "λ", fmix),
    Variant("GridMix", "mean of the mask", gridmix),
    Variant("SmoothMix", "mean of the mask", smoothmix),
    Variant("GMix", "mean of the mask", gmix),
    Variant("SpecMix", "mean of the mask", specmix),
    Variant("CutMix-Seg", "mean of the mask", cutmix_seg),
    Variant("CowMix", "mean of the mask", cowmix),
    Variant("ClassMix", "mean of the mask", classmix),
    Variant("AttentiveMix", "mean of the mask", attentivemix),
    Variant("TokenMix", "attention", tokenmix),
    Variant("GuidedMixup", "mean of the mask", guidedmixup),
    Variant("ResizeMix", "area", resizemix),
    Variant("SMMix", "area", smmix),
    Variant("SnapMix", "class maps, sum not 1", snapmix),
    Variant("RICAP", "areas", ricap),
    Variant("Mosaic", "areas", mosaic),
    Variant("PuzzleMix", "mean of the mask", puzzlemix),
    Variant("Co-Mixup", "shares of blocks", comixup),
    Variant("Jigsaw", "unchanged", jigsaw),
)
