"""Runs kernels that are wrong on purpose (driver_*bugs.cpp) where a fault ends the process.

``python -m host_cuda.planted NAME ...`` prints JSON: for every name the exit status (0: the
sanitizer missed the fault) and the text of stderr. Each kernel runs in its own fork, on a tensor:
sanitizers must see out-of-bounds accesses in memory of PyTorch's allocator, as real kernels use.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

import torch

from . import lib
from .lib import library

FLOATS = 512


def run_planted(name: str, out: torch.Tensor) -> None:
    import ctypes

    planted = library().host_planted
    if name.startswith("bulk_"):
        planted = library().host_planted_bulk
    code = planted(name.encode(), ctypes.c_void_p(out.data_ptr()), ctypes.c_int64(out.numel()))
    assert code != -1, f"no planted kernel {name}"
    lib.check(code)


def run_in_fork(name: str) -> tuple[int, str]:
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.dup2(errors.fileno(), 2)
            try:
                run_planted(name, torch.zeros(FLOATS))
            except lib.LaunchError as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(3)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        return status, errors.read().decode()


if __name__ == "__main__":
    library()
    json.dump({name: run_in_fork(name) for name in sys.argv[1:]}, sys.stdout)
