"""Options of the suite, and the file of its figures: one JSON line for each turn of a provider.

Each line is written at once, so that an interrupted run loses its last case alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cases", "benchmarks of fused_mixup")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    group.addoption("--bench-device", choices=["cpu", "cuda"], default=default)
    group.addoption("--bench-full", action="store_true", help="all cases, the rare ones too")
    group.addoption("--bench-only", default="", help="cases whose name has this in it")
    group.addoption("--bench-part", default="all", help="the headlines, or the rest")
    group.addoption("--bench-group", default="", help="cases of this group")
    group.addoption("--bench-seconds", type=float, default=1.0, help="time for each provider")
    group.addoption("--bench-until", type=float, default=math.inf, help="seconds since 1970")
    group.addoption("--bench-out", type=Path, default=None, help="append JSON lines to this file")


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Iterator[Callable[[dict], None]]:
    path = request.config.getoption("--bench-out")
    if path is None:
        yield lambda line: None
        return
    with path.open("a", encoding="utf-8") as file:

        def write(line: dict) -> None:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()

        yield write
