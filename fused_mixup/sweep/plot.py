"""Accuracy and calibration error against α, with every run and the spread over seeds."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from .records import Record
from .summary import by_alpha, measured, spread

PANELS = (("val_accuracy", "validation accuracy"), ("val_ece", "calibration error (ECE)"))


def draw(records: Sequence[Record], path: Path, setting: str) -> bool:
    """Write the figure; False where matplotlib is not installed."""
    try:
        figures = importlib.import_module("matplotlib.figure")  # by name, as it is optional
    except ImportError:
        return False
    figure = figures.Figure(figsize=(9, 3.6), layout="constrained")
    groups = by_alpha(records)
    for axes, (name, title) in zip(figure.subplots(1, 2), PANELS, strict=True):
        # Evenly spaced: 0 has no place on a logarithmic axis.
        axes.set_xticks(range(len(groups)), [f"{a:g}" if a else "none" for a in groups])
        axes.set_xlabel(setting)
        axes.set_title(title)
        axes.grid(axis="y", alpha=0.3)
        for place, runs in enumerate(groups.values()):
            values = measured(runs, name)
            found = spread(values)
            if found is None:
                continue
            axes.plot([place] * len(values), values, ".", color="0.6", zorder=1)
            axes.errorbar(
                place, found.mean, found.deviation, fmt="o", color="C0", capsize=4, zorder=2
            )
            if place == 0:
                axes.axhline(found.mean, linestyle="--", linewidth=1, color="C1", zorder=0)
    figure.savefig(path, dpi=150)
    return True
