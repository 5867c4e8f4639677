"""A training loop in timm's style; with fused_mixup it differs by one import line.

    python -m examples.train_timm [--peer] [--epochs 15] [--off-epoch 12] [--mode batch] [--seed 0]

Trains a small network on scikit-learn's digits with MixUp and CutMix, which it switches off for
the last epochs, and prints accuracy and the time spent in mixing. ``--peer`` runs the same lines
with the installed timm: draws, images and targets are the same. Roundings of the loss differ, and
grow as in any training.
"""

from __future__ import annotations

import argparse
import os

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see demo.py

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from .demo_data import digits
from .demo_train import Stopwatch, network


def mixer_and_loss(peer: bool) -> tuple[type, type]:
    if peer:
        from timm.data import Mixup
        from timm.loss import SoftTargetCrossEntropy
    else:
        from fused_mixup.timm import Mixup, SoftTargetCrossEntropy
    return Mixup, SoftTargetCrossEntropy


def main(argv: list[str] | None = None, image_size: int = 96) -> float:
    """Trains, prints, and returns the accuracy on the test images."""
    args = parse(argv)
    Mixup, SoftTargetCrossEntropy = mixer_and_loss(args.peer)
    np.random.seed(args.seed)  # noqa: NPY002  (what timm draws from)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    data = digits(image_size, device)
    train_set = TensorDataset(data.train_images, data.train_labels)
    loader = DataLoader(train_set, batch_size=128, shuffle=True, drop_last=True)

    mixup_fn = Mixup(
        mixup_alpha=0.8, cutmix_alpha=1.0, mode=args.mode, label_smoothing=0.1, num_classes=10
    )
    criterion = SoftTargetCrossEntropy()
    model = network(args.seed, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    total_steps = args.epochs * len(loader)
    lr = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=total_steps)

    watch = Stopwatch(device)
    accuracy = 0.0
    for epoch in range(args.epochs):
        if epoch == args.off_epoch:
            mixup_fn.mixup_enabled = False
        model.train()
        for images, labels in loader:
            with watch("mixing"):
                mixed, target = mixup_fn(images, labels)
            loss = criterion(model(mixed), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lr.step()
        model.eval()
        with torch.no_grad():
            hits = model(data.test_images).argmax(1) == data.test_labels
        accuracy = hits.float().mean().item()
        mixing = "mixing" if mixup_fn.mixup_enabled else "no mixing"
        print(f"epoch {epoch + 1:>3}  loss {loss.item():.4f}  accuracy {accuracy:.1%}  {mixing}")
    name = "timm" if args.peer else "fused_mixup.timm"
    median, total = 1e3 * watch.median("mixing"), watch.total("mixing")
    print(
        f"{name}: accuracy {accuracy:.2%}; mixing {median:.2f} ms per step (median of "
        f"{total_steps}), {total:.2f} s in all"
    )
    return accuracy


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.train_timm", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--peer", action="store_true", help="mix with the timm that is installed")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--off-epoch", type=int, default=12, help="no mixing from this epoch on")
    parser.add_argument("--mode", default="batch", choices=("batch", "pair", "elem"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.epochs < 1:
        parser.error(f"--epochs: expected at least 1, got {args.epochs}")
    return args


if __name__ == "__main__":
    main()
