"""A training loop with BatchMix: plans drawn on the device, sparse labels, a compiled step.

    python -m examples.train_batchmix [--epochs 15] [--off-epoch 12] [--pairing cross_class]
                                      [--resume-after 5] [--compile] [--device cpu]

Trains a small network on scikit-learn's digits with MixUp and CutMix. α falls from epoch
to epoch; the last ones have no mixing. ``--resume-after`` saves a checkpoint after that epoch and
resumes with new objects: losses are equal to the last digit. Needs no network.
"""

from __future__ import annotations

import argparse
import copy
import os

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see demo.py

import torch

from fused_mixup import BatchMix, soft_target_cross_entropy

from .demo_data import Digits, digits
from .demo_train import network

BATCH = 128
PAIRINGS = ("flip", "shuffle", "derangement", "cross_class")


def decay_alpha(epoch: int) -> float:
    """The factor of α in an epoch. A named function can be pickled for loader processes."""
    return max(1.0 - 0.05 * epoch, 0.2)


class Trainer:
    """Network, optimizer and mixing, which a checkpoint holds."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.model = network(args.seed, torch.device(args.device))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3, weight_decay=0.02)
        self.mix = BatchMix(
            num_classes=10,
            mixup_alpha=1.0,
            cutmix_alpha=1.0,
            per="pair" if args.pairing == "flip" else "sample",
            pairing=args.pairing,
            label_smoothing=0.1,
            schedule=decay_alpha,
            off_after_epoch=args.off_epoch,
            seed=args.seed,
        ).to(args.device)
        self.step = torch.compile(self._step) if args.compile else self._step

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        mixed, target = self.mix(images, labels)  # images [B, 3, H, W], labels [B]
        return soft_target_cross_entropy(self.model(mixed), target)

    def epoch(self, epoch: int, data: Digits) -> float:
        """Trains for one epoch; returns its mean loss."""
        self.mix.set_epoch(epoch)
        self.model.train()
        self.mix.train()
        order = torch.randperm(len(data.train_labels), generator=_generator(epoch))
        losses = []
        for rows in order.to(data.train_labels.device).split(BATCH):
            loss = self.step(data.train_images[rows], data.train_labels[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean().item()

    @torch.no_grad()
    def accuracy(self, data: Digits) -> float:
        self.model.eval()
        hits = self.model(data.test_images).argmax(1) == data.test_labels
        return hits.float().mean().item()

    def parts(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer, "mix": self.mix}

    def state_dict(self) -> dict:
        return copy.deepcopy({name: part.state_dict() for name, part in self.parts().items()})

    def load_state_dict(self, saved: dict) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(saved[name])


def _generator(epoch: int) -> torch.Generator:
    """The order of an epoch depends on the epoch alone, so that resuming need not save it."""
    return torch.Generator().manual_seed(epoch)


def main(argv: list[str] | None = None, image_size: int = 96) -> list[float]:
    """Trains and prints; returns the mean loss of every epoch."""
    args = parse(argv)
    data = digits(image_size, torch.device(args.device))
    trainer = Trainer(args)
    print(trainer.mix)
    losses = []
    for epoch in range(args.epochs):
        if epoch == args.resume_after:
            saved = trainer.state_dict()
            trainer = Trainer(args)
            trainer.load_state_dict(saved)
            print("resumed from a checkpoint")
        losses.append(trainer.epoch(epoch, data))
        alpha, prob = trainer.mix.settings[0].item(), trainer.mix.settings[3].item()
        how = f"α {alpha:.2f}" if prob else "no mixing"
        print(f"epoch {epoch + 1:>3}  loss {losses[-1]:.6f}  {how:9}  ", end="")
        print(f"test accuracy {trainer.accuracy(data):.1%}")
    return losses


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.train_batchmix", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--off-epoch", type=int, default=12, help="no mixing from this epoch on")
    parser.add_argument("--pairing", default="cross_class", choices=PAIRINGS)
    parser.add_argument("--resume-after", type=int, help="epochs before a checkpoint is resumed")
    parser.add_argument("--compile", action="store_true", help="torch.compile the step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
