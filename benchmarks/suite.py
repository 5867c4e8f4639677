"""The benchmarks, with pytest-benchmark: one test for each case, turn and provider.

    python -m pytest benchmarks/suite.py [--bench-only TEXT] [--bench-full] [--benchmark-…]

`make bench` runs it group by group, in processes of their own (run.py). Providers of a case take
turns, two each, so that drift of the machine affects all alike. A turn has many calls, so that the
memory allocator is in the state that one provider leaves, as in a program that has one of them.
If single calls alternated, each would pay for pages that the other has freed.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from itertools import cycle

import pytest
import torch

import fused_mixup as fm

from . import counters
from .registry import OURS, Case, Provider, Work, collect
from .timing import HOST_CALLS, WARMUP, capture, clock, hold_gpu

TURNS = 2
LEAST_ROUNDS, MOST_ROUNDS = 5, 100  # in a turn


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    device, group = option("--bench-device"), option("--bench-group")
    entries = []
    chosen = option("--bench-full"), option("--bench-only"), option("--bench-part")
    for case in collect(device, *chosen):
        if group not in ("", case.group):
            continue
        timer = clock(device, case.clock)
        mark = pytest.mark.benchmark(group=case.name, timer=timer, disable_gc=True)
        entries += [
            pytest.param(case, turn, name, id=f"{case.name} {name} {turn}", marks=mark)
            for turn in range(TURNS)
            for name in case.providers
        ]
    metafunc.parametrize(("case", "turn", "name"), entries)


class Stage:
    """The current case with its tensors; frees those of the case before."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.case: Case | None = None
        self.work: Work | None = None
        self.runs: dict[str, Callable] = {}
        self.out: dict[str, str] = {}  # skipped providers, and why

    def enter(self, case: Case) -> Work:
        if self.case is not case:
            self.case, self.work, self.runs, self.out = case, None, {}, {}
            gc.collect()
            if self.device == "cuda":
                torch.compiler.reset()
                torch.cuda.empty_cache()
            torch.manual_seed(0)
            self.work = case.build(case, self.device)
            declared, built = set(case.providers), set(self.work.providers)
            assert declared == built, f"{case.name}: declares {declared}, builds {built}"
        assert self.work is not None, f"{case.name} could not be built"
        return self.work

    def check(self, name: str, provider: Provider) -> None:
        """Makes the first call of a provider, and compares its result with the expected one."""
        work, case = self.work, self.case
        assert work is not None and case is not None
        first = work.inputs[0]
        try:
            got = provider.run(copy_input(first))
        except Exception as error:  # out of memory, or no compiler: others go on
            if name == OURS:
                raise
            if self.device == "cuda":
                torch.cuda.empty_cache()
            self.out[name] = str(error).partition("\n")[0][:200]
            return
        self.out[name] = "failed its check"  # until it has passed
        if provider.checked:
            expected = work.expected(copy_input(first))
            check_result(work.select(got), expected, provider.tolerance, f"{case.name}, {name}")
        run = provider.run
        self.runs[name] = capture(run, first) if case.clock == "graph" else run
        del self.out[name]


def copy_input(x):
    """A copy of a tensor, which calls may overwrite; lists of samples are only read."""
    if isinstance(x, dict):
        return {key: copy_input(value) for key, value in x.items()}
    if not isinstance(x, torch.Tensor):
        return x
    return x.detach().clone().requires_grad_(x.requires_grad)


def check_result(got, expected, tolerance: tuple[float, float] | None, what: str) -> None:
    """Raises where ``got`` differs from ``expected``: bit for bit, or by more than (rtol, atol)."""
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    for a, b in pairs:
        rtol, atol = tolerance or (0.0, 0.0)
        b = b if tolerance is None else b.to(a.dtype)
        message = lambda m: f"{what} differs from what is expected: {m}"  # noqa: E731
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True, msg=message)


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.config.getoption("--bench-device"))


@contextlib.contextmanager
def settings(work: Work, provider: Provider) -> Iterator[None]:
    threads = torch.get_num_threads()
    forced = fm.backend(provider.backend) if provider.backend else contextlib.nullcontext()
    torch.set_num_threads(work.threads or threads)
    try:
        with forced:
            yield
    finally:
        torch.set_num_threads(threads)


def time_run(benchmark, case: Case, work: Work, run: Callable, seconds: float, device: str) -> list:
    """Times rounds for about ``seconds``; returns the seconds of each."""
    inputs = cycle(work.inputs)

    def wait(*_: object) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    begin = time.perf_counter()
    for _ in range(WARMUP):  # warm-up calls also tell how many rounds fit
        run(next(inputs))
    wait()
    once = (time.perf_counter() - begin) / WARMUP
    if case.clock == "host":
        rounds = int(min(max(seconds / once / HOST_CALLS, LEAST_ROUNDS), MOST_ROUNDS))
        benchmark.pedantic(
            run, (next(inputs),), iterations=HOST_CALLS, rounds=rounds, teardown=wait
        )
        return benchmark.stats.stats.data

    def setup() -> tuple[tuple, dict]:
        if device == "cuda":
            hold_gpu()
        return (next(inputs),), {}

    rounds = int(min(max(seconds / once, LEAST_ROUNDS), MOST_ROUNDS))
    benchmark.pedantic(run, setup=setup, rounds=rounds)
    return benchmark.stats.stats.data


def test_case(
    benchmark, case: Case, turn: int, name: str, stage: Stage, record: Callable, request
) -> None:
    option = request.config.getoption
    line: dict = {"case": case.name, "provider": name, "turn": turn}
    if time.time() > option("--bench-until"):
        record({**line, "late": True})
        pytest.skip("no time was left")
    try:
        work = stage.enter(case)
        provider = work.providers[name]
        if isinstance(provider, str):
            stage.out[name] = provider
        elif turn == 0:
            with settings(work, provider):
                stage.check(name, provider)
        if name not in stage.out:
            assert isinstance(provider, Provider)
            run = stage.runs[name]
            seconds = option("--bench-seconds") / TURNS
            with settings(work, provider):
                if provider.parts is not None:
                    provider.parts.update({part: [] for part in provider.parts})
                line["seconds"] = time_run(benchmark, case, work, run, seconds, stage.device)
                if provider.parts is not None:
                    line["parts"] = {part: spent[WARMUP:] for part, spent in provider.parts.items()}
                if turn == TURNS - 1:
                    x = work.inputs[0]
                    line["counts"] = counters.measure(lambda: run(x), stage.device)
            line |= {"read": work.read, "written": work.written, "threads": work.threads}
            benchmark.extra_info.update({k: v for k, v in line.items() if k != "seconds"})
    except Exception as error:
        record({**line, "failed": str(error).partition("\n")[0][:400]})
        raise
    if name in stage.out:
        record({**line, "skipped": stage.out[name]})
        pytest.skip(stage.out[name])
    record(line)
