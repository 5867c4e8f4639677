"""The tests of forced backends share these: a plan, a call in another thread, another process."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from fused_mixup import MixPlan, backends

PLAN = MixPlan.uniform(4, "flip", 0.3)
DEFAULT = backends.chosen("CPU")


def run_in_thread(function, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result(60)


def run_python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=600,
    )
