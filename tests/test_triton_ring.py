"""mix_ and mix through rings of bulk copies: where they serve, and their bits.

The interpreter runs descriptors too, and refuses blocks off 16 bytes. What the compiler makes of
them is read by ``test_triton_compile.py``.
"""

from __future__ import annotations

import pytest
import torch
from triton_mixes import arguments, batch, check_all, expect, plan_of
from triton_place import DEVICE, HALF, INTERPRETED, quiet

import fused_mixup.triton_kernels as tk
from fused_mixup import experimental, reference
from fused_mixup.plan import MixPlan
from fused_mixup.triton_kernels import common, configs

pytestmark = [pytest.mark.gpu, quiet]


@pytest.fixture
def launched(monkeypatch) -> list[str]:
    """The kernels that run, with the switch on."""
    monkeypatch.setenv(experimental.VARIABLE, "1")
    if not INTERPRETED and configs.ring_config("ring_pair", 4) is None:
        pytest.skip("needs a GPU that copies tensors in bulk: sm_90 or newer")
    names: list[str] = []
    launch = common.launch

    def recorded(kernel, *args, **options):
        names.append(kernel.__name__)
        launch(kernel, *args, **options)

    monkeypatch.setattr(common, "launch", recorded)
    return names


def rings(names: list[str]) -> set[str]:
    return {name for name in names if name.startswith("ring")}


# Samples of some 20,000 bytes: several blocks and a part of one, over several programs.
@pytest.mark.parametrize("box", ["none", "boxes", "rows"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, *HALF], ids=str)
def test_flips(launched, dtype, box):
    shape = (3, 16, 16 * (400 // 16 // dtype.itemsize + 1))
    check_all(batch(5, shape, dtype), plan_of(5, "flip", box, shape[1:]))
    assert rings(launched) == {"ring_pair_kernel"}
    assert launched.count("ring_pair_kernel") == 2  # mix and mix_


def test_flip_of_one_weight_and_one_box(launched):
    """Plain arguments of the launch, as the tensors of a plan on the CPU are."""
    x = batch(5, (2, 24, 64))
    blend = torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(5, 2)
    box = torch.tensor([[3, 5, 20, 60]], dtype=torch.int32).expand(5, 4)
    want = reference.mix(x, None, blend, box, 1)
    assert torch.equal(tk.mix(x, None, blend, box, 1), want)
    assert launched == ["ring_pair_kernel"]


@pytest.mark.parametrize("name", ["roll", "permutation", "many"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF], ids=str)
def test_tiles(launched, dtype, name):
    for size, box in ((5, "none"), (8, "rows")):
        check_all(batch(size, (3, 16, 80), dtype), plan_of(size, name, box, (16, 80)))
    assert rings(launched) == {"ring_tile_kernel"}


def test_tile_of_256_samples(launched):
    check_all(batch(256, (152,)), plan_of(256, "permutation", "rows", (152,)))
    assert rings(launched) == {"ring_tile_kernel"}


def test_a_partner_out_of_range_is_clamped(launched):
    x = batch(6, (64,))
    plan = plan_of(6, "permutation", "none", (64,))
    wrong = torch.tensor([6, 2**31 - 1, -1, -(2**31), 3, 4], dtype=torch.int32, device=DEVICE)
    want = reference.mix(x, wrong.clamp(0, 5), *arguments(plan)[1:])
    tk.mix_(x, wrong, *arguments(plan)[1:])
    assert torch.equal(x, want)
    assert launched == ["ring_tile_kernel"]


def test_only_valid_descriptors_are_made(launched, monkeypatch):
    """Unaligned, strided, small, large and byte batches keep the kernels that served before."""
    wide, odd = batch(4, (3, 16, 160)), batch(4, (2563,))
    unaligned = torch.empty(wide.numel() + 1, device=DEVICE)[1:].view_as(wide).copy_(wide)
    half = batch(4, (2568,), torch.float16)[:, :2561]  # no whole number of pairs
    flips = unaligned, odd, wide[..., 1:], batch(4, (40,))
    permutations = unaligned, odd, half, batch(257, (16,)), batch(4, (2048,), torch.uint8)
    for name, batches in (("flip", flips), ("permutation", permutations)):
        for x in batches:
            args = arguments(plan_of(len(x), name, "none", ()))
            want = expect(reference.mix, x, *args)
            tk.mix_(x, *args)
            assert torch.equal(x, want)
    tk.mix_(wide, *arguments(plan_of(4, "permutation", "boxes", (16, 160))))
    assert launched and not rings(launched)
    flip = arguments(MixPlan.uniform(4, "flip", 0.3))
    tk.mix_(wide, *flip)
    assert rings(launched)
    launched.clear()
    monkeypatch.delenv(experimental.VARIABLE)
    tk.mix_(wide, *flip)
    assert launched == ["pair_kernel"]
