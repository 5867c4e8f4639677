"""The runs that have ended, in a file of JSON lines: a sweep goes on from it."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

Record = dict[str, Any]  # one run: its α, its seed, and what was measured
MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_ece")
COLUMNS = ("alpha", "seed", *MEASURED, "seconds")


class Runs:
    """The runs of one sweep. The first line of the file says of which settings they are.

    The file is open, and locked, until ``close``: of two sweeps each would lose runs of the other.
    """

    def __init__(self, path: Path, settings: dict[str, Any], restart: bool = False) -> None:
        self.path = path
        self.done: dict[tuple[float, int], Record] = {}
        self.file = path.open("ab+")
        try:
            _lock(self.file, path)
            self._read(settings, restart)
        except BaseException:
            self.close()
            raise

    def _read(self, settings: dict[str, Any], restart: bool) -> None:
        self.file.seek(0)
        text = b"" if restart else self.file.read()
        # What follows the last newline was left by a process that was killed while writing it. The
        # first line is written at once, so that without one the file is another's.
        whole = text.rfind(b"\n") + 1
        if text:
            lines = _lines(self.path, text[:whole])
            _check_same(self.path, lines[0] if lines else None, settings)
            self.done = {(record["alpha"], record["seed"]): record for record in lines[1:]}
        self.file.truncate(whole)
        if not text:
            self._append(settings)

    def _append(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def add(self, alpha: float, seed: int, record: Record) -> None:
        record = {"alpha": alpha, "seed": seed, **record}
        self._append(record)
        self.done[alpha, seed] = record

    def close(self) -> None:
        self.file.close()

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


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        # Of the process: workers of a loader, which may outlive it for a while, do not hold it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise ValueError(
            f"{path}: expected a file that no other sweep writes, got one in use; wait for that "
            "sweep, or give another -o"
        ) from None
    except OSError:  # a file system without locks
        pass


def _lines(path: Path, text: bytes) -> list[dict[str, Any]]:
    """The settings, and the runs behind them."""
    found = []
    for i, line in enumerate(text.split(b"\n")[:-1]):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or (i and not record.keys() >= set(COLUMNS)):
            raise ValueError(
                f"{path}: expected a run as JSON in line {i + 1}, got something else; give another "
                "-o, or --restart"
            )
        found.append(record)
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
