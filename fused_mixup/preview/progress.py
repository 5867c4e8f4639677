"""A bar while images are read: tqdm's, else a counter; neither where stderr is no terminal."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._shown = sys.stderr.isatty()
        self._bar: Any = None
        if self._shown:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, desc="reading", unit="image", leave=False)

    def step(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif self._shown:
            print(f"\rreading {self._done}/{self._total}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown:
            print("\r" + " " * 40, end="\r", file=sys.stderr, flush=True)
