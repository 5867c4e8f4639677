"""A training loop in torchvision's style; with fused_mixup it differs by one import line.

    python -m examples.train_torchvision [--peer] [--epochs 12] [--seed 0]

``--peer`` uses torchvision's own CutMix and MixUp. Draws, batches and so losses are the same; only
the time spent in mixing differs. Needs no network.
"""

from __future__ import annotations

import argparse
import os

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see examples/demo.py

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate

from .demo_data import digits
from .demo_recipe import CUTMIX_ALPHA, LABEL_SMOOTHING, MIXUP_ALPHA, NUM_CLASSES
from .demo_train import Stopwatch, network


def main(argv: list[str] | None = None, samples: int | None = None) -> list[float]:
    """Trains; returns the mean loss of every epoch."""
    args = parse(argv)
    if args.peer:
        from torchvision.transforms.v2 import CutMix, MixUp
    else:
        from fused_mixup.torchvision import CutMix, MixUp

    torch.manual_seed(args.seed)
    mixers = [
        CutMix(alpha=CUTMIX_ALPHA, num_classes=NUM_CLASSES),
        MixUp(alpha=MIXUP_ALPHA, num_classes=NUM_CLASSES),
    ]
    watch = Stopwatch(torch.device("cpu"))

    def collate_fn(batch):
        images, labels = default_collate(batch)  # [B, 3, H, W], [B]
        mixer = mixers[int(torch.randint(len(mixers), ()))]
        with watch("mixing"):
            return mixer(images, labels)  # [B, 3, H, W], [B, K]

    data = digits(args.size, torch.device("cpu"), samples)
    train = TensorDataset(data.train_images, data.train_labels)
    loader = DataLoader(train, batch_size=128, shuffle=True, collate_fn=collate_fn)

    net = network(args.seed, torch.device("cpu"))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader))
    losses: list[float] = []
    print(f"{'torchvision' if args.peer else 'fused_mixup'}: {mixers}")
    for epoch in range(args.epochs):
        net.train()
        total = 0.0
        with watch("training"):
            for images, targets in loader:
                loss = F.cross_entropy(net(images), targets, label_smoothing=LABEL_SMOOTHING)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
        losses.append(total / len(loader))
        net.eval()
        with torch.no_grad():
            accuracy = (net(data.test_images).argmax(1) == data.test_labels).float().mean()
        print(f"epoch {epoch + 1:2d}  loss {losses[-1]:.6f}  test accuracy {accuracy:.1%}")
    print(
        f"mixing {watch.total('mixing'):.2f} s of {watch.total('training'):.1f} s "
        f"(median {watch.median('mixing') * 1e3:.2f} ms for a batch)"
    )
    return losses


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.train_torchvision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peer", action="store_true", help="mix with torchvision itself")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=96, help="pixels of an enlarged digit")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
