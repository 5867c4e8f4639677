"""What the examples of segmentation, detection and audio share: options, ways, training, a report.

A way is two functions: ``mix(batch)`` gives the mixed batch, ``loss(net, mixed)`` the loss. An
example has three (no mixing, plain PyTorch, fused_mixup), which differ in nothing else: batches,
plans, first weights and optimizer are the same.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from .demo_picture import INK
from .demo_train import Stopwatch

NO_MIXING, PLAIN, OURS = "no mixing", "plain PyTorch", "fused_mixup"
# Our thin line is drawn over the broad plain line, as the two coincide.
STYLES = {
    NO_MIXING: {"color": "#8a8f98", "lw": 1.8},
    PLAIN: {"color": "#f3b562", "lw": 5.0},
    OURS: {"color": "#1f4e9c", "lw": 1.4},
}

Batch = dict[str, Any]


class Way(NamedTuple):
    name: str
    mix: Callable[[Batch], Batch]  # may write to the batch
    loss: Callable[[nn.Module, Batch], Tensor]


class Run:
    """One training: a network, its optimizer, its losses, and the time that mixing takes."""

    def __init__(self, way: Way, net: nn.Module, lr: float, steps: int) -> None:
        self.way, self.net = way, net
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.02)
        self.rate = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, lr, total_steps=steps)
        self.watch = Stopwatch(torch.device("cpu"))
        self.losses: list[float] = []

    def step(self, batch: Batch) -> None:
        with self.watch("mixing"):
            mixed = self.way.mix(batch)
        with self.watch("the rest"):
            loss = self.way.loss(self.net, mixed)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.rate.step()
        self.losses.append(loss.item())


def train(runs: list[Run], batches: Iterable[Batch]) -> None:
    """Trains all runs, alternating by step, so that a busy machine slows all of them alike."""
    for batch in batches:
        for run in runs:
            run.step(copied(batch))
    for run in runs:
        run.net.eval()


def copied(batch: Batch) -> Batch:
    """The batch with tensors of its own: mixing writes them in place."""
    return {
        key: [t.clone() for t in value] if isinstance(value, list) else value.clone()
        for key, value in batch.items()
    }


@dataclass
class Agreement:
    """Both ways on the same batches and draws: where they differ at most, and their times."""

    differences: dict[str, float] = field(default_factory=dict)  # of each part of a mixed batch
    watch: Stopwatch = field(default_factory=lambda: Stopwatch(torch.device("cpu")))

    def add(self, part: str, ours: Tensor, plain: Tensor) -> None:
        if ours.shape != plain.shape:
            raise AssertionError(f"{part}: {list(ours.shape)} and {list(plain.shape)}")
        apart = (ours.double() - plain.double()).abs().max().item() if ours.numel() else 0.0
        self.differences[part] = max(self.differences.get(part, 0.0), apart)

    def mix(self, plain: Way, ours: Way, batch: Batch) -> tuple[Batch, Batch]:
        """(plain, ours): two copies of the batch, mixed and timed."""
        copies = copied(batch), copied(batch)
        with self.watch(PLAIN):
            mixed = plain.mix(copies[0])
        with self.watch(OURS):
            return mixed, ours.mix(copies[1])


@dataclass
class Result:
    """What an example found, which the test checks."""

    agreement: Agreement
    runs: list[Run]
    scores: dict[str, float]
    out: Path

    @property
    def first_losses(self) -> dict[str, float]:
        return {run.way.name: run.losses[0] for run in self.runs}


def parse(argv: list[str] | None, name: str, doc: str, steps: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=doc)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--steps", type=int, default=steps, help="of each training")
    parser.add_argument("--out", type=Path, default=Path("build", f"{name}.png"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.steps < 2:
        parser.error(f"--steps: expected at least 2, got {args.steps}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    return args


def run(main: Callable[[], Any]) -> None:
    """Runs an example as a program, on all cores that it may use."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    start = time.perf_counter()
    main()
    print(f"all: {time.perf_counter() - start:.0f} s on {torch.get_num_threads()} threads")


def seeded(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """A network with the same first weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


# ------------------------------------------------------------------------------- the report


def report(result: Result, score: str, compared: str) -> None:
    """Prints agreement, times and scores. ``compared`` says what the times are of."""
    agreement, first = result.agreement, result.first_losses
    print("largest difference between plain PyTorch and fused_mixup, same batches and draws:")
    for part, apart in agreement.differences.items():
        print(f"  {part:<24}{'equal bit for bit' if apart == 0 else f'{apart:.1e}'}")
    print(f"  {'loss of the first step':<24}{abs(first[OURS] - first[PLAIN]):.1e}")
    plain, ours = (1e3 * agreement.watch.fastest(name) for name in (PLAIN, OURS))
    print(f"{compared} (fastest of {len(agreement.watch.seconds[OURS])}):")
    print(f"  plain {plain:.2f} ms, fused_mixup {ours:.2f} ms, {plain / ours:.1f}x")
    print(
        f"{'after ' + str(len(result.runs[0].losses)) + ' steps':<20}{score:>16}{'ms a step':>12}"
    )
    for run in result.runs:
        step = 1e3 * (run.watch.median("mixing") + run.watch.median("the rest"))
        print(f"  {run.way.name:<18}{result.scores[run.way.name]:>17.1%}{step:>12.1f}")
    print(f"picture: {result.out}")


# ------------------------------------------------------------------------------- pictures


def figure(width: float, height: float, title: str, line: str) -> Figure:
    made = Figure(figsize=(width, height), dpi=100, facecolor="white")
    made.suptitle(title, x=0.02, y=0.985, va="top", ha="left", fontsize=16, fontweight="bold")
    made.text(0.02, 1 - 0.52 / height, line, va="top", fontsize=10.5, color="#555b66")
    return made


def bare(axes: Axes, title: str = "", label: str = "") -> Axes:
    """Axes for an image: no ticks, no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10.5, color=INK, pad=4)
    axes.set_ylabel(label, fontsize=11.5, color=INK, fontweight="bold")
    return axes


def draw_losses(axes: Axes, runs: list[Run], window: int = 15) -> None:
    """The loss of each run, as the mean of the last steps."""
    for run in runs:
        losses = torch.tensor(run.losses)
        window = min(window, len(losses))
        axes.plot(losses.unfold(0, window, 1).mean(1), label=run.way.name, **STYLES[run.way.name])
    axes.set_title("Training loss (higher where labels are mixed)", loc="left", fontsize=11)
    _finish(axes)
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=10)


def draw_scores(axes: Axes, scores: dict[str, float], title: str) -> None:
    colours = [STYLES[name]["color"] for name in scores]
    bars = axes.barh(list(scores), list(scores.values()), color=colours, height=0.62)
    axes.bar_label(bars, [f"{value:.1%}" for value in scores.values()], padding=4, fontsize=11)
    axes.set_xlim(0, 1.18 * max([*scores.values(), 0.01]))
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=11)
    _finish(axes)
    axes.set_xticks([])


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e6ea")
    axes.set_axisbelow(True)


def save(made: Figure, out: Path) -> None:
    options = {"quality": 82} if out.suffix in (".jpg", ".jpeg") else {}
    made.savefig(out, pil_kwargs=options)
