"""Tests run on every device present, with every backend that can serve it."""

from __future__ import annotations

import contextlib
import os
import threading

# Tests run in parallel: waiting threads must not keep a core from others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # set before anything imports Triton

import pytest

import fused_mixup as fm
from benchmarks.timing import extra_bytes
from fused_mixup import backends, ops, reference

with contextlib.suppress(ModuleNotFoundError):
    # Within a compile PyTorch's own import of it has met the standard library's distutils, once.
    import setuptools  # noqa: F401

try:
    from hypothesis import settings
except ModuleNotFoundError:  # a GPU machine without a network may lack it; its tests are skipped
    pass
else:
    # Machines that run tests are shared, so a slow moment is not a failure.
    settings.register_profile("fused_mixup", deadline=None)
    settings.load_profile("fused_mixup")


# The CPU stands in for a GPU where `make gpu` is rehearsed.
GPU = "cpu" if os.environ.get("FUSED_MIXUP_REHEARSAL") == "1" else "cuda"


def places() -> list:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    places = []
    for device in devices:
        for backend in backends.BACKENDS:
            # Interpreted Triton is slow: test_triton.py covers it with a grid of its own.
            if device == "cpu" and backend == "triton":
                continue
            why = backends.reason_unavailable(backend, device.upper())
            marks = [pytest.mark.skip(reason=f"{backend} on {device}: {why}")] if why else []
            marks += [pytest.mark.gpu] if device == GPU else []
            places.append(pytest.param((device, backend), marks=marks, id=f"{device}-{backend}"))
    return places


def pytest_report_header() -> str:
    if torch.cuda.is_available():
        return f"fused_mixup: testing on CPU and {torch.cuda.get_device_name()}"
    return "fused_mixup: testing on the CPU alone, as PyTorch sees no GPU"


# One process runs a file, so that a long one begun last would leave the other cores idle.
LONG = ("test_ops", "test_draw_checkpoint", "test_mix", "test_mix_samples", "test_cuda_host_mix")
LONG += ("test_triton", "test_loss", "test_loss_grid", "test_loss_modes", "test_gpu", "test_env")
LONG += ("test_bench_results", "test_backends", "test_bench_instructions")


def pytest_collection_modifyitems(config, items) -> None:
    """Long files run first. Compiling Triton's kernels takes the most time on a GPU, so other tests
    run first there."""
    items.sort(key=lambda item: item.path.stem not in LONG)
    if "gpu" in config.option.markexpr:
        items.sort(key=lambda item: "triton" in item.nodeid)


SLOWEST = 12  # the summary names these files
_seconds: dict[str, float] = {}  # seconds of each file, summed over all test processes


def pytest_runtest_logreport(report) -> None:
    file = report.nodeid.partition("::")[0]
    _seconds[file] = _seconds.get(file, 0.0) + report.duration


def pytest_terminal_summary(terminalreporter) -> None:
    slow = sorted(_seconds.items(), key=lambda item: -item[1])[:SLOWEST]
    if not slow or slow[0][1] < 10:  # a run of a few chosen tests needs no summary
        return
    terminalreporter.section("slowest files")
    total = sum(_seconds.values())
    terminalreporter.write_line(f"{total:7.1f} s  all {len(_seconds)} files, one after another")
    for file, seconds in slow:
        terminalreporter.write_line(f"{seconds:7.1f} s  {file}")


@pytest.fixture(params=places())
def device(request):
    """A device, with one of its backends forced for the test."""
    name, backend = request.param
    with fm.backend(backend):
        yield name


@pytest.fixture
def kernel_backend(request):
    """A backend with kernels for CUDA tensors (gpu_places.py), forced for the test."""
    with fm.backend(request.param):
        yield request.param


@pytest.fixture(params=["native", "reference"])
def backend(request):
    """A backend that serves tensors on the CPU, forced for the test."""
    why = backends.reason_unavailable(request.param, "CPU")
    if why:
        pytest.skip(why)
    with fm.backend(request.param):
        yield request.param


@pytest.fixture
def reference_calls(monkeypatch):
    """A list of (op, thread), one entry for each call that the reference serves."""
    calls = []

    def record(name, real):
        return lambda *args: calls.append((name, threading.get_ident())) or real(*args)

    for name in ops.SCHEMAS:
        monkeypatch.setattr(reference, name, record(name, getattr(reference, name)))
    return calls


@pytest.fixture
def checked_distributions():
    """PyTorch's distributions check their arguments: a first torch.compile stops that for good."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(True)
    yield
    torch.distributions.Distribution.set_default_validate_args(before)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def extra_memory():
    """A function that runs another and returns its peak memory above the start, in bytes."""

    return lambda run: extra_bytes(run, "cpu")


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch runs in one thread: on small tensors more threads cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
