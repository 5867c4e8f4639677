"""Counts with valgrind's callgrind, which simulates all of Python and PyTorch, for minutes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .stepping import MODULE, ROOT

MARKER = "(anonymous namespace)::cpu_capability*"  # calls.py calls it; callgrind dumps before it


def why_not() -> str | None:
    return None if shutil.which("valgrind") else "valgrind is not installed"


def module_instructions(dump: str) -> int:
    """Instructions of a dump that are the module's own, without its callees."""
    objects: dict[str, bool] = {}
    mine, called, total = False, False, 0
    for line in dump.splitlines():
        # "ob=(3) /path" names an object, "ob=(3)" refers to it later; cob= is a callee's.
        named = re.match(r"(c?ob)=\((\d+)\)(?: (.*))?", line)
        if named:
            if named[3] is not None:
                objects[named[2]] = named[3].endswith(MODULE)
            if named[1] == "ob":
                mine = objects[named[2]]
        elif line.startswith("calls="):
            called = True  # the next line has the callee's cost
        elif re.match(r"[+\-*\d]", line):
            if mine and not called:
                total += int(line.split()[1])
            called = False
    return total


def count(environment: dict[str, str]) -> tuple[str, dict[str, int]]:
    """The instruction set in use, and the module's instructions for each call."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        command += [f"--dump-before={MARKER}", sys.executable]
        command += ["-m", "benchmarks.instructions.calls", "callgrind"]
        env = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"valgrind failed:\n{done.stderr[-2000:]}")
        capability, *names = done.stdout.splitlines()
        dumps = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        # The first marker prints the instruction set. The others come in pairs: the dump before the
        # second of a pair has the call, and the few instructions of the first marker.
        counts = [module_instructions(path.read_text()) for path in dumps[2::2]]
    return capability, dict(zip(names, counts, strict=True))
