"""Edges of clamps, long cycles and unrounded logits on the CPU's kernels and on Triton's.

tests/test_cuda_host_mix.py and tests/test_cuda_host_loss.py ask the same of the CUDA kernels.
"""

from __future__ import annotations

import importlib
import os

import edge_cases
import pytest
import torch
import unrounded

import fused_mixup as fm
from fused_mixup import backends, ops

# The interpreter is NumPy, which warns of operations on NaN that tests do on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

WHY_NO_TRITON = backends.reason_unavailable("triton", "CPU")


def kernels_of(name: str):
    """A context in which this backend serves tensors on the CPU."""
    why = backends.reason_unavailable(name, "CPU")
    if why is not None:
        pytest.skip(why)
    if name == "triton":
        import triton_place  # noqa: F401 - watches the programs of a launch
    return fm.backend(name)


@pytest.mark.parametrize("name", ["native", "triton"])
def test_edges_of_the_clamps(name):
    with kernels_of(name):
        step = 2 if name == "triton" else 1  # the interpreter is slow
        edge_cases.check_mix(ops, dtypes=edge_cases.DTYPES[:: 2 * step - 1], step=step)
        edge_cases.check_transpose(ops.mix_backward, step=step)
        edge_cases.check_targets(ops)
        edge_cases.check_boxes(ops)
        edge_cases.check_labels(ops, step=step)


@pytest.mark.parametrize("name", ["native", "triton"])
def test_edges_of_masks_and_collages(name):
    with kernels_of(name):
        step = 3 if name == "triton" else 1  # the interpreter is slow
        edge_cases.check_masks(ops, step=step)
        edge_cases.check_collages(ops, step=step)


@pytest.mark.parametrize("name", ["native", "triton"])
def test_cycles_of_more_rows_than_a_block_has_threads(name):
    with kernels_of(name):
        edge_cases.check_long_graphs(ops, 1500)


@pytest.mark.skipif(WHY_NO_TRITON is not None, reason=str(WHY_NO_TRITON))
def test_batches_that_triton_mixes_through_scratch(monkeypatch):
    mix = importlib.import_module("fused_mixup.triton_kernels.mix")
    monkeypatch.setattr(mix, "MAX_TILE_ROWS", 4)
    monkeypatch.setattr(mix, "SCRATCH_BYTES", edge_cases.B * 4 * 50)  # 50 columns of 240 at a time
    with kernels_of("triton"):
        edge_cases.check_mix(ops, dtypes=(torch.float32,), step=2)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("native", shape) for shape in unrounded.UNROUNDED),
        *(("triton", shape) for shape in unrounded.INTERPRETED),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_unrounded_logits(name, shape, dtype):
    with kernels_of(name):
        # The interpreter truncates where a GPU rounds to bfloat16.
        interpreted = name == "triton" and os.environ["TRITON_INTERPRET"] == "1"
        truncates = interpreted and dtype == torch.bfloat16
        unrounded.check_unrounded(ops, shape, dtype, truncates=truncates)
