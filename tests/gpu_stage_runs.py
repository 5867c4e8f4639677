"""Stages of `make gpu` that need no GPU, and how tests run them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import gpu_run  # noqa: E402
from gpu_run import Stage  # noqa: E402


def python(code):
    return [sys.executable, "-c", code]


def stage(name, code="print('hello')", limit=30.0, **kw):
    return Stage(name, [python(code)], f"{kw.pop('log', name)}.log", limit, **kw)


def run(groups, out, seconds=600.0):
    return gpu_run.run_all(groups, out, {"gpu": {"name": "none"}}, time.monotonic() + seconds)


def wait_for(path):
    """Until ``path`` is there. The limit is far beyond what a busy machine needs."""
    give_up = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < give_up, f"{path.name} did not come"
        time.sleep(0.02)


def summary(out):
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))
