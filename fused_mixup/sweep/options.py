"""The options of ``python -m fused_mixup.sweep``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from ..recipes.table import RECIPES

ALPHAS = (0.1, 0.2, 0.4, 1.0)
SEEDS, EPOCHS, LEARNING_RATE = 3, 10, 1e-3
VARIED = ("mixup_alpha", "cutmix_alpha")

DESCRIPTION = """\
Train a model of yours without mixing and with each alpha, over several seeds, and compare accuracy
and calibration error. The module defines

  make_model()        a fresh torch.nn.Module that gives logits [B, K]
  make_data()         two loaders of (x, labels): for training and for validation
  make_optimizer(m)   optional; without it AdamW

Each run begins with its seed set. Runs that have ended are kept: the same command goes on.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fused_mixup.sweep",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("module", type=Path, metavar="MODULE.py", help="the file that defines these functions")
    add(
        "--alpha", type=float, nargs="+", default=list(ALPHAS), metavar="A", dest="alphas",
        help="the grid; 0, no mixing, is always in it "
        f"(default: {' '.join(f'{a:g}' for a in ALPHAS)})",
    )  # fmt: skip
    add("--seeds", type=int, default=SEEDS, metavar="N", help=f"0 to N-1 (default: {SEEDS})")
    add("--epochs", type=int, default=EPOCHS, metavar="N", help=f"of a run (default: {EPOCHS})")
    add(
        "--vary", choices=VARIED, default=VARIED[0],
        help=f"which setting the grid is of (default: {VARIED[0]})",
    )  # fmt: skip
    add(
        "--recipe", metavar="NAME|FILE",
        help=f"the other settings: {', '.join(RECIPES)}, or a YAML file in timm's names; without "
        "it that mode alone, and no label smoothing",
    )  # fmt: skip
    add("--lr", type=float, metavar="RATE", help=f"of AdamW (default: {LEARNING_RATE:g})")
    add("--device", default="cpu", help="where to train (default: cpu)")
    add(
        "-o", "--out", type=Path, default=Path("sweep"), metavar="NAME",
        help="writes NAME.jsonl, NAME.csv and NAME.png (default: sweep)",
    )  # fmt: skip
    add("--restart", action="store_true", help="throw away the runs that NAME.jsonl has")
    return parser


def check_options(args: argparse.Namespace) -> None:
    for name, least in (("seeds", 1), ("epochs", 1)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name}: expected at least {least}, got {getattr(args, name)}")
    if not all(math.isfinite(alpha) and alpha >= 0 for alpha in args.alphas):
        raise ValueError(f"--alpha: expected numbers of 0 and more, got {args.alphas}")
    if args.lr is not None and not args.lr > 0:
        raise ValueError(f"--lr: expected a number above 0, got {args.lr}")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch has no CUDA
        raise ValueError(
            f"--device: expected one that is here, got {args.device}: {error}"
        ) from None
    if not args.out.name:
        raise ValueError(f"--out: expected a name, got {str(args.out)!r}")
    if not args.out.absolute().parent.is_dir():
        raise ValueError(f"--out: expected a folder that exists, got {args.out.absolute().parent}")


def grid_of(args: argparse.Namespace) -> list[tuple[float, int]]:
    """(α, seed) of all runs, seed by seed, so that an interrupted sweep has seen every α."""
    alphas = sorted({0.0, *args.alphas})
    return [(alpha, seed) for seed in range(args.seeds) for alpha in alphas]
