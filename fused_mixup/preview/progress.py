"""A bar of long work: tqdm's, else a counter; neither where stderr is no terminal."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    def __init__(self, total: int, doing: str = "reading", unit: str = "image") -> None:
        self._total, self._done, self._doing = total, 0, doing
        self._shown = sys.stderr.isatty()
        self._bar: Any = None
        if self._shown:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, desc=doing, unit=unit, leave=False)

    def step(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif self._shown:
            print(
                f"\r{self._doing} {self._done}/{self._total}", end="", file=sys.stderr, flush=True
            )

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.write(line)
            return
        if self._shown:
            print("\r" + " " * 40, end="\r", file=sys.stderr, flush=True)
        print(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown:
            print("\r" + " " * 40, end="\r", file=sys.stderr, flush=True)
