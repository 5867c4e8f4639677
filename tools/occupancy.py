"""How many blocks a multiprocessor holds, and how much memory traffic that keeps under way.

The rules are those of the CUDA occupancy calculator: blocks are limited by threads, by the number
of blocks, by registers, which are handed out to warps in units, and by shared memory, of which
every block costs 1 KiB more than it asks for.

What follows from the occupancy is a prediction, made without a GPU. By Little's law a
multiprocessor that is to draw its share of the bandwidth needs latency x bandwidth bytes under way
at all times. LATENCY is that of memory under load, and all bytes are counted against it although
half of a copy's are writes, for which nobody waits: the factor of two stands for the time in which
a thread computes addresses, reads its row's weights or is replaced by the next.
"""

from __future__ import annotations

from dataclasses import dataclass

LATENCY = 1.2e-6  # seconds; idle memory answers in about half of it

WARP = 32
REGISTERS = 64 * 1024  # per multiprocessor
REGISTER_UNIT = 256  # per warp
SHARED_UNIT = 128
RESERVED = 1024  # bytes of shared memory that every block costs


@dataclass(frozen=True)
class Arch:
    """Limits of a multiprocessor."""

    name: str
    shared: int  # bytes for all blocks
    warps: int = 64
    blocks: int = 32

    @property
    def shared_limit(self) -> int:
        """Bytes that one block may ask for."""
        return self.shared - RESERVED


ARCHS = {
    80: Arch("sm_80", 164 * 1024),
    90: Arch("sm_90", 228 * 1024),
    100: Arch("sm_100", 228 * 1024),
}


@dataclass(frozen=True)
class Part:
    """A GPU as its data sheet has it."""

    name: str
    arch: int
    multiprocessors: int
    bandwidth: float  # bytes per second

    @property
    def needed(self) -> float:
        """Bytes that a multiprocessor must have under way to draw its share of the bandwidth."""
        return LATENCY * self.bandwidth / self.multiprocessors


PARTS = (
    Part("A100 80GB", 80, 108, 2.04e12),
    Part("H100 SXM", 90, 132, 3.35e12),
    Part("H200", 90, 132, 4.8e12),
    Part("B200", 100, 148, 8.0e12),
)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def blocks_per_multiprocessor(arch: Arch, threads: int, registers: int, shared: int) -> int:
    """``shared``: static and dynamic, in bytes, without what the system reserves."""
    warps = -(-threads // WARP)
    limits = [arch.blocks, arch.warps // warps]
    if registers:
        # Registers lie in four partitions, and a warp takes its share from one of them.
        per_warp = _up(registers * WARP, REGISTER_UNIT)
        limits.append(REGISTERS // 4 // per_warp * 4 // warps)
    limits.append(arch.shared // _up(shared + RESERVED, SHARED_UNIT))
    return min(limits)


def most_registers(arch: Arch, threads: int, blocks: int) -> int:
    """The registers per thread with which ``blocks`` still fit; 255 is what a thread can name."""
    fitting = (r for r in range(255, 0, -1) if _fits(arch, threads, r, blocks))
    return next(fitting, 0)


def _fits(arch: Arch, threads: int, registers: int, blocks: int) -> bool:
    return blocks_per_multiprocessor(arch, threads, registers, 0) >= blocks


def predicted_share(part: Part, under_way: float, floor: float, moved: float) -> float:
    """Of the bandwidth of a copy, in useful bytes: what is predicted, and nobody has measured."""
    return min(1.0, under_way / part.needed) * floor / moved
