"""The environment report: its contents, and its truth about forced backends."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fused_mixup
from fused_mixup import backends, env
from fused_mixup.ops import SCHEMAS

ROOT = Path(__file__).resolve().parent.parent


def section(text: str, title: str) -> list[list[str]]:
    """The rows under the title, split into words."""
    (body,) = [part for part in text.split("\n\n") if part.startswith(title)]
    return [line.split() for line in body.splitlines()[1:]]


def run_env(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fused_mixup.env"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_versions_and_hardware():
    rows = dict(line.split(maxsplit=1) for line in env.report().split("\n\n")[0].splitlines()[1:])
    assert rows["version"] == fused_mixup.__version__
    assert rows["Python"].startswith(platform.python_version())
    assert rows["PyTorch"] == torch.__version__
    assert rows["CUDA"].startswith(torch.version.cuda or "none")
    assert f"{torch.get_num_threads()} threads" in rows["CPU"]
    assert torch.backends.cpu.get_cpu_capability() in rows["CPU"]
    if not torch.cuda.is_available():
        assert rows["GPU"] == "none visible"


@pytest.mark.parametrize(
    ("capability", "text"),
    [
        ((9, 0), "H200 (9.0: runs the compiled kernels)"),
        ((12, 0), "H200 (12.0: its driver compiles the kernels' PTX)"),
        ((7, 5), "H200 (7.5: has no compiled kernels; set FUSED_MIXUP_BACKEND=triton)"),
    ],
)
def test_what_runs_on_a_visible_gpu_is_said(capability, text, monkeypatch):
    monkeypatch.setattr(env, "_gpu_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: capability)
    build = SimpleNamespace(ARCH_LIST="8.0;9.0+PTX")
    monkeypatch.setattr(backends, "build_info", lambda: build)
    monkeypatch.setattr(backends, "_reasons", {})
    assert dict(env._version_rows())["GPU"] == text
    monkeypatch.setattr(backends, "_reasons", {("native", "CUDA"): "not built"})
    assert dict(env._version_rows())["GPU"] == "H200"


@pytest.mark.parametrize(
    ("value", "text"), [("", "off;"), ("0", "off;"), ("1", "on"), ("yes", "expected 0 or 1")]
)
def test_the_switch_of_experimental_kernels_is_reported(value, text, monkeypatch):
    monkeypatch.setenv("FUSED_MIXUP_EXPERIMENTAL", value)
    rows = dict(line.split(maxsplit=1) for line in env.report().split("\n\n")[0].splitlines()[1:])
    assert text in rows["experimental"]


def test_every_op_on_every_device():
    head, *rows = section(env.report(), "chosen")
    assert head == ["op", *backends.DEVICES]
    assert [row[0] for row in rows] == list(SCHEMAS)
    assert all(len(row) == len(head) for row in rows)


def test_every_backend_is_chosen_or_explained():
    with fused_mixup.backend("auto"):
        text = env.report()
    explained = {(row[0], row[1]) for row in section(text, "not chosen")}
    for device in backends.DEVICES:
        with fused_mixup.backend("auto"):
            chosen = backends.chosen(device)
        assert {b for d, b in explained if d == device} == set(backends.BACKENDS) - {chosen}


def test_forced_backend_is_reported():
    with fused_mixup.backend("reference"):
        _, *rows = section(env.report(), "chosen (backend: reference")
        assert all(row[1:] == ["reference", "reference"] for row in rows)


def test_forced_backend_that_cannot_run_is_no_fallback():
    # A separate process: that of the tests has Triton's interpreter, which serves the CPU.
    text = run_env(FUSED_MIXUP_BACKEND="triton", TRITON_INTERPRET="0").stdout
    _, *rows = section(text, "chosen (backend: triton")
    assert [row[:3] for row in rows] == [[op, "triton:", "error"] for op in SCHEMAS]
    assert "TRITON_INTERPRET=1" in text or "pip install triton" in text


def test_compiled_modules_say_what_they_are_or_why_not():
    rows = section(env.report(), "compiled modules")
    assert [row[0] for row in rows] == ["_C", "_C_cuda"]
    assert all(len(row) > 2 for row in rows)


def test_command():
    result = run_env(FUSED_MIXUP_BACKEND="reference")
    assert result.returncode == 0, result.stderr
    assert "(backend: reference;" in result.stdout


def test_command_refuses_an_unknown_backend():
    result = run_env(FUSED_MIXUP_BACKEND="fastest")
    assert result.returncode != 0
    assert "'fastest'" in result.stderr
    assert all(name in result.stderr for name in ("auto", "native", "triton", "reference"))
