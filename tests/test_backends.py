"""Forcing a backend: which one serves a call, in threads, tasks, forks and backwards."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from backend_watch import DEFAULT, PLAN, run_in_thread, run_python

import fused_mixup as fm
from fused_mixup import MixPlan, backends, forcing, ops

# ------------------------------------------------------------------ one thread


def test_forcing_a_backend_and_back(reference_calls):
    x = torch.randn(4, 8)
    expected = fm.mix(x, PLAN)
    with fm.backend("reference"):
        assert backends.chosen("CPU") == "reference"
        assert torch.equal(fm.mix(x, PLAN), expected)
        with fm.backend("auto"):
            assert backends.chosen("CPU") == DEFAULT
            fm.mix(x, PLAN)
        assert len(reference_calls) == 1 and backends.chosen("CPU") == "reference"
    assert backends.chosen("CPU") == DEFAULT
    fm.mix(x, PLAN)
    assert len(reference_calls) == 1


def test_an_error_inside_leaves_the_choice_as_it_was():
    with pytest.raises(ZeroDivisionError), fm.backend("reference"):
        _ = 1 / 0
    assert backends.chosen("CPU") == DEFAULT
    with pytest.raises(ValueError, match="backend: expected one of"), fm.backend("cuda"):
        pass
    assert backends.chosen("CPU") == DEFAULT


def test_contexts_left_in_the_order_they_were_entered():
    first, second = fm.backend("reference"), fm.backend("triton")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert forcing.forced() == "triton"
    second.__exit__(None, None, None)
    assert forcing.forced() == "auto"


def test_one_context_entered_twice_and_by_two_threads():
    reference = fm.backend("reference")
    with reference, reference:
        with fm.backend("auto"):
            assert run_in_thread(forcing.forced) == "auto"
        with ThreadPoolExecutor(1) as pool:
            pool.submit(reference.__enter__).result()
            reference.__exit__(None, None, None)
            assert pool.submit(forcing.forced).result() == forcing.forced() == "reference"
            pool.submit(reference.__exit__, None, None, None).result()
            assert pool.submit(forcing.forced).result() == "auto"
            reference.__enter__()
    assert forcing.forced() == "auto"


def test_a_decorated_function_coroutine_and_generator():
    decorate = fm.backend("reference")

    @decorate
    def plain(depth):
        return [forcing.forced(), *(plain(depth - 1) if depth else [])]

    @decorate
    async def coroutine():
        before = forcing.forced()
        await asyncio.sleep(0)
        return [before, forcing.forced()]

    @decorate
    def generator():
        try:
            got = yield forcing.forced()
            yield got, forcing.forced()
        except KeyError:
            yield "caught", forcing.forced()
        finally:
            closed.append(forcing.forced())
        return forcing.forced()

    closed = []
    assert plain(2) == ["reference"] * 3
    assert asyncio.run(coroutine()) == ["reference"] * 2
    steps = generator()
    assert next(steps) == "reference" and forcing.forced() == "auto"
    assert steps.send(1) == (1, "reference") and forcing.forced() == "auto"
    assert steps.throw(KeyError()) == ("caught", "reference") and forcing.forced() == "auto"
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == "reference"
    steps = generator()
    next(steps)
    steps.close()
    assert closed == ["reference"] * 2 and forcing.forced() == "auto"
    with pytest.raises(TypeError, match="asynchronous generator"):

        @decorate
        async def both():
            yield


def test_a_generator_that_another_thread_closes():
    def steps():
        with fm.backend("reference"):
            yield

    started = steps()
    next(started)
    assert forcing.forced() == "reference"  # the generator and its caller are both inside
    run_in_thread(started.close)
    assert forcing.forced() == "auto"


# ------------------------------------------------------------------ threads, tasks, processes


def test_two_threads_have_their_own(reference_calls):
    x = torch.randn(4, 8)
    together = threading.Barrier(2)

    def forced_to(name):
        with fm.backend(name):
            for _ in range(20):
                together.wait(30)
                fm.mix(x, PLAN)
                together.wait(30)
        return threading.get_ident()

    with ThreadPoolExecutor(2) as pool:
        by_reference = pool.submit(forced_to, "reference")
        pool.submit(forced_to, "auto").result(60)
    assert reference_calls == [("mix", by_reference.result())] * 20


def test_a_new_thread_starts_with_the_default_and_a_task_inherits():
    with fm.backend("reference"):
        assert run_in_thread(forcing.forced) == "auto"

    async def tasks():
        async def named(name):
            with fm.backend(name):
                await asyncio.sleep(0.01)
                return forcing.forced()

        async def inherited():
            await asyncio.sleep(0.02)
            return forcing.forced()

        with fm.backend("reference"):
            late = asyncio.create_task(inherited())
        names = ["native", "reference", "triton"]
        return await asyncio.gather(*map(named, names)) == names, await late, forcing.forced()

    assert asyncio.run(tasks()) == (True, "reference", "auto")


SWITCHING = """
import random, threading
import torch
import fused_mixup as fm
from fused_mixup import forcing, reference

torch.set_num_threads(1)
plan, labels = fm.MixPlan.uniform(4, "flip", 0.3), torch.arange(4)
target = fm.MixedTarget.from_labels(labels, plan, 8)
served = threading.local()
for name in ("mix", "mix_", "soft_target_cross_entropy", "soft_target_cross_entropy_backward"):
    def watched(*args, real=getattr(reference, name)):
        served.count += 1
        return real(*args)
    setattr(reference, name, watched)
native = forcing.forced() == "auto" and fm.backends.chosen("CPU") == "native"


def step(x, z):
    served.count = 0
    mixed = fm.mix(x, plan)
    fm.mix_(again := x.clone(), plan)
    z.grad = None
    fm.soft_target_cross_entropy(z, target).backward()
    return mixed, again, z.grad


def work(seed):
    random.seed(seed)
    x, z = torch.randn(4, 3, 8, 8), torch.randn(4, 8, requires_grad=True)
    want = x * 0.3 + x.flip(0) * 0.7
    grad = (torch.softmax(z, 1) - target.dense()).detach() / 4
    for _ in range(125):
        for name in (random.choice(["reference", "auto"]), None):
            if name is None:
                got = step(x, z)
            else:
                with fm.backend(name):
                    got = step(x, z)
            close = [torch.allclose(a, b, atol=1e-6) for a, b in zip(got, (want, want, grad))]
            if not all(close) or (native and (served.count > 0) != (name == "reference")):
                wrong.append((name, close, served.count))


wrong = []
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print("wrong:", wrong[:3], forcing.forced())
"""


def test_a_thousand_rounds_of_switching_in_eight_threads():
    done = run_python(SWITCHING)
    assert done.stdout.strip() == "wrong: [] auto", (done.returncode, done.stderr)


FORKED = """
import os
import torch
import fused_mixup as fm
torch.set_num_threads(1)
x, plan = torch.randn(4, 8), fm.MixPlan.uniform(4, "flip", 0.3)
want = fm.mix(x, plan)
outer = fm.backend("reference")
outer.__enter__()
if child := os.fork():
    outer.__exit__(None, None, None)
    status = os.waitpid(child, 0)[1]
    print(status, fm.backends.chosen("CPU"), torch.equal(fm.mix(x, plan), want))
else:
    inside = fm.backends.chosen("CPU") == "reference" and torch.equal(fm.mix(x, plan), want)
    outer.__exit__(None, None, None)
    left = fm.backends.chosen("CPU") != "reference" and torch.equal(fm.mix(x, plan), want)
    os._exit(0 if inside and left else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_inside_the_context():
    done = run_python(FORKED)
    assert done.stdout.strip() == f"0 {DEFAULT} True", (done.returncode, done.stderr)


# ------------------------------------------------------------------ refusals, the environment


CALL = (
    "import torch, fused_mixup as fm; x = torch.ones(4, 8); "
    "fm.mix_(x, fm.MixPlan.uniform(4, 'flip', 0.3)); print('ran', fm.backends.chosen('CPU'))"
)


def test_environment_forces_a_backend():
    done = run_python(CALL, FUSED_MIXUP_BACKEND="reference")
    assert done.stdout.strip() == "ran reference", done.stderr
    done = run_python(CALL, FUSED_MIXUP_BACKEND="triton", TRITON_INTERPRET="0")
    assert "triton backend is forced but cannot run on CPU tensors" in done.stderr
    assert "FUSED_MIXUP_BACKEND=auto" in done.stderr and "ran" not in done.stdout


def test_a_new_thread_starts_with_what_the_environment_forces():
    code = (
        "import threading, fused_mixup as fm\n"
        "say = lambda: print(fm.forcing.forced())\n"
        "with fm.backend('auto'):\n"
        "    say(); t = threading.Thread(target=say); t.start(); t.join()"
    )
    assert run_python(code, FUSED_MIXUP_BACKEND="reference").stdout.split() == ["auto", "reference"]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_backend_that_cannot_run_refuses(compiled, monkeypatch):
    monkeypatch.setitem(backends._reasons, ("native", "CPU"), "it was taken away")
    x = torch.ones(4, 8)
    call = torch.compile(ops.mix, backend="eager") if compiled else ops.mix
    with (
        fm.backend("native"),
        pytest.raises(RuntimeError, match="native backend is forced .* CPU tensors: it was taken"),
    ):
        call(x, None, PLAN.blend, PLAN.box, PLAN.rule)
    assert call(x, None, PLAN.blend, PLAN.box, PLAN.rule).shape == x.shape


def test_a_forced_backend_refuses_devices_that_it_has_no_kernels_for():
    # Quantized tensors stand for a device that is neither CPU nor CUDA: no kernel key of ours.
    x = torch.quantize_per_tensor(torch.eye(2), 1.0, 0, torch.quint8)
    plan = MixPlan.identity(2)
    with fm.backend("native"), pytest.raises(RuntimeError, match="native backend is forced"):
        ops.mix(x, None, plan.blend, plan.box, plan.rule)
