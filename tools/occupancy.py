"""Computes blocks per multiprocessor, and the registers that they leave to a thread.

The rules are those of the CUDA occupancy calculator. Four things limit the blocks: threads, the
number of blocks, registers (warps get them in units), and shared memory (every block costs 1 KiB
more than it asks for).
"""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
REGISTERS = 64 * 1024  # per multiprocessor
REGISTER_UNIT = 256  # per warp
SHARED_UNIT = 128
RESERVED = 1024  # bytes of shared memory that the system takes per block


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


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def blocks_per_multiprocessor(arch: Arch, threads: int, registers: int, shared: int) -> int:
    """``shared``: static and dynamic bytes, without the reserved part."""
    warps = -(-threads // WARP)
    limits = [arch.blocks, arch.warps // warps]
    if registers:
        # Registers lie in four partitions, and a warp takes its share from one of them.
        per_warp = _round_up(registers * WARP, REGISTER_UNIT)
        limits.append(REGISTERS // 4 // per_warp * 4 // warps)
    limits.append(arch.shared // _round_up(shared + RESERVED, SHARED_UNIT))
    return min(limits)


def most_registers(arch: Arch, threads: int, blocks: int) -> int:
    """The registers per thread with which ``blocks`` still fit; 255 is what a thread can name."""
    fitting = (r for r in range(255, 0, -1) if _fits(arch, threads, r, blocks))
    return next(fitting, 0)


def _fits(arch: Arch, threads: int, registers: int, blocks: int) -> bool:
    return blocks_per_multiprocessor(arch, threads, registers, 0) >= blocks
