"""Epochs that end early: loaders left alone, killed workers, Ctrl-C. Nothing hangs or stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
ROOT = Path(__file__).resolve().parents[1]

SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
import torch
from torch.utils.data import DataLoader
import fused_mixup as fm
from fused_mixup.timm import FastCollateMixup

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
how, when = sys.argv[1], float(sys.argv[2])
data = [(np.full((3, 64, 64), i % 256, np.uint8), i % 10) for i in range(32 * 30)]
collate = FastCollateMixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=10)
loader = DataLoader(data, 32, num_workers=2, collate_fn=collate, prefetch_factor=3)
batches = fm.Prefetcher(loader, "cpu", 0.5, 0.2)
print("workers", os.getpid(), flush=True)
stopped = threading.Event()
def press():  # Python drops an interrupt that arrives in a finalizer: a person would press again
    time.sleep(when)
    while not stopped.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        stopped.wait(5)
def epochs():
    if how == "ctrl-c":
        threading.Thread(target=press, daemon=True).start()
    while True:
        for i, (x, target) in enumerate(batches):
            assert x.shape == (32, 3, 64, 64)
            if i == 0:
                children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
                print("workers", *children, flush=True)
            if how == "leave" and i == int(when):
                raise KeyboardInterrupt
            if how == "kill" and i == int(when):
                for child in children:
                    name = open(f"/proc/{child}/cmdline").read()
                    if "resource_tracker" not in name and "torch_shm" not in name:
                        os.kill(int(child), signal.SIGKILL)
                        break  # one: the loader's handler raises once, wherever the process is
try:
    try:
        epochs()
    except (OSError, EOFError) as error:  # of a dead worker's socket
        print("error:", type(error).__name__, flush=True)
        time.sleep(2)  # where the handler has not raised yet
except KeyboardInterrupt:
    stopped.set()
    print("interrupted", flush=True)
except RuntimeError as error:
    print("error:", str(error).splitlines()[0], flush=True)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
plan = fm.MixPlan.uniform(4, "flip", 0.3)
assert torch.equal(fm.mix(torch.ones(4, 3), plan), torch.ones(4, 3))  # all still works
print("goes on", flush=True)
"""


def end(how: str, when: float, tmp_path: Path) -> str:
    script = tmp_path / "epoch.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, str(script), how, str(when)],
        capture_output=True,
        text=True,
        timeout=150,  # a hang fails here
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0 and "goes on" in run.stdout, run.stdout + run.stderr
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith("workers")]
    ours = tuple(f"torch_{pid}_" for _, *pids in lines for pid in pids)
    left = [name for name in os.listdir("/dev/shm") if name.startswith(ours)]
    assert not left, f"{len(left)} files stay in /dev/shm"
    return run.stdout


@pytest.mark.parametrize("batch", [0, 7])
def test_a_killed_worker_ends_the_epoch_with_an_error(batch, tmp_path):
    assert "error: " in end("kill", batch, tmp_path)


@pytest.mark.parametrize("batch", [0, 5])
def test_an_epoch_that_is_left_leaves_nothing(batch, tmp_path):
    assert "interrupted" in end("leave", batch, tmp_path)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3, 1.0])
def test_ctrl_c_at_any_point_of_an_epoch(seconds, tmp_path):
    assert "interrupted" in end("ctrl-c", seconds, tmp_path)
