"""What the permutation ring (csrc/cuda/mix_ring.cuh) should reach, as a share of a copy.

A prediction from the shape of its tiles, no measurement. Loads run all the time, so three things
are lost: blocks without a tile in the last round; bytes that should be in flight to cover the
latency of memory, and are not; the latency itself, once, before the first tile is there. The
instructions of a tile have to fit into the time in which its bytes move. What is not modelled is
how many copies a second the copy engine takes: `cycles` is the time between two of them on a
multiprocessor.
"""

from __future__ import annotations

from dataclasses import dataclass

from occupancy import ARCHS

LATENCY = 0.8e-6  # of memory under load, in seconds
ISSUED = 4  # instructions of a multiprocessor per cycle
MIXING = 110  # instructions of a thread for 16 bytes of a sample, in the code of nvcc 13.0
WIDEST, NARROWEST, MOST_STAGES, TILE = 16 * 1024, 64, 4, 64 * 1024
SAMPLE = 3 * 224 * 224 * 2  # bytes, of bfloat16
BATCHES = (64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Gpu:
    """From data sheets: H200, B200."""

    multiprocessors: int
    bandwidth: float  # bytes a second
    clock: float


GPUS = {90: Gpu(132, 4.8e12, 1.98e9), 100: Gpu(148, 8.0e12, 1.965e9)}


def ring_shape(
    batch: int, vectors: int, spatial: int, shared_limit: int, blocks: int
) -> tuple[int, int]:
    """(bytes of a piece, stages), as ring_shape() in csrc/cuda/mix_ring.cuh has it; or zeros."""
    rows = batch * (16 + 4 * (1 + 2 * spatial)) + (batch + 31) // 32 * 4
    best, best_share, width = (0, 0), 0, WIDEST
    while width >= NARROWEST:
        tile = batch * width
        stages = min(MOST_STAGES, (shared_limit - 256 - rows) // tile)
        tiles = -(-vectors * 16 // width)
        rounds = -(-tiles // blocks)
        share = 1000 * tiles // (rounds * blocks)
        fits = (tile <= TILE or width <= NARROWEST) and stages >= 2 and rounds >= 2
        if fits and share >= best_share + 20:
            best, best_share = (width, stages), share
        width //= 2
    return best


@dataclass(frozen=True)
class Prediction:
    width: int
    stages: int
    in_flight: int  # bytes per multiprocessor
    cycles: float  # between two copies
    share: float  # of a copy


def predict(batch: int, arch: int, sample: int = SAMPLE) -> Prediction:
    gpu, limit = GPUS[arch], ARCHS[arch].shared_limit
    width, stages = ring_shape(batch, sample // 16, 0, limit, gpu.multiprocessors)
    tile = batch * width
    tiles = -(-sample // width)
    last_round = tiles / (-(-tiles // gpu.multiprocessors) * gpu.multiprocessors)
    in_flight = (stages - 1) * tile
    needed = gpu.bandwidth / 2 * LATENCY / gpu.multiprocessors  # half of what moves is read
    moving = 2 * tile / (gpu.bandwidth / gpu.multiprocessors)
    mixing = tile / 16 / 32 * MIXING / ISSUED / gpu.clock
    total = 2 * batch * sample / gpu.bandwidth
    share = last_round * min(1, in_flight / needed, moving / mixing) * total / (total + LATENCY)
    return Prediction(width, stages, in_flight, moving * gpu.clock / batch, share)


HEAD = ("batch", "bytes of a piece", "tiles", "KiB in flight", "cycles", "share of a copy")
TITLE = "Predicted: bfloat16 [batch, 3, 224, 224], any permutation"


def rows(arch: int) -> list[tuple[object, ...]]:
    found = []
    for batch in BATCHES:
        p = predict(batch, arch)
        found.append(
            (batch, p.width, p.stages, p.in_flight // 1024, f"{p.cycles:.0f}", f"{p.share:.0%}")
        )
    return found
