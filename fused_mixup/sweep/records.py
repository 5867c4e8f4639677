"""The runs that have ended, in a file of JSON lines: a sweep goes on from it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]  # one run: its α, its seed, and what was measured
MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_ece")
COLUMNS = ("alpha", "seed", *MEASURED, "seconds")


class Runs:
    """The runs of one sweep. The first line of the file says of which settings they are."""

    def __init__(self, path: Path, settings: dict[str, Any], restart: bool = False) -> None:
        self.path = path
        self.done: dict[tuple[float, int], Record] = {}
        lines = [] if restart or not path.exists() else _lines(path)
        if lines:
            _check_same(path, lines[0], settings)
            for record in lines[1:]:
                self.done[record["alpha"], record["seed"]] = record
        # Written anew: what a killed process left of its last line would spoil the next one.
        text = "".join(json.dumps(line) + "\n" for line in [settings, *self.done.values()])
        replace(path, text)

    def add(self, alpha: float, seed: int, record: Record) -> None:
        record = {"alpha": alpha, "seed": seed, **record}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[alpha, seed] = record

    @property
    def records(self) -> list[Record]:
        """By α, then seed."""
        return [self.done[key] for key in sorted(self.done)]

    def write_csv(self, path: Path) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records)
        replace(path, text.getvalue())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def replace(path: Path, text: str) -> None:
    """Write a whole file or none of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _lines(path: Path) -> list[dict[str, Any]]:
    # What follows the last newline was left by a process that was killed while writing it.
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    found = []
    for i, line in enumerate(lines):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise ValueError(
                f"{path}: expected a run as JSON in line {i + 1}, got something else; give another "
                "-o, or --restart"
            ) from None
    return found


def _check_same(path: Path, found: Any, settings: dict[str, Any]) -> None:
    if not isinstance(found, dict) or found.get("sweep") != settings["sweep"]:
        raise ValueError(f"{path}: expected the runs of a sweep, got another file; give another -o")
    # As JSON has them: tuples are lists there.
    wanted = json.loads(json.dumps(settings))
    other = sorted(name for name in wanted if found.get(name) != wanted[name])
    if other:
        raise ValueError(
            f"{path}: expected runs of the same settings, got others of {', '.join(other)}; give "
            "another -o, or --restart"
        )
