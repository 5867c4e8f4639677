"""Detection with MixUp and CutMix: images and their boxes are mixed by one plan.

    python -m examples.detection [--steps 300] [--seed 0] [--out build/detection.png]

A small detector without anchors learns to find handwritten digits on photographs, from 300 scenes.
``BatchMix`` cuts, drops and joins the boxes of each image and gives each a weight, which the loss
takes. It is trained three times, which differ in mixing alone: none, plain PyTorch, fused_mixup.
Needs no network; takes less than a minute on two cores.
"""

from __future__ import annotations

import os
from functools import partial
from typing import NamedTuple

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see demo.py

import torch
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from fused_mixup import BatchMix

from . import common
from .common import NO_MIXING, OURS, PLAIN, Agreement, Batch, Result, Run, Way
from .demo_picture import INK
from .detector import Detector, average_precision, detect, detection_loss
from .scenes import Scenes, scenes

MIN_VISIBLE = 0.3  # a digit of which less is seen is not asked for


SIDES = 20, 44  # pixels of a digit
DIGITS = 5  # of the ten, so that a minute is enough


class Sizes(NamedTuple):
    """Sizes that are no options; the test makes them smaller."""

    image: int = 96
    train: int = 300
    test: int = 150
    batch: int = 16
    compared: int = 20  # batches


DEFAULT = Sizes()


def mixer(seed: int, prob: float = 0.5) -> BatchMix:
    return BatchMix(
        mixup_alpha=1.5,  # λ near 1/2, as detection with MixUp is trained
        cutmix_alpha=1.0,
        prob=prob,  # half of the samples stay as they are: the training is short
        per="sample",
        min_visible=MIN_VISIBLE,
        seed=seed,
    )


# ------------------------------------------------------------------------------- fused_mixup


def loss_of(net: nn.Module, mixed: Batch) -> Tensor:
    """``mixed = mixer(batch)``: lists of boxes, of their labels, and now of their weights."""
    return detection_loss(
        net(mixed["image"]), mixed["boxes"], mixed["labels"], mixed["box_weights"]
    )


# ------------------------------------------------------------------------------- plain PyTorch


def plain_mix(draw: BatchMix, batch: Batch) -> Batch:
    """The same draws by plain PyTorch: a loop over the samples and their boxes."""
    x, boxes, labels = batch["image"], batch["boxes"], batch["labels"]
    plan = draw.draw(len(x), x.shape[2:])
    out: Batch = {"image": torch.empty_like(x), "boxes": [], "labels": [], "box_weights": []}
    rows = zip(plan.partner.tolist(), plan.blend.tolist(), plan.box.tolist(), strict=True)
    for i, (j, (own, other), (y0, x0, y1, x1)) in enumerate(rows):
        if y0 < y1 and x0 < x1:  # CutMix
            out["image"][i] = x[i]
            out["image"][i, :, y0:y1, x0:x1] = x[j, :, y0:y1, x0:x1]
            kept, left = outside(boxes[i], (x0, y0, x1, y1))
            seen, pasted = inside(boxes[j], (x0, y0, x1, y1))
            weights = torch.ones(len(left) + len(pasted))
        else:  # MixUp, or a cut without area
            out["image"][i] = own * x[i] + other * x[j]
            kept = torch.ones(len(boxes[i]), dtype=torch.bool).logical_and_(torch.tensor(own > 0))
            seen = torch.ones(len(boxes[j]), dtype=torch.bool).logical_and_(torch.tensor(other > 0))
            left, pasted = boxes[i][kept], boxes[j][seen]
            weights = torch.cat((torch.full((len(left),), own), torch.full((len(pasted),), other)))
        out["boxes"].append(torch.cat((left, pasted)))
        out["labels"].append(torch.cat((labels[i][kept], labels[j][seen])))
        out["box_weights"].append(weights)
    return out


def area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def clip(boxes: Tensor, cut: tuple[int, ...]) -> Tensor:
    low, high = torch.tensor(cut[:2]), torch.tensor(cut[2:])
    return torch.cat((boxes[:, :2].maximum(low), boxes[:, 2:].minimum(high)), 1)


def inside(boxes: Tensor, cut: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(which are seen, those clipped to the cut)."""
    clipped = clip(boxes, cut)
    share = area(clipped) / area(boxes)
    seen = (share >= MIN_VISIBLE) & (share > 0)
    return seen, clipped[seen]


def outside(boxes: Tensor, cut: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(which are seen, those without the side that the cut covers from edge to edge)."""
    whole = area(boxes)
    share = (whole - area(clip(boxes, cut))) / whole
    seen = (share >= MIN_VISIBLE) & (share > 0)
    left = boxes[seen].clone()
    x0, y0, x1, y1 = cut
    for box in left:
        a, b, c, d = box.tolist()
        if y0 <= b and d <= y1:  # the cut spans the height
            if x0 <= a:
                box[0] = max(a, x1)
            elif c <= x1:
                box[2] = min(c, x0)
        if x0 <= a and c <= x1:
            if y0 <= b:
                box[1] = max(b, y1)
            elif d <= y1:
                box[3] = min(d, y0)
    return seen, left


def unmixed_loss(net: nn.Module, batch: Batch) -> Tensor:
    weights = [torch.ones(len(labels)) for labels in batch["labels"]]
    return detection_loss(net(batch["image"]), batch["boxes"], batch["labels"], weights)


# ------------------------------------------------------------------------------- the example


def main(argv: list[str] | None = None, sizes: Sizes = DEFAULT) -> Result:
    args = common.parse(argv, "detection", str(__doc__), steps=300)
    data = scenes(sizes.train, sizes.image, SIDES, args.seed, kinds=DIGITS)
    held_out = scenes(sizes.test, sizes.image, SIDES, args.seed + 1, held_out=True, kinds=DIGITS)
    order = torch.Generator().manual_seed(args.seed)

    def batches(count: int):
        for _ in range(count):
            yield taken(data, torch.randint(len(data), (sizes.batch,), generator=order).tolist())

    ways = make_ways(args.seed)
    agreement = agree(ways[1], ways[2], batches(sizes.compared))
    runs = [
        Run(way, common.seeded(args.seed, Detector), 1e-2, args.steps)
        for way in make_ways(args.seed)
    ]
    common.train(runs, batches(args.steps))
    found = {run.way.name: detect(run.net, held_out.images) for run in runs}
    truth = list(zip(held_out.boxes, held_out.labels, strict=True))
    scores = {name: average_precision(each, truth) for name, each in found.items()}
    result = Result(agreement, runs, scores, args.out)
    common.report(result, "held-out AP@0.5", "plan, images, boxes and labels of a batch")
    draw(result, data, held_out, found, args.seed)
    return result


def taken(data: Scenes, rows: list[int]) -> Batch:
    return {
        "image": data.images[rows],
        "boxes": [data.boxes[i] for i in rows],
        "labels": [data.labels[i] for i in rows],
    }


def make_ways(seed: int) -> tuple[Way, Way, Way]:
    return (
        Way(NO_MIXING, lambda batch: batch, unmixed_loss),
        Way(PLAIN, partial(plain_mix, mixer(seed)), loss_of),
        Way(OURS, mixer(seed), loss_of),
    )


def agree(plain: Way, ours: Way, batches) -> Agreement:
    agreement = Agreement()
    for batch in batches:
        theirs, mixed = agreement.mix(plain, ours, batch)
        agreement.add("images", mixed["image"], theirs["image"])
        for part in ("boxes", "labels", "box_weights"):
            for a, b in zip(mixed[part], theirs[part], strict=True):
                agreement.add(part, a, b)
    return agreement


# ------------------------------------------------------------------------------- picture


def outline(axes, boxes: Tensor, labels: Tensor, weights: Tensor, colour: str) -> None:
    for (x0, y0, x1, y1), label, weight in zip(
        boxes.tolist(), labels.tolist(), weights.tolist(), strict=True
    ):
        alpha = 0.35 + 0.65 * weight
        corner, size = (x0 - 0.5, y0 - 0.5), (x1 - x0, y1 - y0)
        axes.add_patch(Rectangle(corner, *size, fill=False, ec=colour, lw=1.8, alpha=alpha))
        text = str(label) if weight == 1 else f"{label} · {weight:.2f}"
        axes.text(x0, y0, text, fontsize=8, va="bottom", color="white",
                  bbox={"color": colour, "pad": 0.8, "alpha": alpha})  # fmt: skip


def draw(result: Result, data: Scenes, held_out: Scenes, found, seed: int) -> None:
    count = min(6, len(data), len(held_out))
    made = common.figure(
        14, 12.4, "Detection: one plan mixes photographs and their boxes",
        "Handwritten digits on photographs. CutMix cuts boxes or drops them (dashed: the pasted "
        "part); MixUp joins the boxes of both, with the weights that the loss takes.",
    )  # fmt: skip
    grid = made.add_gridspec(4, count, left=0.1, right=0.985, top=0.93, bottom=0.215,
                             wspace=0.06, hspace=0.08)  # fmt: skip
    first = taken(data, list(range(count)))
    mixed, plans = mixer(seed + 3, prob=1.0).with_plans(common.copied(first))
    ones = [torch.ones(len(labels)) for labels in first["labels"]]
    rows = {
        "image": (first["image"], first["boxes"], first["labels"], ones, "#1f4e9c"),
        "mixed": (*mixed.values(), "#d8501c"),
        "no mixing": (held_out.images, *columns(found[NO_MIXING]), "#5b6472"),
        "fused_mixup": (held_out.images, *columns(found[OURS]), "#1f4e9c"),
    }
    for r, (name, (images, boxes, labels, weights, colour)) in enumerate(rows.items()):
        for i in range(count):
            axes = common.bare(made.add_subplot(grid[r, i]))
            axes.imshow(images[i].permute(1, 2, 0).clamp(0, 1).numpy())
            outline(axes, boxes[i], labels[i], weights[i], colour)
            y0, x0, y1, x1 = plans["image"].box[i].tolist()
            if name == "mixed" and y1 > y0:
                corner, size = (x0 - 0.5, y0 - 0.5), (x1 - x0, y1 - y0)
                axes.add_patch(Rectangle(corner, *size, fill=False, ec="white", ls="--", lw=1.4))
            if i == 0:
                axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8,
                                fontsize=11.5, color=INK, fontweight="bold")  # fmt: skip
    below = made.add_gridspec(1, 2, left=0.1, right=0.985, top=0.17, bottom=0.045, wspace=0.2)
    common.draw_losses(made.add_subplot(below[0, 0]), result.runs)
    title = f"AP@0.5 on {len(held_out)} held-out scenes, {len(result.runs[0].losses)} steps"
    common.draw_scores(made.add_subplot(below[0, 1]), result.scores, title)
    common.save(made, result.out)


def columns(found, least: float = 0.25):
    """Detections with a score above ``least``, as lists of boxes, labels and scores."""
    rows = [[t[s > least] for t in (boxes, labels, s)] for boxes, labels, s in found]
    return tuple(zip(*rows, strict=True))


if __name__ == "__main__":
    common.run(main)
