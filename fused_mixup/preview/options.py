"""The options of ``python -m fused_mixup.preview``: those of BatchMix, and recipes of them."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from .. import BatchMix
from ..recipes.settings import read_settings
from ..recipes.table import RECIPES as NAMED

# The settings of BatchMix that are options here: the type of each, and what help says.
SETTINGS: dict[str, tuple[Any, str]] = {
    "mixup_alpha": (float, "α of MixUp, 0 for none"),
    "cutmix_alpha": (float, "α of CutMix, 0 for none"),
    "switch_prob": (float, "probability of CutMix where both are on"),
    "prob": (float, "probability that a row is mixed at all"),
    "per": (str, "what shares a draw: batch, pair or sample"),
    "pairing": (str, "flip, roll, shuffle, derangement or cross_class"),
    "cutmix_minmax": (float, "shares of each side between which boxes are drawn"),
    "correct_lam": (bool, "weigh labels by the area really pasted"),
    "symmetric": (bool, "λ = max(λ, 1-λ)"),
    "label_smoothing": (float, "ε of the targets"),
    "ignore_index": (int, "a class that is left out, such as 255 in class maps"),
    "seed": (int, "of the draws, and of the choice of images from folders"),
}
DEFAULTS = {
    name: inspect.signature(BatchMix).parameters[name].default for name in SETTINGS
}  # fmt: skip

BATCH = 16
# What --all has no use for.
OF_A_BATCH = ("batch", "compare", "boxes", "masks", "recipe", *(n for n in SETTINGS if n != "seed"))

RECIPES: dict[str, dict[str, Any]] = {
    name: {key: value for key, value in read_settings(name, {}).items() if key in SETTINGS}
    for name in NAMED
}

DESCRIPTION = """\
Mix a batch of real images as training would, and draw it: each image with its labels and their
weights, and the boxes that were cut. An image's label is the name of its folder.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fused_mixup.preview",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="folders, searched to the bottom, or images",
    )
    add(
        "--all", action="store_true",
        help="draw every variant on two images instead, the first two or scikit-learn's "
        "photographs; takes -o, --size, --columns and --seed",
    )  # fmt: skip
    add(
        "-o", "--out", type=Path, default=Path("preview.png"), metavar="FILE",
        help="where to write; the suffix says the format (default: preview.png)",
    )  # fmt: skip
    add("--batch", type=int, metavar="B", help=f"images in the batch (default: {BATCH})")
    add("--size", type=int, default=224, metavar="PIXELS", help="their sides (default: 224)")
    add("--columns", type=int, metavar="N", help="images side by side")
    add("--compare", action="store_true", help="draw the images before the mix, too")
    add("--boxes", type=Path, metavar="FILE", help="detection boxes, COCO's json")
    add(
        "--masks", type=Path, metavar="FOLDER",
        help="class maps, PNG files with the names of the images",
    )  # fmt: skip
    mixing = parser.add_argument_group("settings of BatchMix")
    mixing.add_argument(
        "--recipe", choices=RECIPES, help="the settings of such trainings; options below go first"
    )
    for name, (kind, text) in SETTINGS.items():
        option, default = "--" + name.replace("_", "-"), DEFAULTS[name]
        said = f"{text} (default: {default})"
        if kind is bool:
            mixing.add_argument(
                option, action=argparse.BooleanOptionalAction, default=None, help=said
            )
        elif name == "cutmix_minmax":
            mixing.add_argument(option, type=kind, nargs=2, metavar=("LOW", "HIGH"), help=said)
        else:
            mixing.add_argument(option, type=kind, metavar=name.split("_")[-1].upper(), help=said)
    return parser


def check_all(args: argparse.Namespace) -> None:
    """Raise ValueError for an option of a batch beside ``--all``."""
    for name in OF_A_BATCH:
        if getattr(args, name) not in (None, False):
            raise ValueError(
                f"--{name.replace('_', '-')}: expected none beside --all, which takes -o, --size, "
                "--columns and --seed"
            )


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of BatchMix: its defaults, over them the recipe's, over them those given."""
    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    return {**DEFAULTS, **RECIPES.get(args.recipe, {}), **given}


def settings_text(settings: dict[str, Any]) -> str:
    """The settings that matter in a line, for the figure."""
    left_out = {"correct_lam": True, "symmetric": False, "label_smoothing": 0.0, "prob": 1.0}
    parts = []
    for name, value in settings.items():
        if value is None or left_out.get(name) == value:
            continue
        if name == "switch_prob" and not (settings["mixup_alpha"] and settings["cutmix_alpha"]):
            continue
        shown = " ".join(f"{v:g}" for v in value) if isinstance(value, list) else str(value)
        parts.append(f"{name}={shown}")
    return ", ".join(parts)
