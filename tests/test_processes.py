"""Ops in processes that are forked, spawned or come from a fork server, and under python -OO."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from backend_watch import DEFAULT, run_python

ROOT = Path(__file__).resolve().parent.parent
native = pytest.mark.skipif(DEFAULT != "native", reason="PyTorch's own ops hang in such a child")

# Two threads, and work for both. The child calls no op of PyTorch that goes through OpenMP: those
# wait for ever after a fork.
WORK = """
import os, signal, sys
import multiprocessing as mp
import numpy as np
import torch
import fused_mixup as fm

plan = fm.MixPlan.uniform(16, "flip", 0.3)


def results():
    torch.set_num_threads(2)
    x = torch.from_numpy(np.arange(16 * 3 * 96 * 96, dtype=np.float32).reshape(16, 3, 96, 96))
    bytes_ = torch.from_numpy(x.numpy().astype(np.uint8))
    logits = torch.from_numpy(np.sin(x.numpy()).reshape(16, -1))
    labels = torch.from_numpy(np.arange(16))
    target = fm.MixedTarget.from_labels(labels, plan, logits.shape[1])
    yield fm.mix(x, plan)
    yield fm.mix_samples([*x], plan)
    options = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "dtype": torch.float32}
    yield fm.mix_normalize(bytes_, plan, **options)
    yield fm.soft_target_cross_entropy(logits, target)
    yield fm.draw_plan(4096, spatial=(8, 8), state=fm.plan_state(1), per="sample").weight
    yield fm.mix_(x, plan)


def answer(connection):
    signal.alarm(60)
    connection.send([r.numpy().tobytes() for r in results()])
"""


def test_every_loop_goes_through_the_parallel_for_that_knows_of_forks():
    calls = {
        path.name
        for path in (ROOT / "csrc").rglob("*.*")
        if "stable::parallel_for(" in path.read_text()
    }
    assert calls == {"parallel.h"}


def test_a_thread_that_comes_out_of_a_fork_and_those_it_starts():
    if not hasattr(os, "fork") or DEFAULT != "native":
        pytest.skip("needs fork and compiled kernels")
    code = """
import threading
want = [r.numpy().tobytes() for r in results()]
if not (child := os.fork()):
    signal.alarm(60)
    got = [r.numpy().tobytes() for r in results()]
    def again():
        got.extend(r.numpy().tobytes() for r in results())
    thread = threading.Thread(target=again)
    thread.start()
    thread.join()
    os._exit(0 if got == want * 2 else 3)
print(os.waitpid(child, 0)[1], want == [r.numpy().tobytes() for r in results()])
"""
    done = run_python(WORK + code)
    assert done.stdout.strip() == "0 True", (done.stdout, done.stderr)


@native
@pytest.mark.parametrize(
    ("method", "used"),
    [("fork", False), *((method, True) for method in multiprocessing.get_all_start_methods())],
)
def test_processes_of_every_start_method(method, used, tmp_path):
    """With and without work in the parent before, whose threads a fork does not copy."""
    (tmp_path / "work.py").write_text(
        WORK
        + f"""
if __name__ == "__main__":
    early = [r.numpy().tobytes() for r in results()] if {used} else None
    context = mp.get_context({method!r})
    mine, theirs = context.Pipe()
    process = context.Process(target=answer, args=(theirs,))
    process.start()
    theirs.close()
    got = mine.recv()
    process.join()
    want = [r.numpy().tobytes() for r in results()]
    print(process.exitcode, got == want, early in (None, want))
"""
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "work.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip() == "0 True True", (done.stdout, done.stderr)


OPTIMIZED = """
import torch
import fused_mixup as fm
from fused_mixup import env


def expect(truth):
    if not truth:
        raise SystemExit("wrong")


def refused(error, call, *args, **options):
    try:
        call(*args, **options)
    except error:
        return True


expect(__doc__ is None and fm.mix.__doc__ is None)  # docstrings are gone, as asserts are
x, plan = torch.rand(4, 3, 8, 8), fm.MixPlan.uniform(4, "flip", 0.3)
labels, logits = torch.arange(4), torch.randn(4, 10, requires_grad=True)
expect(torch.allclose(fm.mix(x, plan), 0.3 * x + 0.7 * x.flip(0)))
target = fm.MixedTarget.from_labels(labels, plan, 10)
loss = fm.soft_target_cross_entropy(logits, target)
expect(torch.allclose(loss, torch.nn.functional.cross_entropy(logits, target.dense())))
loss.backward()
expect(fm.BatchMix(10, cutmix_alpha=1.0)(x, labels)[0].shape == x.shape)
expect(refused(ValueError, fm.mix, x[:3], plan))
expect(refused(TypeError, fm.mix_, x.long(), plan))
expect(refused(IndexError, fm.MixedTarget.from_labels, labels + 7, plan, 10))
expect(refused(ValueError, fm.MixedTarget.from_labels, labels[:3], plan, 10))
expect(refused(ValueError, fm.soft_target_cross_entropy, logits[:3], target))
expect(refused(ValueError, fm.draw_plan, 4, state=fm.plan_state(0), cutmix_alpha=1.0))
expect(refused(RuntimeError, torch.ops.fused_mixup.mix_targets, labels[None], None, None, None, 1))
expect("compiled modules" in env.report())
print("all there")
"""


@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_python_without_asserts_and_docstrings(option):
    code = OPTIMIZED if option == "-OO" else OPTIMIZED.replace("fm.mix.__doc__ is None", "True")
    done = subprocess.run(
        [sys.executable, option, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "all there" in done.stdout, done.stdout + done.stderr
