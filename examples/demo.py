"""Train on real images three times, with the same seed: no mixing, eager mixing, fused_mixup.

    python -m examples.demo [--epochs 30] [--device cuda] [--out demo.png] [--seed 0]

It prints a table (accuracy, calibration, time spent in mixing and in the loss, agreement) and
writes a picture of mixed images and training curves. Needs no network; takes about a minute.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    # PyTorch reads this when it loads; waiting threads then sleep and do not spin. Where programs
    # share the cores, a spinning thread blocks the thread it waits for (3x slower and more).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tqdm import tqdm

from fused_mixup import backends

from . import demo_picture
from .demo_data import digits
from .demo_recipe import EAGER, FUSED, LABEL_SMOOTHING, NO_MIXING, Draw
from .demo_train import Run, Stopwatch, agreement, calibration_error, schedule

CHECKED_EPOCHS = 5  # agreement() repeats the draws of these epochs


@dataclass(frozen=True)
class Sizes:
    """Sizes that are no options; the test makes them smaller."""

    image: int = 96
    batch: int = 128
    samples: int | None = None  # all digits
    large_images: tuple[int, ...] = (64, 3, 224, 224)
    large_classes: int = 21843
    repeats: int = 15


@dataclass
class Result:
    """Results of :func:`main`, which the test checks."""

    runs: list[Run]
    images_equal: bool
    same_logits_difference: float
    lines: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None, sizes: Sizes = Sizes()) -> Result:
    args = parse(argv)
    start = time.perf_counter()
    device = torch.device(args.device)
    data = digits(sizes.image, device, sizes.samples)
    print(environment_line(device))
    print(
        f"data: {len(data.train_labels)} digits to train, {len(data.test_labels)} of other "
        f"writers to test, {sizes.image}x{sizes.image}, batches of {sizes.batch}, "
        f"{args.epochs} epochs, seed {args.seed}",
        flush=True,
    )
    epochs = schedule(len(data.train_labels), sizes.batch, args.epochs, sizes.image, args.seed)
    runs = train(data, epochs, args.seed)
    checked = [step for epoch in epochs[:CHECKED_EPOCHS] for step in epoch]
    result = Result(runs, *agreement(runs[-1].net, data, checked))
    result.lines += table(runs) + agreement_lines(result, len(epochs[0]))
    result.lines += large_step_lines(device, sizes)
    demo_picture.save(args.out, runs, args.seed)
    result.lines.append(
        f"\npicture: {args.out}    the whole demo: {time.perf_counter() - start:.0f} s"
    )
    print("\n".join(result.lines))
    return result


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--device", default=gpu)
    parser.add_argument("--out", type=Path, default=Path("demo.png"))
    parser.add_argument("--seed", type=int, default=0)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    args = parser.parse_args(argv)
    if args.epochs < 1:
        parser.error(f"--epochs: expected at least 1, got {args.epochs}")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device: PyTorch sees no GPU here; use --device cpu")
    return args


def environment_line(device: torch.device) -> str:
    """The line that names device, threads, PyTorch and backend."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    key = device.type.upper()
    backend = backends.chosen(key) if key in backends.DEVICES else "reference"
    return (
        f"device: {name}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}; "
        f"fused_mixup backend: {backend}"
    )


def train(data, epochs, seed: int) -> list[Run]:
    """Trains three runs, alternating by epoch, so that a busy machine slows all of them alike."""
    total_steps = sum(len(steps) for steps in epochs)
    ways = (NO_MIXING, EAGER, FUSED)
    for way in ways:  # warm up: thread pools, tables, kernels
        Run(way, data, seed, total_steps).epoch(epochs[0])
    runs = [Run(way, data, seed, total_steps) for way in ways]
    # Deterministic convolutions on a GPU: runs then differ by mixing and loss alone.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    # disable=None: silent where the error output is no terminal.
    with (
        exact,
        tqdm(total=len(epochs) * len(runs), unit="epoch", mininterval=0.5, disable=None) as bar,
    ):
        for steps in epochs:
            for run in runs:
                bar.set_description(f"{run.way.name:>13}", refresh=False)
                run.epoch(steps)
                bar.set_postfix_str(f"accuracy {run.test_accuracy[-1]:.3f}", refresh=False)
                bar.update()
    return runs


# ------------------------------------------------------------------------------- printed lines


def table(runs: list[Run]) -> list[str]:
    rows = [(run, run.watch) for run in runs]
    lines = [
        "",
        f"{'':<16}{'test':>9}{'calibr.':>9} | {'ms per step (median)':^27} | {'s in all':^26}",
        f"{'':<16}{'accuracy':>9}{'error':>9} | {'MixUp':>8}{'CutMix':>8}{'loss':>11} | "
        f"{'mixing':>8}{'loss':>8}{'training':>10}",
    ]
    for run, watch in rows:
        error = calibration_error(run.probabilities(), run.data.test_labels)
        mixes = run.way is not NO_MIXING
        steps = [
            f"{1e3 * watch.median(kind):.3f}" if mixes else "-" for kind in ("MixUp", "CutMix")
        ]
        mixing = f"{watch.total('MixUp', 'CutMix'):.2f}" if mixes else "-"
        lines.append(
            f"{run.way.name:<16}{run.test_accuracy[-1]:>9.1%}{error:>9.3f} | "
            f"{steps[0]:>8}{steps[1]:>8}{1e3 * watch.median('loss'):>11.3f} | "
            f"{mixing:>8}{watch.total('loss'):>8.2f}{watch.total('training'):>10.1f}"
        )
    eager, fused = runs[1].watch, runs[2].watch
    medians = [
        _ratio(eager.median(part), fused.median(part)) for part in ("MixUp", "CutMix", "loss")
    ]
    totals = [
        _ratio(eager.total(*parts), fused.total(*parts))
        for parts in (("MixUp", "CutMix"), ("loss",), ("training",))
    ]
    lines.append(
        f"{'eager / fused':<34} | {medians[0]:>8}{medians[1]:>8}{medians[2]:>11} | "
        f"{totals[0]:>8}{totals[1]:>8}{totals[2]:>10}"
    )
    tested = len(runs[0].data.test_labels)
    lines += [
        f"  accuracy, calibration (15 bins): {tested} test images and one seed, so a point of",
        "    accuracy is within chance. On so easy a set, mixed and smoothed labels make a network",
        "    less confident than accurate, which raises the calibration error.",
        f"  loss: target (smoothing {LABEL_SMOOTHING}), loss, and gradient at the logits; without "
        "mixing F.cross_entropy.",
        "    With ten classes the cost is that of calls, not of arithmetic: see the large step.",
    ]
    return lines


def agreement_lines(result: Result, first: int) -> list[str]:
    eager, fused = (run.step_losses for run in result.runs[1:])
    apart = [abs(a - b) for a, b in zip(eager, fused, strict=True)]
    checked = min(len(apart), CHECKED_EPOCHS * first)
    return [
        "",
        "agreement of eager and fused_mixup (same batches, same draws)",
        f"  mixed images, {checked} batches:  "
        + ("equal bit for bit" if result.images_equal else "NOT EQUAL"),
        "  largest difference between the two losses of a step",
        f"    on the same logits, those {checked} batches:  {result.same_logits_difference:.1e}",
        f"    as trained, each with its own network:  {max(apart[:first]):.1e} in the first epoch, "
        f"{max(apart):.1e} in all {len(apart)} steps",
        "      (roundings of the last bit grow over the steps, as in any training)",
    ]


def large_step_lines(device: torch.device, sizes: Sizes) -> list[str]:
    """Times eager and fused functions on random data of the size of an ImageNet-21k step."""
    rng = random.Random(0)
    x = torch.rand(sizes.large_images, device=device)
    draws = {"MixUp": Draw(0.7, None), "CutMix": Draw(0.75, _middle(x.shape[-2:]))}
    batch, classes = len(x), sizes.large_classes
    labels = torch.tensor([rng.randrange(classes) for _ in range(batch)], device=device)
    logits = torch.randn(batch, classes, device=device)
    watches = {way: Stopwatch(device) for way in (EAGER, FUSED)}
    for _ in range(sizes.repeats):
        for way, watch in watches.items():  # alternating, as in training
            for kind, drawn in draws.items():
                with watch(kind):
                    mixed = way.mix(x, drawn)
            leaf = logits.detach().requires_grad_()
            with watch("loss"):
                way.loss(leaf, labels, mixed, classes).backward()
    eager, fused = watches.values()
    images = list(x.shape)
    shapes = {"MixUp": images, "CutMix": images, "loss": [batch, classes]}
    lines = ["", f"the same lines on random data of a large step (fastest of {sizes.repeats})"]
    for part in ("MixUp", "CutMix", "loss"):
        a, b = eager.fastest(part), fused.fastest(part)
        lines.append(
            f"  {part:<8}{shapes[part]!s:<20} eager {1e3 * a:>8.2f} ms   "
            f"fused {1e3 * b:>8.2f} ms   {_ratio(a, b):>6}"
        )
    return lines


def _middle(spatial: tuple[int, ...]) -> tuple[int, ...]:
    """The box of half the height and width in the middle: a quarter of the image."""
    return (*(n // 4 for n in spatial), *(3 * n // 4 for n in spatial))


def _ratio(eager: float, fused: float) -> str:
    return f"{eager / fused:.1f}x" if fused else "-"


if __name__ == "__main__":
    main()
