"""``python -m fused_mixup.sweep``: run the grid, or what is left of it, and say what came out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..preview.progress import Progress
from ..recipes import Recipe
from .options import check_options, grid_of, make_parser
from .plot import draw
from .records import Record, Runs, digest
from .summary import table, warnings_of
from .training import recipe_of, seed_all, train_run
from .user_module import UserModule, check_path, execute, functions_of, loaders_of

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ends
FORMAT = 1  # of the file of runs


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    refused = ImportError, ValueError, TypeError, OSError, RuntimeError
    try:
        settings, recipes = check(args)
    except refused as error:
        parser.error(str(error))
    seed_all(0)  # what the module draws at its import is the same in each process
    module = execute(args.module)
    try:
        user = functions_of(module)
        if user.make_optimizer is not None and args.lr is not None:
            raise ValueError("--lr: expected none beside make_optimizer, which the module defines")
        runs = Runs(with_suffix(args.out, ".jsonl"), settings, args.restart)
    except refused as error:
        parser.error(str(error))
    try:
        return run_grid(args, user, recipes, runs)
    finally:
        runs.close()


def run_grid(
    args: argparse.Namespace, user: UserModule, recipes: dict[float, Recipe], runs: Runs
) -> int:
    todo = [run for run in grid_of(args) if run not in runs.done]
    kept = len(grid_of(args)) - len(todo)
    if kept:
        print(f"{runs.path}: {kept} runs have ended before, {len(todo)} are left")
    try:
        run_all(args, user, recipes, runs, todo)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted: {runs.path} has {len(runs.done)} runs; the same command goes on",
            file=sys.stderr,
        )
        return INTERRUPTED
    finish(args, runs)
    return 0


def check(args: argparse.Namespace) -> tuple[dict[str, Any], dict[float, Recipe]]:
    """The settings that all runs share, for their file, and the recipe of each α.

    What may be refused is, before any run. Files and folders are looked up here alone: the module
    may change the folder, and its user a file, while the sweep runs.
    """
    check_options(args)
    check_path(args.module)
    args.out = args.out.absolute()
    alphas = sorted({alpha for alpha, _ in grid_of(args)})
    recipes = {alpha: recipe_of(args.recipe, args.vary, alpha) for alpha in alphas}
    recipe = recipe_of(args.recipe, args.vary, 1.0)  # any α: it is left out
    mixing = {name: repr(v) for name, v in recipe.settings.items() if name != args.vary}
    settings = {
        "sweep": FORMAT,
        "module": digest(args.module),
        "vary": args.vary,
        "recipe": {**mixing, "loss": repr(recipe.criterion)},
        "epochs": args.epochs,
        "lr": args.lr,
        "device": torch.device(args.device).type,
    }
    return settings, recipes


def run_all(
    args: argparse.Namespace,
    user: UserModule,
    recipes: dict[float, Recipe],
    runs: Runs,
    todo: Sequence[tuple[float, int]],
) -> None:
    device = torch.device(args.device)
    if todo:
        # What the module keeps of its data is then drawn alike, whichever run is the first.
        seed_all(0)
        loaders_of(user)
    with Progress(len(todo) * args.epochs, "training", "epoch") as progress:
        for alpha, seed in todo:
            options = seed, args.epochs, args.lr, device
            record = train_run(user, recipes[alpha], *options, progress.step)
            runs.add(alpha, seed, record)
            progress.say(f"alpha {alpha:g}, seed {seed}: {shown(record)}")


def shown(record: Record) -> str:
    if record["train_loss"] is None:
        return "diverged"
    accuracy, ece = record["val_accuracy"], record["val_ece"]
    return f"validation accuracy {accuracy:.4f}, calibration error {ece:.4f}"


def finish(args: argparse.Namespace, runs: Runs) -> None:
    records = runs.records
    written = [with_suffix(args.out, ".csv")]
    runs.write_csv(written[0])
    picture = with_suffix(args.out, ".png")
    if draw(records, picture, args.vary):
        written.append(picture)
    print(f"\n{table(records)}\n")
    for line in warnings_of(records):
        print(line)
    print(f"written: {', '.join(map(str, written))}")
    if len(written) == 1:
        print("no plot, as matplotlib is not installed; pip install matplotlib")


def with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


if __name__ == "__main__":
    sys.exit(main())
