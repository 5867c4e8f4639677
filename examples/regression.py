"""Regression on a table with MixUp and C-Mixup: columns and real-valued labels are blended.

    python -m examples.regression [--steps 300] [--seed 0] [--out build/regression.png]

A small network learns how far diabetes has progressed, from nine measurements and one category of
442 patients (ships with scikit-learn); a third of them test it. Five splits, each with five
trainings that differ in mixing alone: none; MixUp and C-Mixup, each in plain PyTorch and with
fused_mixup. Their draws are their own, so that they agree within the spread over splits.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see demo.py

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

from fused_mixup import draw_plan, mix_labels, plan_state
from fused_mixup.tables import draw_neighbors, mix_table

from . import common
from .common import NO_MIXING, OURS, PLAIN

MIXUP, C_MIXUP = "MixUp", "C-Mixup"
ALPHA = 2.0  # of the paper of C-Mixup
BANDWIDTH = 0.5  # in standard deviations of the label
SEX = 1  # the column that is a category


class Sizes(NamedTuple):
    """Sizes that are no options; the test makes them smaller."""

    batch: int = 64
    splits: int = 5
    width: int = 64


DEFAULT = Sizes()


class Table(NamedTuple):
    numeric: Tensor  # float32 [N, 9]
    categories: Tensor  # int64 [N, 1]
    labels: Tensor  # float32 [N], in standard deviations of the training labels
    unit: float  # what one of these is


class Net(nn.Module):
    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Embedding(2, 2)])
        layers = [nn.Linear(columns + 2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)[:, 0]


# A way gives the mixed rows [B, columns] and labels [B].
Mix = Callable[[Net, Table], tuple[Tensor, Tensor]]


def no_mixing(net: Net, batch: Table) -> tuple[Tensor, Tensor]:
    return mix_table(batch.numeric, batch.categories, net.embeddings, None), batch.labels


# ------------------------------------------------------------------------------- fused_mixup


def ours(name: str, seed: int) -> Mix:
    state = plan_state(seed)

    def mix(net: Net, batch: Table) -> tuple[Tensor, Tensor]:
        pairing: str | Tensor = "shuffle"
        if name == C_MIXUP:
            pairing = draw_neighbors(batch.labels, BANDWIDTH, state=state)
        plan = draw_plan(len(batch.labels), state=state, mixup_alpha=ALPHA, pairing=pairing)
        rows = mix_table(batch.numeric, batch.categories, net.embeddings, plan)
        return rows, mix_labels(batch.labels, plan)

    return mix


# ------------------------------------------------------------------------------- plain PyTorch


def plain(name: str, seed: int) -> Mix:
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)

    def mix(net: Net, batch: Table) -> tuple[Tensor, Tensor]:
        labels = batch.labels
        if name == C_MIXUP:
            gap = labels[:, None] - labels
            density = torch.exp(-gap.square() / (2 * BANDWIDTH**2))
            partner = torch.multinomial(density, 1, generator=generator)[:, 0]
        else:
            partner = torch.randperm(len(labels), generator=generator)
        lam = rng.beta(ALPHA, ALPHA)
        embedded = [e(c) for e, c in zip(net.embeddings, batch.categories.unbind(1), strict=True)]
        rows = torch.cat([batch.numeric, *embedded], 1)
        mixed = lam * rows + (1 - lam) * rows[partner]
        return mixed, lam * labels + (1 - lam) * labels[partner]

    return mix


# ------------------------------------------------------------------------------- training


def split(seed: int) -> tuple[Table, Table]:
    """Training and test rows; columns and labels are scaled by the training rows."""
    data = load_diabetes(scaled=False)
    x, y = torch.tensor(data.data).float(), torch.tensor(data.target).float()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    train, test = order[len(y) // 3 :], order[: len(y) // 3]
    numeric = torch.cat([x[:, :SEX], x[:, SEX + 1 :]], 1)
    categories = (x[:, SEX : SEX + 1] > 1).long()
    mean, deviation = numeric[train].mean(0), numeric[train].std(0)
    unit = y[train].std().item()
    numeric, labels = (numeric - mean) / deviation, (y - y[train].mean()) / unit
    tables = [Table(numeric[rows], categories[rows], labels[rows], unit) for rows in (train, test)]
    return tables[0], tables[1]


def train(mix: Mix, train: Table, test: Table, seed: int, steps: int, sizes: Sizes) -> list[float]:
    """The root of the mean squared error on the test rows, and the fastest mixing in ms."""
    net = common.seeded(seed, lambda: Net(train.numeric.shape[1], sizes.width))
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    generator, fastest = torch.Generator().manual_seed(seed), float("inf")
    for _ in range(steps):
        rows = torch.randperm(len(train.labels), generator=generator)[: sizes.batch]
        batch = Table(*(column[rows] for column in train[:3]), train.unit)
        start = time.perf_counter()
        mixed, labels = mix(net, batch)
        fastest = min(fastest, time.perf_counter() - start)
        loss = (net(mixed) - labels).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    with torch.no_grad():
        error = (net(no_mixing(net, test)[0]) - test.labels).square().mean().sqrt()
    return [float(error) * train.unit, 1e3 * fastest]


def ways(seed: int) -> dict[tuple[str, str], Mix]:
    made: dict[tuple[str, str], Mix] = {(NO_MIXING, ""): no_mixing}
    for name in (MIXUP, C_MIXUP):
        made[name, PLAIN] = plain(name, seed)
        made[name, OURS] = ours(name, seed)
    return made


Errors = dict[tuple[str, str], list[float]]


def report(errors: Errors, times: Errors) -> None:
    count = len(errors[NO_MIXING, ""])
    print(f"root of the mean squared error on held-out patients, mean ± spread of {count} splits;")
    print("the difference to no mixing, split by split; time of the fastest mixing:")
    baseline = errors[NO_MIXING, ""]
    for (name, by), values in errors.items():
        gain = [v - b for v, b in zip(values, baseline, strict=True)]
        spread = [statistics.stdev(v) if count > 1 else 0.0 for v in (values, gain)]
        line = f"  {name:<10}{by:<14}{statistics.mean(values):6.2f} ± {spread[0]:.2f}"
        line += f"   {statistics.mean(gain):+6.2f} ± {spread[1]:.2f}"
        print(line + f"{min(times[name, by]):9.3f} ms")


def draw(errors: Errors, args: argparse.Namespace) -> None:
    made = common.figure(8.2, 4.6, "Regression with mixed rows", "442 patients, scikit-learn")
    axes = made.add_axes((0.27, 0.14, 0.68, 0.62))
    for place, ((name, by), values) in enumerate(errors.items()):
        axes.barh(place, statistics.mean(values), color=common.STYLES[by or name]["color"])
        axes.plot(values, [place] * len(values), "o", color="#24292f", ms=3)
    axes.set_yticks(range(len(errors)), [f"{name} {by}".strip() for name, by in errors])
    axes.invert_yaxis()
    low = min(map(min, errors.values()))
    axes.set_xlim(0.9 * low, None)
    axes.set_xlabel("root of the mean squared error; dots are splits")
    axes.spines[["top", "right"]].set_visible(False)
    common.save(made, args.out)
    print(f"picture: {args.out}")


def main(argv: list[str] | None = None, sizes: Sizes = DEFAULT) -> Errors:
    args = common.parse(argv, "regression", __doc__, steps=300)
    errors: Errors = {}
    times: Errors = {}
    for seed in range(args.seed, args.seed + sizes.splits):
        rows, held_out = split(seed)
        for way, mix in ways(seed).items():
            error, ms = train(mix, rows, held_out, seed, args.steps, sizes)
            errors.setdefault(way, []).append(error)
            times.setdefault(way, []).append(ms)
    report(errors, times)
    draw(errors, args)
    return errors


if __name__ == "__main__":
    common.run(main)
