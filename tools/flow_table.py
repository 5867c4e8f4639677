"""What a flip and the default loss should reach, as a share of a copy.

A prediction, no measurement: one multiprocessor is followed event by event. It has as many blocks
as the compiled registers leave it, and takes a new one where one ends. A warp goes through the
phases of its kernel. Each phase waits for the others at two servers, first come first served: the
multiprocessor's share of memory's bandwidth, and its instructions. A load takes the latency of
memory on top; a store is not waited for. Phases end at barriers where the kernel has one.

Instructions are those of the path that most vectors take, in the code of nvcc 13.0. What is not
modelled: banks and channels of memory, turns between reads and writes, misses of L1 in the second
sweep of a loss.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from occupancy import ARCHS, WARP, blocks_per_multiprocessor
from ring_table import GPUS, ISSUED, LATENCY, Gpu

VECTOR = 16 * WARP  # bytes of a warp
EXPS = 16  # results of a multiprocessor's special function units per cycle
START = 400  # cycles until a block in the place of another issues
NEAR = 100  # cycles of a load from L1 under load
MERGE = 1000  # cycles in which two times five rounds of shuffles merge the sums of a row
LAUNCH = 2.5e-6  # seconds of a small kernel


@dataclass(frozen=True)
class Phase:
    """A warp waits for ``read`` vectors, computes, and writes ``written`` ones."""

    read: float = 0
    instructions: float = 0
    exps: float = 0  # for each thread
    delay: float = 0  # cycles, beside those of memory
    written: float = 0
    barrier: bool = False  # all warps of the block wait for each other at its end


@dataclass(frozen=True)
class Kernel:
    label: str  # as kernel_table.label_of() has it
    threads: int
    registers: dict[int, int]  # by architecture, as compiled
    shared: int
    phases: Sequence[Phase]
    blocks: int  # of the grid
    small: int = 0  # kernels before and after

    def resident(self, arch: int) -> int:
        return blocks_per_multiprocessor(
            ARCHS[arch], self.threads, self.registers[arch], self.shared
        )

    @property
    def moved(self) -> float:
        """Bytes of a block."""
        vectors = sum(phase.read + phase.written for phase in self.phases)
        return vectors * VECTOR * self.threads / WARP


Step = Literal["ask", "compute", "write"]


def _cycles(kernel: Kernel, arch: int, gpu: Gpu) -> float:
    """Cycles of the multiprocessor that has the most blocks."""
    per_cycle = gpu.bandwidth / gpu.multiprocessors / gpu.clock
    warps, latency = kernel.threads // WARP, LATENCY * gpu.clock
    waiting = -(-kernel.blocks // gpu.multiprocessors)
    memory = units = end = 0.0  # when the servers are free
    events: list[tuple[float, int, int, int, Step]] = []
    arrived: dict[tuple[int, int], int] = {}
    order = started = 0

    def later(at: float, block: int, phase: int, step: Step) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (at, order, block, phase, step))

    def start(at: float) -> None:
        nonlocal started
        if started == waiting:
            return
        started += 1
        for _ in range(warps):
            later(at + START, started, 0, "ask")

    for _ in range(kernel.resident(arch)):
        start(-START)
    while events:
        at, _, block, number, step = heapq.heappop(events)
        if number == len(kernel.phases):
            end = max(end, at)
            arrived[block, number] = arrived.get((block, number), 0) + 1
            if arrived[block, number] == warps:
                start(at)
            continue
        phase = kernel.phases[number]
        if step == "ask":
            ready = at + phase.delay
            if phase.read:
                memory = max(memory, at) + phase.read * VECTOR / per_cycle
                ready = memory + latency
            later(ready, block, number, "compute")
        elif step == "compute":
            taken = max(phase.instructions / ISSUED, phase.exps * WARP / EXPS)
            units = max(units, at) + taken
            later(units, block, number, "write")
        else:
            if phase.written:
                memory = max(memory, at) + phase.written * VECTOR / per_cycle
                end = max(end, memory)
            if not phase.barrier:
                later(at, block, number + 1, "ask")
                continue
            arrived[block, number] = arrived.get((block, number), 0) + 1
            for _ in range(warps if arrived[block, number] == warps else 0):
                later(at, block, number + 1, "ask")
    return end


def predict(kernel: Kernel, arch: int) -> float:
    """The share of a copy that moves the same bytes at the bandwidth of the data sheet."""
    gpu = GPUS[arch]
    copy = kernel.blocks * kernel.moved / gpu.bandwidth
    return copy / max(copy, _cycles(kernel, arch, gpu) / gpu.clock + kernel.small * LAUNCH)


def flip(box: bool, batch: int = 1024, sample: int = 3 * 224 * 224 * 2) -> Kernel:
    """pair_kernel<__nv_bfloat16, 8>: a thread has two vectors of both samples of a pair."""
    rounds = 4 if box else 1
    mixes = Phase(4, 400 if box else 300, written=4)
    rows = Phase(1 / 16, 60, barrier=True)  # the rows of the pair, in shared memory
    blocks = batch // 2 * -(-sample // 16 // (256 * 2 * rounds))
    registers = {90: 63, 100: 56} if box else {90: 56, 100: 48}
    phases = [*([rows] if box else []), *[mixes] * rounds]
    label = f"pair bf16x8{' box' if box else ''}"
    return Kernel(label, 256, registers, 2304 if box else 0, phases, blocks)


def loss(rows: int = 16384, classes: int = 21841, threads: int = 256) -> Kernel:
    """row_kernel<__nv_bfloat16, kSparse, kBoth>: four vectors of a thread in a step of a sweep."""
    vectors = classes * 2 / 16 / threads  # of a thread
    steps = [min(4.0, vectors - done) for done in range(0, -int(-vectors // 1), 4)]
    sums = [Phase(n, 60 * n, 8 * n) for n in steps]
    sums[-1] = Phase(steps[-1], 60 * steps[-1], 8 * steps[-1], barrier=True)
    gradient = [Phase(0, 75 * n, 8 * n, NEAR, n) for n in reversed(steps)]
    merge, add = Phase(0, 250, 10, MERGE), Phase(0, 60, 0, MERGE / 4, barrier=True)
    phases = [*sums, merge, *gradient, add]
    # Kernels before and after it count the rows, as labels may be ignored, and add its sums.
    return Kernel("row bf16 sparse both", threads, {90: 64, 100: 64}, 1297, phases, rows, 2)


KERNELS = {
    "flip, bfloat16 [1024, 3, 224, 224]": flip(False),
    "flip with boxes, bfloat16 [1024, 3, 224, 224]": flip(True),
    "loss and gradient, bfloat16 [16384, 21841]": loss(),
}
HEAD = ("case", "blocks", "share of a copy")
TITLE = "Predicted: flip, and the default loss"


def rows(arch: int) -> list[tuple[object, ...]]:
    return [
        (name, kernel.resident(arch), f"{predict(kernel, arch):.0%}")
        for name, kernel in KERNELS.items()
    ]
