"""The launch configurations: one table, by kernel, architecture and bytes of an element.

Nothing is tuned at run time. ``python tools/triton_configs.py`` compares candidates and prints the
rows that should change; a row for an architecture has its reason beside it.
"""

import functools
from typing import NamedTuple

import triton

from ..experimental import experimental

_BACKEND_NAMES = {"cuda": "sm_{}", "hip": "{}"}


class Config(NamedTuple):
    block: int  # what a program, or a turn of its loop, takes: bytes or elements, as DEFAULT says
    warps: int = 4  # at most, where the size of a row or tile decides
    unroll: int = 1  # of losses: vectors that a thread reads ahead
    stages: int = 1  # of rings: blocks that the loop has in flight or in work
    steps: int = 1  # of rings: blocks that one program takes in turn


# What serves every architecture and width that TABLE does not name.
DEFAULT = {
    # Bytes of one sample: two 16-byte vectors for each of 128 threads.
    "pair": Config(4096),
    "backward": Config(4096),
    # Bytes of a tile in place: 512 threads hold 64 KiB in registers, and as much while they load.
    "tile": Config(65536, warps=16),
    "tile_boxed": Config(65536, warps=16),
    # Bytes of one channel, of the smaller side for images: a 16-byte vector for each thread.
    "masked": Config(2048),
    "normalize": Config(2048),
    # Elements.
    "collage": Config(1024),
    "count": Config(1024),
    "mask_mean": Config(1024),
    "scale": Config(2048),
    "targets": Config(2048),
    # Vectors of rows of classes; the row decides the block.
    "loss": Config(0, warps=8, unroll=4),
    "loss_weighted": Config(0, warps=8, unroll=2),  # weights, ranks or a target take registers
    # A row is read again while it is in the cache. Few rows of this length may be in flight at
    # once, so that a program takes a multiprocessor for itself.
    "loss_long": Config(0, warps=16, unroll=4),
    "loss_long_weighted": Config(0, warps=16, unroll=2),
    "loss_backward": Config(0, warps=8, unroll=2),
    "bce": Config(0, warps=8, unroll=2),
    "ranks": Config(0, warps=8, unroll=4),
    # Rings of bulk copies, in shared memory. Bytes of each of two samples: a multiprocessor holds
    # nine programs of 20 KiB, with 8 KiB or more of each in flight.
    "ring_pair": Config(4096, warps=4, stages=3, steps=8),
    # Bytes of a tile. Addresses of the gather take registers, so that one program runs: it keeps
    # 80 KiB in flight. Tiles of 32 KiB and 16 warps spill.
    "ring_tile": Config(16384, warps=8, stages=6, steps=16),
}

# (kernel, architecture or "*", bytes of an element) -> what serves there instead.
TABLE = {}
for _arch in ("sm_80", "sm_90", "sm_100"):
    for _size in (2, 4):
        # Of 256 samples two programs fit, with 60 KiB in flight each; of tiles of 64 KiB one, which
        # waits for 48 KiB of half types (104 of float32) at once (read from sm_90's machine code).
        TABLE["tile", _arch, _size] = Config(32768, warps=16)

# Architectures with bulk copies of tensors, and 228 KiB of shared memory for the stages.
_RINGS = ("sm_90", "sm_100", "sm_103")


@triton.jit
def _probe():
    pass


@functools.cache
def architecture() -> str | None:
    """The target that kernels are compiled for, such as ``"sm_90"``; None where interpreted."""
    if not isinstance(_probe, triton.JITFunction):
        return None
    target = triton.runtime.driver.active.get_current_target()
    return _BACKEND_NAMES[target.backend].format(target.arch)


def config(kernel: str, itemsize: int) -> Config:
    for arch in (architecture(), "*"):
        row = TABLE.get((kernel, arch or "*", itemsize))
        if row is not None:
            return row
    return DEFAULT[kernel]


def ring_config(kernel: str, itemsize: int) -> Config | None:
    """The configuration of a ring; None where it may not serve: no GPU has run one yet."""
    if not experimental() or architecture() not in (None, *_RINGS):
        return None
    return config(kernel, itemsize)
