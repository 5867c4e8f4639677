"""Compiles every CUDA kernel, without PyTorch: no spills and no stack frame on Ampere and Hopper.

A stack frame means an array that the compiler could not keep in registers; every access to it then
goes through memory, and a kernel that lives on bandwidth loses what it was written for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DRIVERS = Path(__file__).parent / "host_cuda"
sys.path.insert(0, str(DRIVERS.parents[1] / "tools"))
import build_probes  # noqa: E402

ENTRY = re.compile(
    r"Compiling entry function '(\S+)' for.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers",
    re.S,
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What ptxas says of each driver on each architecture; compiled side by side."""
    toolkit, why, _ = build_probes.find_toolkit(os.environ)
    if toolkit is None:
        pytest.skip(str(why))
    folder = tmp_path_factory.mktemp("cubin")
    running = {}
    for driver in ("mix", "loss"):
        for arch in (80, 90):
            command = [str(toolkit.home / "bin" / "nvcc"), "-std=c++17", "-cubin", "-Xptxas", "-v"]
            command += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
            command += [str(DRIVERS / f"device_{driver}.cu"), "-o", f"{folder}/{driver}{arch}"]
            running[driver, arch] = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
    out = {key: process.communicate()[0] for key, process in running.items()}
    for key, process in running.items():
        assert process.returncode == 0, f"{key}: {out[key]}"
    return out


# Fewer would mean that the drivers no longer instantiate every kernel.
@pytest.mark.parametrize(("driver", "kernels"), [("mix", 111), ("loss", 28)])
@pytest.mark.parametrize("arch", [80, 90])
def test_registers(reports, driver, kernels, arch):
    found = ENTRY.findall(reports[driver, arch])
    assert len(found) >= kernels
    for name, stack, spill_stores, spill_loads, registers in found:
        assert (int(stack), int(spill_stores), int(spill_loads)) == (0, 0, 0), name
        # Two blocks of 256 threads, or one of 512, leave a thread 128 registers.
        assert int(registers) <= 128, name
