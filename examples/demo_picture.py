"""The demo's picture: original and mixed images with their soft labels, and training curves."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

import fused_mixup
from fused_mixup import MixedTarget, MixPlan

from .demo_data import DIGIT_NAMES, PHOTO_NAMES, one_of_each_digit, photo_crops
from .demo_recipe import EAGER, FUSED, NO_MIXING
from .demo_train import Run

SIZE = 160  # pixels of a shown image, the unit of its plan's boxes
SHOWN_DIGITS = [3, 5, 2, 0, 8, 6]  # first and last are partners, and so on inwards
LAMS = (0.7, 0.55, 0.4)  # one per column, from the outside to the middle
# Our thin line is drawn over the broad eager line, as the two coincide.
STYLES = {
    NO_MIXING.name: {"color": "#8a8f98", "lw": 1.8},
    EAGER.name: {"color": "#f3b562", "lw": 5.0},
    FUSED.name: {"color": "#1f4e9c", "lw": 1.4},
}
INK = "#22262e"


@dataclass
class Group:
    """A batch to show, mixed three ways, and the soft label of every image."""

    rows: list[Tensor]  # original, MixUp, CutMix: each [n, 3, SIZE, SIZE] in [0, 1]
    labels: list[list[str]]


def mixed_group(images: Tensor, labels: Tensor, names: tuple[str, ...], seed: int) -> Group:
    """Mix ``images`` with one λ and one box per sample; labels come from the same plans."""
    n, rng = len(images), random.Random(seed)
    lams = [LAMS[min(i, n - 1 - i)] for i in range(n)]
    # Centres stay in the middle half, so that a box shows part of the pasted image.
    centers = [[rng.randrange(SIZE // 4, 3 * SIZE // 4) for _ in range(2)] for _ in range(n)]
    pairs = [
        fused_mixup.cutmix_box((SIZE, SIZE), lam, c) for lam, c in zip(lams, centers, strict=True)
    ]
    boxes, areas = [box for box, _ in pairs], [lam for _, lam in pairs]
    plans = [
        MixPlan.identity(n),
        MixPlan.per_sample(torch.tensor(lams), "flip"),
        MixPlan.per_sample(torch.tensor(areas), "flip", torch.tensor(boxes)),
    ]
    rows, texts = [], []
    for plan in plans:
        rows.append(fused_mixup.mix(images, plan))
        dense = MixedTarget.from_labels(labels, plan, len(names)).dense()
        texts.append([soft_label(row, names) for row in dense])
    return Group(rows, texts)


def soft_label(row: Tensor, names: tuple[str, ...]) -> str:
    """``"0.70 three + 0.30 eight"``, the larger share first; one name alone if its share is one."""
    shares = [(row[i].item(), names[i]) for i in row.argsort(descending=True) if row[i] > 0]
    if len(shares) == 1:
        return shares[0][1]
    return "\n+ ".join(f"{share:.2f} {name}" for share, name in shares)


def save(out: Path, runs: list[Run], seed: int) -> None:
    """Write the picture to ``out``."""
    digits, digit_labels = one_of_each_digit(SHOWN_DIGITS, SIZE)
    photos, photo_labels = photo_crops(SIZE)
    groups = [
        mixed_group(digits, digit_labels, DIGIT_NAMES, seed),
        mixed_group(photos, photo_labels, PHOTO_NAMES, seed + 1),
    ]
    figure = Figure(figsize=(15, 10.4), dpi=100, facecolor="white")
    figure.suptitle(
        "Two batches mixed by fused_mixup, and three trainings of one network",
        x=0.03, y=0.975, ha="left", fontsize=18, fontweight="bold", color=INK,
    )  # fmt: skip
    figure.text(
        0.03, 0.925,
        "Each image is mixed with its mirror partner (first with last) in its batch: six digits; "
        "four crops of two photographs. Below each image: its soft label.",
        fontsize=11.5, color="#555b66",
    )  # fmt: skip
    _draw_images(figure, groups)
    _draw_curves(figure, runs)
    figure.savefig(out)


def _draw_images(figure: Figure, groups: list[Group]) -> None:
    widths = [1.0] * 6 + [0.18] + [1.0] * 4  # a gap between the batches
    grid = figure.add_gridspec(
        3, 11, left=0.085, right=0.985, top=0.905, bottom=0.415,
        width_ratios=widths, wspace=0.08, hspace=0.36,
    )  # fmt: skip
    for r, name in enumerate(("original", "MixUp", "CutMix")):
        first_column = 0
        for group in groups:
            for i, image in enumerate(group.rows[r]):
                axes = figure.add_subplot(grid[r, first_column + i])
                axes.imshow(image.permute(1, 2, 0).numpy())
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
                axes.set_xlabel(group.labels[r][i], fontsize=10.5, labelpad=4, color=INK)
                if first_column + i == 0:
                    axes.set_ylabel(
                        name, fontsize=14, fontweight="bold", color=INK,
                        rotation=0, ha="right", va="center", labelpad=10,
                    )  # fmt: skip
            first_column += len(group.rows[r]) + 1


def _draw_curves(figure: Figure, runs: list[Run]) -> None:
    grid = figure.add_gridspec(1, 2, left=0.06, right=0.985, top=0.3, bottom=0.065, wspace=0.13)
    loss, accuracy = (figure.add_subplot(grid[0, i]) for i in range(2))
    for run in runs:
        epochs = range(1, len(run.epoch_losses) + 1)
        # A single epoch is a point; a line would not be seen.
        style = STYLES[run.way.name] | {"marker": "o" if len(epochs) == 1 else ""}
        loss.plot(epochs, run.epoch_losses, label=run.way.name, **style)
        accuracy.plot(epochs, run.test_accuracy, label=run.way.name, **style)
    _finish(loss, "Training loss (higher for mixed labels, which are softer)")
    _finish(accuracy, "Accuracy on held-out digits (never mixed)")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    accuracy.set_ylim(top=1.0)
    accuracy.legend(frameon=False, loc="lower right", fontsize=11)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, color=INK)
    axes.set_xlabel("epoch", fontsize=11)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color="#e4e6ea")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
