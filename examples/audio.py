"""Audio with MixUp and CutMix: waveforms are blended, or a span of time is pasted.

    python -m examples.audio [--steps 150] [--seed 0] [--out build/audio.png]

A small network on log-mel spectrograms learns the kind of drum from recordings, about 90 in each of
three folds; the other recordings test it. It is trained three times in each fold, which differ in
mixing alone: none, plain PyTorch, fused_mixup. Needs no network; takes less than a minute.
"""

from __future__ import annotations

import math
import os
from functools import partial
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
from .drums import KINDS, RATE, recordings

CLASSES = len(KINDS)
LENGTH = 8192  # samples, half a second


class Sizes(NamedTuple):
    """Sizes that are no options; the test makes them smaller."""

    batch: int = 32
    folds: int = 3
    compared: int = 40  # batches


DEFAULT = Sizes()


def mixer(seed: int, prob: float = 0.5) -> BatchMix:
    return BatchMix(
        num_classes=CLASSES,
        mixup_alpha=0.4,
        cutmix_alpha=1.0,
        switch_prob=0.3,  # of CutMix: drums begin with a stroke, and end in silence
        prob=prob,  # half of the samples stay as they are: the training is short
        per="sample",
        kinds={"wave": "audio"},  # "audio", "waveform" and the like need not be said
        seed=seed,
    )


# ------------------------------------------------------------------------------- fused_mixup


def ours_loss(net: nn.Module, mixed: Batch) -> Tensor:
    """``mixed = mixer(batch)``: "label" [B] has become a MixedTarget."""
    return soft_target_cross_entropy(net(mixed["wave"]), mixed["label"])


# ------------------------------------------------------------------------------- plain PyTorch


def plain_mix(draw: BatchMix, batch: Batch) -> Batch:
    """The same draws by plain PyTorch: a dense target [B, K]."""
    wave, label = batch["wave"], batch["label"]
    plan = draw.draw(len(wave), wave.shape[1:])
    partner = plan.partner.long()
    own, other = plan.blend.float().view(-1, 2, 1).unbind(1)
    start, stop = plan.box.view(-1, 2, 1).unbind(1)
    time = torch.arange(wave.shape[1])
    inside = (time >= start) & (time < stop)  # [B, T]
    target = F.one_hot(label, CLASSES).float()
    w_own, w_other = plan.weight.view(-1, 2, 1).unbind(1)
    return {
        "wave": torch.where(inside, wave[partner], own * wave + other * wave[partner]),
        "label": w_own * target + w_other * target[partner],
    }


def plain_loss(net: nn.Module, mixed: Batch) -> Tensor:
    return -(mixed["label"] * F.log_softmax(net(mixed["wave"]), 1)).sum(1).mean()


def unmixed_loss(net: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(net(batch["wave"]), batch["label"])


# ------------------------------------------------------------------------------- network


class LogMel(nn.Module):
    """[B, T] to [B, 1, bands, T / 160]: waves are mixed first, so this comes after."""

    def __init__(self, bands: int = 40, window: int = 512, hop: int = 160) -> None:
        super().__init__()
        self.window, self.hop = window, hop
        self.register_buffer("hann", torch.hann_window(window))
        self.register_buffer("filters", mel_filters(bands, window // 2 + 1))

    def forward(self, wave: Tensor) -> Tensor:
        bins = torch.stft(wave, self.window, self.hop, window=self.hann, return_complex=True)
        power = bins.real.square() + bins.imag.square()
        return ((self.filters @ power + 1e-4).log()[:, None] + 2) / 4  # about zero mean


def mel_filters(bands: int, bins: int) -> Tensor:
    """[bands, bins]: triangles whose corners are equally far apart on the mel scale."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    mel = torch.linspace(2595 * math.log10(1 + 40 / 700), top, bands + 2)
    corners = 700 * (10 ** (mel / 2595) - 1)
    at = torch.linspace(0, RATE / 2, bins)
    low, middle, high = (corners[i : bands + i, None] for i in range(3))
    return torch.minimum((at - low) / (middle - low), (high - at) / (high - middle)).clamp(min=0)


def network() -> nn.Module:
    layers: list[nn.Module] = [LogMel()]
    for c_in, c_out in ((1, 12), (12, 24), (24, 48)):
        conv = nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False)
        layers += [conv, nn.BatchNorm2d(c_out), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d((4, 1)), nn.Flatten(), nn.Linear(48 * 4, CLASSES)]
    return nn.Sequential(*layers)


# ------------------------------------------------------------------------------- the example


def main(argv: list[str] | None = None, sizes: Sizes = DEFAULT) -> Result:
    args = common.parse(argv, "audio", str(__doc__), steps=150)
    waves, labels = recordings(LENGTH)
    order = torch.Generator().manual_seed(args.seed)

    def batches(rows: Tensor, count: int):
        for _ in range(count):
            at = rows[torch.randint(len(rows), (sizes.batch,), generator=order)]
            yield {"wave": shifted(waves[at], order), "label": labels[at]}

    ways = make_ways(args.seed)
    everything = torch.arange(len(labels))
    agreement = agree(ways[1], ways[2], batches(everything, sizes.compared))
    hits = {way.name: 0 for way in ways}
    runs: list[Run] = []
    for fold in range(sizes.folds):
        held_out = everything % sizes.folds == fold
        runs = [
            Run(way, common.seeded(args.seed + fold, network), 5e-3, args.steps)
            for way in make_ways(args.seed + fold)
        ]
        common.train(runs, batches(everything[~held_out], args.steps))
        for run in runs:
            with torch.no_grad():
                right = run.net(waves[held_out]).argmax(1) == labels[held_out]
            hits[run.way.name] += int(right.sum())
    scores = {name: count / len(labels) for name, count in hits.items()}
    result = Result(agreement, runs, scores, args.out)
    common.report(result, "held-out accuracy", "plan, waves and targets of a batch")
    draw(result, waves, labels, args.seed)
    return result


def shifted(waves: Tensor, order: torch.Generator) -> Tensor:
    """Waves that start up to 1/16 s later, at 1/4 to 1 of their loudness: usual for all ways."""
    late = torch.randint(RATE // 16, (len(waves), 1), generator=order)
    at = torch.arange(waves.shape[1]) - late
    gain = 1 - 0.75 * torch.rand(len(waves), 1, generator=order)
    return torch.where(at >= 0, waves.gather(1, at.clamp(min=0)), 0) * gain


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
        agreement.add("waves", mixed["wave"], theirs["wave"])
        agreement.add("targets", mixed["label"].dense(), theirs["label"])
    return agreement


# ------------------------------------------------------------------------------- picture


def draw(result: Result, waves: Tensor, labels: Tensor, seed: int) -> None:
    kinds = list(KINDS)
    shown = [int((labels == kinds.index(k)).nonzero()[2]) for k in ("kick", "tabla", "hi-hat")]
    shown += [int((labels == kinds.index(k)).nonzero()[2]) for k in ("snare", "tom", "metal")]
    batch = {"wave": waves[shown].clone(), "label": labels[shown]}
    mixed, plans = mixer(seed + 8, prob=1.0).with_plans(batch)
    plan = plans["wave"]
    made = common.figure(
        14, 10, "Audio: one plan mixes recordings and their labels",
        "Drums in time, half a second each, and as the network sees them. MixUp blends the waves; "
        "CutMix pastes a span of time (orange) of the partner, the first with the last and so on.",
    )  # fmt: skip
    grid = made.add_gridspec(4, len(shown), left=0.1, right=0.985, top=0.905, bottom=0.27,
                             wspace=0.08, hspace=0.34)  # fmt: skip
    mel = LogMel()
    both = (("recording", waves[shown]), ("mixed", mixed["wave"]))
    for r, (name, sounds) in enumerate(both):
        for i, sound in enumerate(sounds):
            start, stop = plan.box[i].tolist()
            title = kinds[labels[shown[i]]] if r == 0 else soft(plan, labels[shown], i, kinds)
            axes = common.bare(made.add_subplot(grid[2 * r, i]), title)
            axes.plot(sound.numpy(), color="#1f4e9c", lw=0.6)
            if r == 1 and stop > start:
                axes.plot(range(start, stop), sound[start:stop].numpy(), color="#d8501c", lw=0.6)
            axes.set_ylim(-1.05, 1.05)
            below = common.bare(made.add_subplot(grid[2 * r + 1, i]))
            below.imshow(mel(sound[None])[0, 0].numpy(), origin="lower", aspect="auto",
                         cmap="magma", vmin=-2, vmax=2)  # fmt: skip
            if i == 0:
                for each, text in ((axes, name), (below, "log-mel")):
                    each.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=8,
                                    fontsize=11.5, color=INK, fontweight="bold")  # fmt: skip
    last = made.add_gridspec(1, 2, left=0.1, right=0.985, top=0.21, bottom=0.06, wspace=0.2)
    common.draw_losses(made.add_subplot(last[0, 0]), result.runs)
    title = f"Accuracy on all {len(labels)} recordings, each held out once"
    common.draw_scores(made.add_subplot(last[0, 1]), result.scores, title)
    common.save(made, result.out)


def soft(plan, labels: Tensor, i: int, kinds: list[str]) -> str:
    own, other = plan.weight[i].tolist()
    kind = "MixUp" if plan.box[i, 0] == plan.box[i, 1] else "CutMix"
    partner = kinds[labels[plan.partner[i]]]
    return f"{kind}\n{own:.2f} {kinds[labels[i]]} + {other:.2f} {partner}"


if __name__ == "__main__":
    common.run(main)
