"""Segmentation with MixUp and CutMix: images and their class maps are mixed by one plan.

    python -m examples.segmentation [--steps 350] [--seed 0] [--out build/segmentation.png]

A small U-Net learns, from 150 scenes, which pixels belong to which handwritten digit. Pixels at the
edge of a stroke are void (255) and count nowhere. It is trained three times, which differ in mixing
alone: none, plain PyTorch, fused_mixup. Needs no network; takes less than a minute on two cores.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see demo.py

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fused_mixup import BatchMix, soft_target_cross_entropy

from . import common
from .common import NO_MIXING, OURS, PLAIN, Agreement, Batch, Result, Run, Way
from .demo_picture import INK
from .scenes import VOID, Scenes, scenes

DIGITS = 5  # of the ten, so that a minute is enough
CLASSES = 1 + DIGITS  # background, then the digits
# Most pixels are background: without weights a network says nothing else for hundreds of steps.
WEIGHT = torch.tensor([0.2] + [1.0] * DIGITS)


SIDES = 18, 28  # pixels of a digit


class Sizes(NamedTuple):
    """Sizes that are no options; the test makes them smaller."""

    image: int = 48
    train: int = 150
    test: int = 150
    batch: int = 16
    compared: int = 20  # batches


DEFAULT = Sizes()


def mixer(seed: int, prob: float = 0.5) -> BatchMix:
    return BatchMix(
        num_classes=CLASSES,
        mixup_alpha=0.4,
        cutmix_alpha=1.0,
        switch_prob=0.7,  # of CutMix
        prob=prob,  # half of the samples stay as they are: the training is short
        per="sample",
        ignore_index=VOID,
        seed=seed,
    )


# ------------------------------------------------------------------------------- fused_mixup


def ours_loss(net: nn.Module, mixed: Batch) -> Tensor:
    """``mixed = mixer(batch)``: "mask" [B, H, W] has become a MixedTarget, two labels a pixel."""
    return soft_target_cross_entropy(net(mixed["image"]), mixed["mask"], weight=WEIGHT)


# ------------------------------------------------------------------------------- plain PyTorch


def plain_mix(draw: BatchMix, batch: Batch) -> Batch:
    """The same draws by plain PyTorch: a dense target [B, K, H, W]."""
    x, mask = batch["image"], batch["mask"]
    plan = draw.draw(len(x), x.shape[2:])
    partner, box = plan.partner.long(), plan.box.view(-1, 4, 1, 1)
    own, other = plan.blend.float().view(-1, 2, 1, 1, 1).unbind(1)
    rows, columns = torch.arange(x.shape[2]).view(-1, 1), torch.arange(x.shape[3])
    y0, x0, y1, x1 = box.unbind(1)
    inside = (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)  # [B, H, W]
    inside = inside.unsqueeze(1)
    void = mask == VOID
    target = F.one_hot(mask.masked_fill(void, 0), CLASSES).permute(0, 3, 1, 2).float()
    target = target * ~void.unsqueeze(1)  # a void pixel asks for nothing
    return {
        "image": torch.where(inside, x[partner], own * x + other * x[partner]),
        "mask": torch.where(inside, target[partner], own * target + other * target[partner]),
    }


def plain_loss(net: nn.Module, mixed: Batch) -> Tensor:
    target = mixed["mask"]
    losses = -(WEIGHT.view(-1, 1, 1) * target * F.log_softmax(net(mixed["image"]), 1)).sum(1)
    return losses.sum() / (target.sum(1) > 0).sum()


def unmixed_loss(net: nn.Module, batch: Batch) -> Tensor:
    losses = F.cross_entropy(
        net(batch["image"]), batch["mask"], WEIGHT, ignore_index=VOID, reduction="none"
    )
    return losses.sum() / (batch["mask"] != VOID).sum()  # the mean that the other ways take


# ------------------------------------------------------------------------------- network


class UNet(nn.Module):
    """[B, 3, H, W] to [B, K, H, W], at half the resolution inside."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, width, 2), block(width, width))
        self.down = nn.ModuleList([block(width, 2 * width, 2), block(2 * width, 3 * width, 2)])
        self.up = nn.ModuleList([block(5 * width, 2 * width), block(3 * width, width)])
        self.head = nn.Conv2d(width, 4 * CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        skipped = []
        for down in self.down:
            skipped.append(x)
            x = down(x)
        for up in self.up:
            x = up(torch.cat((F.interpolate(x, scale_factor=2), skipped.pop()), 1))
        return F.pixel_shuffle(self.head(x), 2)


def block(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


# ------------------------------------------------------------------------------- the example


def main(argv: list[str] | None = None, sizes: Sizes = DEFAULT) -> Result:
    args = common.parse(argv, "segmentation", str(__doc__), steps=350)
    kind = {"kinds": DIGITS, "most": 3}
    data = scenes(sizes.train, sizes.image, SIDES, args.seed, **kind)
    held_out = scenes(sizes.test, sizes.image, SIDES, args.seed + 1, held_out=True, **kind)
    order = torch.Generator().manual_seed(args.seed)

    def batches(count: int):
        for _ in range(count):
            rows = torch.randint(len(data), (sizes.batch,), generator=order)
            yield {"image": data.images[rows], "mask": data.maps[rows]}

    ways = make_ways(args.seed)
    agreement = agree(ways[1], ways[2], batches(sizes.compared))
    runs = [
        Run(way, common.seeded(args.seed, UNet), 6e-3, args.steps) for way in make_ways(args.seed)
    ]
    common.train(runs, batches(args.steps))
    predicted = {run.way.name: predict(run.net, held_out) for run in runs}
    scores = {name: mean_iou(maps, held_out.maps) for name, maps in predicted.items()}
    result = Result(agreement, runs, scores, args.out)
    common.report(result, "held-out mIoU", "plan, image and target of a batch")
    draw(result, data, held_out, predicted, args.seed)
    return result


def make_ways(seed: int) -> tuple[Way, Way, Way]:
    return (
        Way(NO_MIXING, lambda batch: batch, unmixed_loss),
        Way(PLAIN, partial(plain_mix, mixer(seed)), plain_loss),
        Way(OURS, mixer(seed), ours_loss),
    )


def agree(plain: Way, ours: Way, batches) -> Agreement:
    agreement = Agreement()
    for batch in batches:
        theirs, mixed = agreement.mix(plain, ours, batch)
        agreement.add("images", mixed["image"], theirs["image"])
        agreement.add("targets", mixed["mask"].dense(), theirs["mask"])
    return agreement


@torch.no_grad()
def predict(net: nn.Module, data: Scenes) -> Tensor:
    return torch.cat([net(x).argmax(1) for x in data.images.split(50)])


def mean_iou(predicted: Tensor, truth: Tensor) -> float:
    """The mean over classes of |both| / |either|, of all pixels that are not void."""
    seen = truth != VOID
    counts = torch.bincount(truth[seen] * CLASSES + predicted[seen], minlength=CLASSES**2)
    counts = counts.view(CLASSES, CLASSES).double()
    both = counts.diag()
    return (both / (counts.sum(0) + counts.sum(1) - both).clamp(min=1)).mean().item()


# ------------------------------------------------------------------------------- picture

COLOURS = torch.tensor(
    [[0.92, 0.93, 0.95], [0.12, 0.47, 0.71], [1.0, 0.5, 0.05]]
    + [[0.17, 0.63, 0.17], [0.84, 0.15, 0.16], [0.58, 0.4, 0.74]]
)


def coloured(maps: Tensor) -> Tensor:
    """[N, H, W, 3]: void is white."""
    return torch.cat((COLOURS, torch.ones(1 + VOID - CLASSES, 3)))[maps]


def draw(
    result: Result, data: Scenes, held_out: Scenes, predicted: dict[str, Tensor], seed: int
) -> None:
    count = min(8, len(data), len(held_out))
    made = common.figure(
        11, 11.4, "Segmentation: one plan mixes photographs and class maps",
        "Handwritten digits on photographs. A pixel of a mixed map has two labels with weights "
        "(colours blended here);\nvoid pixels (white) count nowhere.",
    )  # fmt: skip
    grid = made.add_gridspec(7, count, left=0.125, right=0.985, top=0.915, bottom=0.235,
                             wspace=0.06, hspace=0.06)  # fmt: skip
    draw_with = mixer(seed + 7, prob=1.0)
    batch = {"image": data.images[:count].clone(), "mask": data.maps[:count].clone()}
    mixed, plans = draw_with.with_plans(batch)
    shares = mixed["mask"].dense().permute(0, 2, 3, 1)
    blended = shares @ COLOURS + (1 - shares.sum(-1, keepdim=True))
    rows = {
        "image": data.images[:count].permute(0, 2, 3, 1),
        "mixed": mixed["image"].permute(0, 2, 3, 1),
        "its target": blended,
        "held out": held_out.images[:count].permute(0, 2, 3, 1),
        "truth": coloured(held_out.maps[:count]),
        "no mixing ": coloured(predicted[NO_MIXING][:count]),
        "fused_mixup ": coloured(predicted[OURS][:count]),
    }
    weights, boxes = plans["image"].weight.tolist(), plans["image"].box.tolist()
    for r, (name, images) in enumerate(rows.items()):
        for i, image in enumerate(images):
            axes = common.bare(made.add_subplot(grid[r, i]))
            axes.imshow(image.clamp(0, 1).numpy(), interpolation="nearest")
            if i == 0:
                axes.set_ylabel(name.strip(), rotation=0, ha="right", va="center", labelpad=8,
                                fontsize=11.5, color=INK, fontweight="bold")  # fmt: skip
            if name == "mixed":
                kind = "MixUp" if boxes[i][0] == boxes[i][2] else "CutMix"
                axes.text(2, 4, f"{kind} {weights[i][0]:.2f}", va="top", fontsize=8.5,
                          color="white", bbox={"color": "#00000099", "pad": 1.5})  # fmt: skip
    below = made.add_gridspec(1, 2, left=0.06, right=0.985, top=0.185, bottom=0.05, wspace=0.3)
    common.draw_losses(made.add_subplot(below[0, 0]), result.runs)
    title = f"Mean IoU on {len(held_out)} held-out scenes, {len(result.runs[0].losses)} steps"
    common.draw_scores(made.add_subplot(below[0, 1]), result.scores, title)
    common.save(made, Path(result.out))


if __name__ == "__main__":
    common.run(main)
