"""A launch of more blocks than a grid can have: an error, not a count cut to 32 bits.

Tensors of stride 0 reach any length on memory of one element. Truncated to 32 bits each count here
would be one block, which would run and leave the other elements unwritten.
"""

from __future__ import annotations

import ctypes
import re

import pytest
import torch
from host_cuda import collage_ops, lib, loss_ops, mask_ops, normalize_ops, ops
from native_build import ROOT, why_no_compiler

pytestmark = pytest.mark.skipif(why_no_compiler() is not None, reason=str(why_no_compiler()))

CUT_TO_ONE = 2**32 + 1
FLIP, ROLL, SELF = 1, 2, 3
NONE = 2


def expanded(n: int, *sizes: int, dtype=torch.float32) -> torch.Tensor:
    return torch.zeros(1, *sizes, dtype=dtype).expand(n, *sizes)


def mixed(samples: int, pairing: int, out_of_place: bool) -> None:
    x = expanded(samples, 1)
    blend = torch.tensor([[0.5, 0.5]], dtype=torch.float64).expand(samples, 2)
    box = torch.empty(samples, 0, dtype=torch.int32)
    if out_of_place:
        ops.mix_out(x, None, blend, box, pairing, expanded(samples, 1))
    else:
        ops.mix_(x, None, blend, box, pairing)


def normalized(samples: int) -> None:
    x, out = expanded(samples, 1, 1, 1, dtype=torch.uint8), expanded(samples, 1, 1, 1)
    blend = torch.tensor([[0.5, 0.5]], dtype=torch.float64).expand(samples, 2)
    box = torch.empty(samples, 0, dtype=torch.int32)
    nothing = (None, None, None, None)
    normalize_ops.mix_normalize([x], None, blend, box, ROLL, [1.0], [2.0], *nothing, False, out)


def collage(patches: bool) -> None:
    x, out = expanded(CUT_TO_ONE, 1, 1), expanded(CUT_TO_ONE, 1, 1)
    if patches:
        collage_ops.mix_patches(x, None, None, None, None, None, out)
    else:
        none = torch.empty(0, 0, 4, dtype=torch.int32)
        collage_ops.mix_rectangles(x, None, none[..., 0], none, none, None, 0, None, out)


def mixed_by_masks(samples: int, pairing: int, in_place: bool) -> None:
    x = expanded(samples, 1, 1)
    blend = torch.tensor([[0.5, 0.5]], dtype=torch.float64).expand(samples, 2)
    plan = (None, blend, torch.empty(samples, 0, dtype=torch.int32), pairing)
    code, threshold = expanded(samples, dtype=torch.int32), expanded(samples)
    line = expanded(samples, 1, 1)
    mask = (code, threshold, line, line, None, 0)
    if in_place:
        mask_ops.mix_masked_(x, *plan, *mask)
    else:
        mask_ops.mix_masked_out(x, None, *plan, *mask, False, expanded(samples, 1, 1))


def means_of_masks() -> None:
    code = expanded(CUT_TO_ONE, dtype=torch.int32)
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    mask = mask_ops.host_mask(1, 1, code, expanded(CUT_TO_ONE), None, None, None, 0)
    lib.check(lib.library().host_mask_mean(ctypes.byref(mask), number(CUT_TO_ONE), pointer()))


def scaled() -> None:
    loss_ops.scale_(expanded(CUT_TO_ONE * 1024, 1), torch.tensor(2.0))


def targets() -> None:
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    code = lib.library().host_mix_targets(
        number(2), pointer(), pointer(), number(1), number(CUT_TO_ONE * 1024), number(1),
        number(SELF), pointer(), pointer(), pointer(), ctypes.c_double(0.0),
    )  # fmt: skip
    lib.check(code)


def cross_entropy(rows: int, positions: int) -> None:
    logits = expanded(rows, 1) if positions == 1 else wide(rows, positions)
    per_row = logits[:, 0]
    stats = torch.zeros(3, *[1] * per_row.ndim).expand(3, *per_row.shape)
    options = (logits, None, None, None, -100, 0.0, 0.0, 0.0, 0.0, NONE)
    loss_ops.soft_target_cross_entropy_backward_into(
        logits, per_row, logits, stats, torch.tensor(1.0), *options
    )


def binary(rows: int, positions: int) -> None:
    logits = expanded(rows, 1) if positions == 1 else wide(rows, positions)
    options = (logits, None, None, None, None, 0.0, None, 0.0, NONE, False)
    loss_ops.soft_target_binary_cross_entropy_backward_into(logits, logits, logits, *options)


def wide(rows: int, positions: int) -> torch.Tensor:
    """[B, 1, S] with adjacent positions, for which the column kernels run."""
    return torch.zeros(1, 1, positions).expand(rows, 1, positions)


CALLS = {
    # A block takes 32 rows of one element.
    "mix_, flip": lambda: mixed(2 * 32 * 2**32 + 2, FLIP, False),
    "mix_out, flip": lambda: mixed(2 * 32 * 2**32 + 2, FLIP, True),
    "mix_out, roll": lambda: mixed(32 * 2**32 + 1, ROLL, True),
    "mix_normalize": lambda: normalized(CUT_TO_ONE),
    "mix_rectangles": lambda: collage(False),
    "mix_patches": lambda: collage(True),
    # A block takes one row, or one pair.
    "mix_masked_, flip": lambda: mixed_by_masks(2 * CUT_TO_ONE, FLIP, True),
    "mix_masked_out, roll": lambda: mixed_by_masks(CUT_TO_ONE, ROLL, False),
    "mask_mean": means_of_masks,
    "scale_": scaled,
    "mix_targets": targets,
    "cross-entropy, rows": lambda: cross_entropy(8 * 2**32 + 1, 1),
    "cross-entropy, columns": lambda: cross_entropy(2**32 * 64 + 8, 8),
    "binary cross-entropy, rows": lambda: binary(8 * 2**32 + 1, 1),
    "binary cross-entropy, columns": lambda: binary(2**32 * 64 + 8, 8),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_more_blocks_than_a_grid_takes(call):
    with lib.variant("plain"), pytest.raises(lib.LaunchError, match="launch failed with 9:"):
        call()


def test_counts_of_blocks_are_cut_in_one_place():
    """Code that made its own grid would bypass the check; two files have grids, each with it."""
    for path in sorted((ROOT / "csrc" / "cuda").glob("*.cu*")):
        code = re.sub(r"//.*", "", path.read_text())
        if path.name in ("cluster.cuh", "dependent.cuh"):
            assert (
                code.count("config.gridDim") == code.count("kMaxBlocks) return kTooManyBlocks") == 1
            )
        elif path.name != "launch.cuh":
            assert "launch_grid" not in code, path.name
            assert not re.search(r"unsigned>\(.*(blocks|grid)", code), path.name
