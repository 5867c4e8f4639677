"""Counts by single steps: ptrace stops the process after each instruction of the module.

Linux on x86-64 and AArch64. A process may ptrace its own children without rights. Between the
markers breakpoints overwrite the module's code, so that Python and PyTorch run at full speed until
they enter it. Then the code is restored, and steps are counted until the process leaves it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TRACEME, SINGLESTEP, CONT, GETREGSET, SETREGSET = 0, 9, 7, 0x4204, 0x4205
PRSTATUS = 1
MODULE = "_C.abi3.so"


class Machine(NamedTuple):
    """Index of the program counter among the registers, and their number, in 8-byte words.

    ``trap`` is a breakpoint; after a hit the program counter is ``past`` bytes behind its start.
    """

    counter: int
    registers: int
    trap: bytes
    past: int


MACHINES = {
    "x86_64": Machine(16, 27, b"\xcc", 1),  # int3
    "aarch64": Machine(32, 34, b"\x00\x00\x20\xd4", 0),  # brk #0
}


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


_libc = ctypes.CDLL(None, use_errno=True)


def _ptrace(request: int, pid: int, address: int, data: object) -> None:
    _libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    _libc.ptrace.restype = ctypes.c_long
    if _libc.ptrace(request, pid, address, data) == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace: {os.strerror(error)}")


def trace_me() -> None:
    """Lets the parent of the calling process trace it."""
    _ptrace(TRACEME, 0, 0, None)


def why_not() -> str | None:
    """Why this machine cannot count this way, or None."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return f"counting by steps is for Linux on {' and '.join(MACHINES)}"
    # This process asks for permission and ends.
    code = "import signal, os; from benchmarks.instructions.stepping import trace_me; trace_me()"
    asked = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    if asked.returncode != 0:
        return f"ptrace is not permitted here ({asked.stderr.strip().splitlines()[-1]})"
    return None


def module_range(pid: int) -> tuple[int, int]:
    """The addresses of the module's code in the process."""
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith(MODULE) and "x" in line.split()[1]:
            ranges.append([int(word, 16) for word in line.split()[0].split("-")])
    if not ranges:
        raise RuntimeError(f"{MODULE} is not loaded: the package is not built for the CPU")
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def count(environment: dict[str, str]) -> tuple[str, dict[str, int]]:
    """The instruction set in use, and the module's instructions for each call."""
    command = [sys.executable, "-m", "benchmarks.instructions.calls", "stepping"]
    # On two cores every step would be a switch from one to the other.
    core = {min(os.sched_getaffinity(0))}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(process.pid, core)
    os.sched_setaffinity(0, core)
    try:
        counts = _follow(process.pid)
        assert process.stdout is not None
        capability, *names = process.stdout.read().splitlines()
    finally:
        os.sched_setaffinity(0, before)
        process.kill()
        process.wait()
    if len(names) != len(counts):
        raise RuntimeError(f"{len(counts)} counts for {len(names)} calls: one of them failed")
    return capability, dict(zip(names, counts, strict=True))


class Process:
    """A stopped child, with its registers and code."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.machine = MACHINES[platform.machine()]
        self.registers = (ctypes.c_uint64 * self.machine.registers)()
        size = ctypes.sizeof(self.registers)
        vector = _Vector(ctypes.cast(self.registers, ctypes.c_void_p), size)
        self.vector, self._kept = ctypes.addressof(vector), vector
        self.low, self.high = module_range(pid)
        self.memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        self.code = os.pread(self.memory, self.high - self.low, self.low)
        trap = self.machine.trap
        self.traps = trap * (len(self.code) // len(trap))

    def position(self) -> int:
        _ptrace(GETREGSET, self.pid, PRSTATUS, self.vector)
        return self.registers[self.machine.counter]

    def contains(self, position: int) -> bool:
        return self.low <= position < self.high

    def resume(self, how: int, number: int = 0) -> int:
        """Runs until the next stop; the signal that stopped it, 0 where it ended."""
        _ptrace(how, self.pid, 0, number)
        return wait_for_stop(self.pid)

    def arm(self) -> None:
        os.pwrite(self.memory, self.traps, self.low)

    def disarm(self) -> None:
        os.pwrite(self.memory, self.code, self.low)

    def enter(self) -> bool:
        """Whether the trap was one of ours; if so, restores the code and the program counter."""
        position = self.position() - self.machine.past
        if not self.contains(position):
            return False
        self.disarm()
        self.registers[self.machine.counter] = position
        _ptrace(SETREGSET, self.pid, PRSTATUS, self.vector)
        return True


def wait_for_stop(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    return os.WSTOPSIG(status) if os.WIFSTOPPED(status) else 0


def _count_call(process: Process) -> int:
    """Counts the module's steps from one marker to the next."""
    steps = 0
    process.arm()
    why = process.resume(CONT)
    while why == signal.SIGTRAP and process.enter():
        while why == signal.SIGTRAP:
            why = process.resume(SINGLESTEP)
            steps += 1
            if not process.contains(process.position()):
                break
        process.arm()
        why = process.resume(CONT)
    process.disarm()
    if why != signal.SIGSTOP:
        raise RuntimeError(f"the call was interrupted by signal {why}")
    return steps


def _follow(pid: int) -> list[int]:
    counts: list[int] = []
    if wait_for_stop(pid) != signal.SIGSTOP:
        raise RuntimeError("the process ended before its first call")
    process = Process(pid)
    why: int = signal.SIGSTOP
    try:
        while why == signal.SIGSTOP:
            counts.append(_count_call(process))
            why = process.resume(CONT)
    finally:
        os.close(process.memory)
    return counts
