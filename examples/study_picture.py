"""The study's picture: accuracy, calibration, corrupted labels and FGSM, side by side."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from .common import figure
from .demo_picture import INK
from .study_report import accuracy, calibration_error, mean_and_spread, values
from .study_train import BOTH, CUTMIX, EPSILONS, MANIFOLD, METHODS, MIXUP, NONE

COLOURS = {
    NONE: "#8a8f98",
    MIXUP: "#1f4e9c",
    CUTMIX: "#c2571a",
    BOTH: "#3f8f4f",
    MANIFOLD: "#8e4a9e",
}
MARKERS = dict(zip(METHODS, "osD^v", strict=True))


def save(out: Path, results: dict[str, Any]) -> None:
    """Write the picture to ``out``."""
    line = (
        "Means and standard deviations over "
        f"{results['seeds']} seeds; images of writers that were not trained on."
    )
    made = figure(13, 7.2, "What mixing does to a small network on digits", line)
    grid = made.add_gridspec(
        2, 2, left=0.1, right=0.985, top=0.84, bottom=0.08, hspace=0.42, wspace=0.16
    )
    panels = [made.add_subplot(grid[i, j]) for i in range(2) for j in range(2)]
    corrupted = sorted({run["corrupted"] for run in results["runs"]})
    _bars(panels[0], results)
    shares = [100 * share for share in corrupted]
    for axes, measure in ((panels[1], calibration_error), (panels[2], accuracy)):
        factor = 100 if measure is accuracy else 1
        for method in METHODS:
            points = [
                mean_and_spread(values(results, method, share, measure)) for share in corrupted
            ]
            _line(axes, method, shares, points, factor)
        axes.set_xlabel("corrupted training labels, %")
        axes.set_xticks(shares)
    for method in METHODS:
        points = [
            mean_and_spread(values(results, method, 0.0, lambda run, i=i: run["under_attack"][i]))
            for i in range(len(EPSILONS))
        ]
        _line(panels[3], method, EPSILONS, points, 100)
    panels[3].set_xlabel("FGSM, ε of grey levels in [0, 1]")
    _finish(panels[0], "Accuracy, %: labels as they are")
    _finish(panels[1], "Calibration error (ECE, 15 bins): lower is better")
    _finish(panels[2], "Accuracy, %: labels corrupted")
    _finish(panels[3], "Accuracy, %: under attack")
    panels[2].legend(frameon=False, fontsize=9.5, loc="lower left")
    _write(made, out)


def _bars(axes: Axes, results: dict[str, Any]) -> None:
    """A point for each seed beside mean and deviation: the differences are small."""
    for row, method in enumerate(METHODS):
        seeds = [100 * value for value in values(results, method, 0.0, accuracy)]
        mean, spread = mean_and_spread(seeds)
        style = {"color": COLOURS[method], "marker": MARKERS[method]}
        axes.errorbar(mean, row, xerr=spread, capsize=4, ms=7, lw=1.8, **style)
        above = [row - 0.24] * len(seeds)
        axes.plot(seeds, above, ls="", marker=".", color=COLOURS[method], alpha=0.6)
        axes.text(mean, row + 0.36, f"{mean:.1f}", ha="center", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(METHODS)), METHODS)
    axes.set_ylim(len(METHODS) - 0.4, -0.6)


def _line(axes: Axes, method: str, xs: Any, points: list[tuple[float, float]], factor: int) -> None:
    means, spreads = ([factor * value for value in column] for column in zip(*points, strict=True))
    style = {"color": COLOURS[method], "marker": MARKERS[method], "label": method}
    axes.errorbar(xs, means, yerr=spreads, capsize=3, ms=5, lw=1.6, elinewidth=1, **style)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, color=INK)
    axes.grid(color="#e4e6ea")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _write(made: Figure, out: Path) -> None:
    """A PNG of 64 colours, a third of the size."""
    whole = io.BytesIO()
    made.savefig(whole, format="png")
    Image.open(whole).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(out, optimize=True)
