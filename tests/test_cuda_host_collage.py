"""The kernels of mix_rectangles and mix_patches (csrc/cuda), run on the host, against the
reference bit for bit."""

from __future__ import annotations

import re

import edge_cases
import pytest
import torch
from comparing import same_bits
from host_cuda import build, collage_grid, collage_ops, lib

from fused_mixup import reference

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


def test_random_calls():
    """With wild ones among them, whose indices and boxes are out of every range."""
    assert collage_grid.run(100, seed=1) == 100


def launched():
    return {re.search(r"(\w+)_kernel<(.*)>\(", name).groups() for name in lib.kernels()[1]}


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_images_of_models_go_by_vectors(form):
    x = torch.randn(2, 16, 8, 16).half().contiguous(memory_format=form)
    box = torch.tensor([[[1, 2, 7, 15]]] * 2, dtype=torch.int32)
    source = torch.tensor([[1], [0]], dtype=torch.int32)
    index = torch.randint(-1, 4, (2, 2, 2)).int()
    lib.forget_launches()
    for name, args in (
        ("mix_rectangles", (x, None, source, box, box, None, 0, None)),
        ("mix_patches", (x, None, index, None, None, None)),
    ):
        out, want = torch.empty_like(x), torch.empty_like(x)
        getattr(collage_ops, name)(*args, out)
        getattr(reference, name)(*args, want)
        assert same_bits(out, want)
    assert {(name, types.split(", ")[1]) for name, types in launched()} == {
        ("rectangles", "8"),
        ("patches", "8"),
    }


def test_lines_that_32_bits_do_not_number_are_refused():
    x = torch.randn(1, 2, 40, 3)
    out = torch.zeros_like(x)
    with lib.max_count(39), pytest.raises(lib.LaunchError, match="failed with 1"):
        collage_ops.mix_patches(x, None, None, None, None, None, out)
    assert not out.any()


def test_edges_of_the_clamps():
    lib.set_order(0)
    edge_cases.check_collages(collage_ops)
