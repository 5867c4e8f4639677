"""Trains timm's NaFlex ViT on images of many sizes, in timm's own loader, mixed by one import.

    python -m examples.train_naflex [--peer] [--epochs 20] [--off-epoch 16] [--seed 0]

The loader resizes each image, whatever its aspect ratio, to at most as many patches as its batch
has places for, and mixes in its workers, where images still differ in size. ``--peer`` runs the
same lines with timm's mixer: draws and targets are the same, and images but for the rounding of
bytes.
"""

from __future__ import annotations

import argparse
import os
import random

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see demo.py

import numpy as np
import torch
from PIL import Image
from timm.data.naflex_loader import create_naflex_loader
from timm.loss import SoftTargetCrossEntropy
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from torch.utils.data import Dataset

from .demo_data import Digits, digits
from .demo_train import Stopwatch

CLASSES, PATCH = 10, 8
PLACES = (16, 25, 36)  # patches of the images of a batch


class Stretched(Dataset):
    """Digits as PIL images, each of a size and an aspect ratio of its own."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        low, high = images.amin((1, 2, 3), True), images.amax((1, 2, 3), True)
        self.images = (255 * (images - low) / (high - low)).byte().permute(0, 2, 3, 1).numpy()
        self.labels, self.transform = labels.tolist(), None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple:
        width, height = np.random.default_rng(i).integers(28, 80, 2).tolist()
        picture = Image.fromarray(self.images[i]).resize((width, height))
        # For tests the loader sets a transform here; for training it has its own.
        return self.transform(picture) if self.transform else picture, self.labels[i]


def loaders(data: Digits, mixup_fn: object, seed: int) -> tuple:
    common = {
        "patch_size": PATCH,
        "num_workers": 0,
        "pin_memory": False,
        "device": torch.device("cpu"),
        "max_seq_len": PLACES[-1],
        "seed": seed,
    }
    train = create_naflex_loader(
        Stretched(data.train_images, data.train_labels),
        train_seq_lens=PLACES,
        batch_size=32,
        is_training=True,
        mixup_fn=mixup_fn,
        hflip=0.0,
        color_jitter=0.0,
        scale=(0.7, 1.0),
        **common,
    )
    test = create_naflex_loader(
        Stretched(data.test_images, data.test_labels), batch_size=64, **common
    )
    return train, test


def main(argv: list[str] | None = None) -> float:
    """Trains, prints, and returns the accuracy on the test images."""
    args = parse(argv)
    if args.peer:
        from timm.data.naflex_mixup import NaFlexMixup
    else:
        from fused_mixup.timm import NaFlexMixup
    random.seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002  (the loader's transforms draw from it)
    torch.manual_seed(args.seed)
    mixup_fn = NaFlexMixup(num_classes=CLASSES, label_smoothing=0.1, mixup_off_epoch=args.off_epoch)
    watch = Stopwatch(torch.device("cpu"))

    def timed(imgs: list, targets: list) -> tuple:
        with watch("mixing"):
            return mixup_fn(imgs, targets)

    train, test = loaders(digits(32, torch.device("cpu")), timed, args.seed)
    model = NaFlexVit(
        NaFlexVitCfg(patch_size=PATCH, embed_dim=64, depth=3, num_heads=4), num_classes=CLASSES
    )
    criterion = SoftTargetCrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    steps = args.epochs * len(train)
    lr = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    accuracy = 0.0
    for epoch in range(args.epochs):
        train.dataset.set_epoch(epoch)
        mixup_fn.set_epoch(epoch)  # timm's data set calls it, but of `timed`
        model.train()
        for patches, target in train:
            loss = criterion(model(patches), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lr.step()
        model.eval()
        with torch.no_grad():
            hits = [model(patches).argmax(1) == labels for patches, labels in test]
        accuracy = torch.cat(hits).float().mean().item()
        mixing = "mixing" if mixup_fn.mixup_enabled else "no mixing"
        print(f"epoch {epoch + 1:>3}  loss {loss.item():.4f}  accuracy {accuracy:.1%}  {mixing}")
    name = "timm" if args.peer else "fused_mixup.timm"
    median, total = 1e3 * watch.median("mixing"), watch.total("mixing")
    print(f"{name}: accuracy {accuracy:.2%}; mixing {median:.2f} ms a batch, {total:.2f} s in all")
    return accuracy


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.train_naflex", description=__doc__)
    parser.add_argument("--peer", action="store_true", help="mix with timm's NaFlexMixup")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--off-epoch", type=int, default=16, help="no mixing from here on; 0: never"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
