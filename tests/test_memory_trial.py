"""Memory of results: Ctrl-C inside its code, and Pythons that count references otherwise."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
import torch

import fused_mixup as fm
from fused_mixup import MixPlan, backends, env, memory

PLAN = MixPlan.uniform(8, "flip", 0.3)
pytestmark = pytest.mark.skipif(
    backends.reason_unavailable("native", "CPU") is not None,
    reason=str(backends.reason_unavailable("native", "CPU")),
)


def images():
    return torch.rand(8, 3, 260, 260)


# ------------------------------------------------------------------ Ctrl-C


@pytest.fixture
def interruptible():
    """A process started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("place", ["_fresh_storage", "recycled_tensor", "_take_unused"])
def test_an_interrupt_in_the_memory_is_an_interrupt(place, monkeypatch, interruptible):
    x = images()
    want = fm.mix(x, PLAN)
    memory.empty_cache()
    real, calls = getattr(memory, place), []

    def interrupted_once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(memory, place, interrupted_once)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        fm.mix(x, PLAN)
    assert threading.active_count() == threads
    assert torch.equal(fm.mix(x, PLAN), want)


INTERRUPTED = """
import os, signal, sys, threading, time
import torch
import fused_mixup as fm

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
plan, x = fm.MixPlan.uniform(8, "flip", 0.3), torch.rand(8, 33000)
want, rounds, caught, told = fm.mix(x, plan), 300, 0, -1


def press():
    for i in range(rounds):
        limit = time.time() + 120
        while told < i:  # the last one was caught, and the next will be
            time.sleep(0.0001 * (i % 7))
            if time.time() > limit:
                print("lost")
                os._exit(1)
        os.kill(os.getpid(), signal.SIGINT)


threading.Thread(target=press).start()
sys.setswitchinterval(1e-5)
while caught < rounds:
    try:
        while True:
            told = caught
            out = fm.mix(x, plan)
    except KeyboardInterrupt:
        caught += 1
assert torch.equal(fm.mix(x, plan), want)
print(caught)
"""


def test_no_interrupt_is_lost_and_none_becomes_another_error():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == "300", (done.returncode, done.stderr[-2000:])


# ------------------------------------------------------------------ other reference counts


def try_again(monkeypatch):
    monkeypatch.setattr(memory, "_alone", 0)
    monkeypatch.setattr(memory, "reason_off", None)
    monkeypatch.setattr(memory, "reason_off", memory._find_reason_off())


def addresses_of_results():
    found = []
    for _ in range(4):
        result = fm.mix(images(), PLAN)
        found.append(result.data_ptr())
        del result
    return set(found)


@pytest.mark.parametrize("shift", [-1, 0, 1, 3])
def test_another_count_of_references_is_found_by_trial(shift, monkeypatch):
    # Python 3.14 borrows locals and then counts one less.
    real = sys.getrefcount
    monkeypatch.setattr(sys, "getrefcount", lambda x: real(x) - 1 + shift)  # this function adds 1
    try_again(monkeypatch)
    assert memory.reason_off is None and len(addresses_of_results()) == 1


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("getrefcount", lambda x: 1, "counts references in a way not known here"),
        ("getrefcount", lambda x: 100, "counts references in a way not known here"),
        ("_is_gil_enabled", lambda: False, "free-threaded"),
    ],
)
def test_where_references_tell_nothing_nothing_is_kept(name, value, why, monkeypatch):
    monkeypatch.setattr(sys, name, value, raising=False)
    try_again(monkeypatch)
    assert why in memory.reason_off and why in env.report()
    x = images()
    assert torch.allclose(fm.mix(x, PLAN), x * 0.3 + x.flip(0) * 0.7)
    assert not memory._kept


def test_the_report_says_that_memory_is_used_again():
    assert memory.reason_off is None and "memory of results  reused" in env.report()
