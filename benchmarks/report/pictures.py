"""Draws PNG plots of runs."""

from __future__ import annotations

import io
from collections.abc import Sequence

from ..goals import AT_MOST, judge
from ..registry import OURS
from ..results import bytes_moved
from .compare import Change

COLOURS = {OURS: "#0b6e4f", "floor": "#888888", "goal": "#c0392b"}
PEER_COLOURS = ("#e08e45", "#3d6fb4", "#8e5aa8", "#b9a23c")
PART_COLOURS = {"network": "#c9c9c9", "augmentation": "#e08e45", "loss": "#3d6fb4"}
LOADER_COLOURS = {"decode": "#c9c9c9", "augment": "#9fb4c7", "collate": "#e08e45"}
LOADER_COLOURS |= {"between processes": "#8e5aa8", "normalise": "#3d6fb4"}
INK = {"svg.hashsalt": "fused_mixup", "font.size": 9, "axes.spines.top": False}
INK["axes.spines.right"] = False
# Without dates and versions the same plot is the same file.
SAME_BYTES = {"Software": None, "Creation Time": None}


def _figure(width: float, height: float, columns: int = 1):
    import matplotlib

    matplotlib.use("Agg")  # no display
    import matplotlib.pyplot as plt

    with plt.rc_context(INK):
        return plt.subplots(1, columns, figsize=(width, height), squeeze=False)


def _png(figure) -> bytes:
    import matplotlib.pyplot as plt

    out = io.BytesIO()
    figure.tight_layout()
    figure.savefig(out, format="png", dpi=140, metadata=SAME_BYTES)
    plt.close(figure)
    return out.getvalue()


def _log_ticks(axis, values: list) -> None:
    """A logarithmic axis with these values written out, and no others."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    shown = [value for value in values if low <= value <= high]
    axis.set_xticks(shown, [f"{value:g}" for value in shown], fontsize=7)
    axis.minorticks_off()


def headline_bars(report: dict) -> list[tuple[str, float, float]]:
    """(case, times faster, goal) for each goal that names a peer."""
    return [
        (f"{goal['case']}\nagainst {part['against']}", part["got"], part["number"])
        for goal in judge(report)
        for part in goal["parts"]
        if part["got"] is not None and part["against"] not in (*AT_MOST, "floor")
    ]


def headline(report: dict) -> bytes | None:
    """A bar for each goal that names a peer, with the goal as a line."""
    bars = headline_bars(report)
    if not bars:
        return None
    figure, ((axis,),) = _figure(8.5, 0.9 + 0.48 * len(bars))
    names, values, wanted = zip(*reversed(bars), strict=True)
    axis.barh(range(len(bars)), values, 0.55, color=COLOURS[OURS])
    for y, (value, least) in enumerate(zip(values, wanted, strict=True)):
        axis.plot([least, least], [y - 0.4, y + 0.4], color=COLOURS["goal"], lw=1.6)
        axis.annotate(f" {value:.1f}×", (max(value, least), y), va="center", fontsize=8)
    axis.set_yticks(range(len(bars)), names, fontsize=7)
    _log_ticks(axis, [0.5, 1, 2, 5, 10, 20, 50, 100])
    axis.margins(x=0.12)
    axis.axvline(1, color=COLOURS["floor"], lw=0.8)
    axis.set_xlabel("times faster than the baseline (red: the goal)")
    return _png(figure)


def sweep_axes(report: dict) -> list[str]:
    return list(dict.fromkeys(row["sweep"][0] for row in report["results"] if row["sweep"]))


def sweeps(report: dict) -> bytes | None:
    """Time over each swept axis; a line shows the least time in which the bytes can move."""
    axes_names = sweep_axes(report)
    if not axes_names:
        return None
    figure, (axes,) = _figure(3.6 * len(axes_names), 3.3, len(axes_names))
    for axis, name in zip(axes, axes_names, strict=True):
        rows = [row for row in report["results"] if row["sweep"] and row["sweep"][0] == name]
        rows.sort(key=lambda row: row["sweep"][1])
        providers = dict.fromkeys(p for row in rows for p in row["providers"])
        others = iter(PEER_COLOURS)
        for provider in providers:
            points = [
                (row["sweep"][1], row["providers"][provider])
                for row in rows
                if provider in row["providers"]
            ]
            at = [value for value, _ in points]
            colour = COLOURS.get(provider) or next(others)
            axis.plot(at, [p["median_ms"] for _, p in points], "o-", color=colour, ms=3)
            axis.fill_between(
                at,
                [p["q25_ms"] for _, p in points],
                [p["q75_ms"] for _, p in points],
                color=colour,
                alpha=0.2,
                lw=0,
            )
            axis.lines[-1].set_label(provider)
        if report["copy_gb_per_s"]:
            values = [row["sweep"][1] for row in rows]
            least = [bytes_moved(row) / report["copy_gb_per_s"] / 1e6 for row in rows]
            axis.plot(values, least, "--", color=COLOURS["floor"], lw=1, label="copy floor")
        _log_ticks(axis, [row["sweep"][1] for row in rows])
        axis.set_yscale("log")
        axis.set_xlabel(name)
        axis.set_ylabel("ms")
        axis.set_title(rows[0]["op"], fontsize=8)
        axis.legend(fontsize=7, frameon=False)
    return _png(figure)


def _stack(report: dict, colours: dict[str, str], label: str) -> bytes | None:
    """A bar for each side of the cases that were measured in these parts."""
    bars = [
        (f"{row['variant']}, {name}", figures["parts_ms"])
        for row in report["results"]
        for name, figures in row["providers"].items()
        if figures.get("parts_ms", {}).keys() == colours.keys()
    ]
    if not bars:
        return None
    figure, ((axis,),) = _figure(7.5, 0.9 + 0.4 * len(bars))
    bars.reverse()
    left = [0.0] * len(bars)
    for part, colour in colours.items():
        widths = [parts[part] for _, parts in bars]
        axis.barh(range(len(bars)), widths, 0.6, left=left, color=colour, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.set_yticks(range(len(bars)), [name for name, _ in bars])
    axis.set_xlabel(label)
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    return _png(figure)


def steps(report: dict) -> bytes | None:
    """A training step in parts, one bar for each network and side."""
    return _stack(report, PART_COLOURS, "ms of a training step")


def loaders(report: dict) -> bytes | None:
    """A batch from JPEG files to the model's input in parts, one bar for each side."""
    return _stack(report, LOADER_COLOURS, "ms of CPU for a batch, all processes together")


def changes(found: Sequence[Change], threshold: float) -> bytes | None:
    """Our time in the second run over the first; changes count beyond the dashed lines."""
    if not found:
        return None
    figure, ((axis,),) = _figure(8.5, 0.9 + 0.28 * len(found))
    ordered = list(reversed(found))
    for y, change in enumerate(ordered):
        colour = {"slower": COLOURS["goal"], "faster": COLOURS[OURS]}.get(change.verdict, "#888888")
        axis.plot([change.low, change.high], [y, y], color=colour, lw=1.5)
        axis.plot([change.ratio], [y], "o", color=colour, ms=4)
    axis.axvline(1, color="black", lw=0.8)
    for line in (1 + threshold, 1 / (1 + threshold)):
        axis.axvline(line, color=COLOURS["floor"], lw=1, ls="--")
    axis.set_yticks(range(len(ordered)), [change.case for change in ordered], fontsize=7)
    axis.set_xscale("log")
    axis.set_xlabel("time of the second run / time of the first (dashed: significance)")
    return _png(figure)
