"""mix_patches: against slices by hand and the published products, layouts, plans and errors."""

from __future__ import annotations

import pytest
import torch
from comparing import same_bits

import fused_mixup as fm
from fused_mixup import PatchPlan


def images(*shape, dtype=torch.float32):
    x = torch.rand(shape)
    return (255 * x).to(dtype) if dtype == torch.uint8 else x.to(dtype)


def own_patches(batch, rows, columns):
    return torch.arange(rows * columns).view(1, rows, columns).expand(batch, -1, -1)


def test_maps_of_each_patch_to_itself_change_nothing(backend):
    for dtype in (torch.float32, torch.int64, torch.bool):
        x = images(3, 2, 6, 8).mul(100).to(dtype)
        assert torch.equal(fm.mix_patches(x, PatchPlan(own_patches(3, 2, 4))), x)
        mask = torch.ones(3, 3, 1)
        if dtype == torch.float32:
            plan = PatchPlan(own_patches(3, 2, 4), mask=mask, partner=[0, 0, 0])
            assert torch.equal(fm.mix_patches(x, plan), x)


def test_a_constant_map_repeats_one_patch(backend):
    x = images(2, 3, 6, 8)
    got = fm.mix_patches(x, PatchPlan(torch.full((2, 3, 2), 3)))
    assert torch.equal(got, x[:, :, 2:4, 4:].repeat(1, 1, 3, 2))
    zeros = fm.mix_patches(x, PatchPlan(torch.full((2, 3, 2), -1)))
    assert not zeros.any()


def puzzle(x, plan, mask, height):
    """PuzzleMix's transport as it is published: patches times a one-hot plan."""
    batch, channels, _, _ = x.shape
    g = plan.shape[-1]
    p = height // g
    cells = x.view(batch, channels, g, p, g, p).permute(0, 1, 3, 5, 2, 4).flatten(4)
    one_hot = torch.zeros(batch, g * g, g * g)
    where = plan.flatten(1)
    one_hot.scatter_(1, where.clamp(min=0)[:, None], (where >= 0).float()[:, None])
    moved = torch.einsum("bcxyi,bij->bcxyj", cells, one_hot)
    return moved.view(batch, channels, p, p, g, g).permute(0, 1, 4, 2, 5, 3).reshape(x.shape)


@pytest.mark.parametrize("cells", [2, 4, 16])
def test_puzzlemix_is_the_published_product(backend, cells):
    """Transport and mask have grids of their own; lost patches are zeros."""
    x = images(4, 3, 32, 32)
    partner = torch.tensor([2, 0, 1, 3])
    plans = torch.randint(-1, 64, (2, 4, 8, 8))
    mask = torch.randint(0, 3, (4, cells, cells)) / 2
    m = torch.nn.functional.interpolate(mask[:, None], (32, 32))
    want = m * puzzle(x, plans[0], mask, 32) + (1 - m) * puzzle(x[partner], plans[1], mask, 32)
    plan = PatchPlan(plans[0], mask=mask, partner=partner, partner_index=plans[1])
    assert torch.equal(fm.mix_patches(x, plan), want)
    mean = mask.mean((1, 2))
    torch.testing.assert_close(plan.weight, torch.stack((mean, 1 - mean), 1))
    assert torch.equal(plan.label_sources, torch.stack((torch.arange(4), partner), 1).int())


def test_comixup_takes_blocks_of_many_samples(backend):
    """Co-Mixup: each block of an output is the same block of one of the inputs."""
    x = images(20, 3, 16, 16)
    source = torch.randint(0, 20, (20, 4, 4))
    one_hot = torch.nn.functional.one_hot(source, 20).float()  # [B, 4, 4, 20]
    spread = one_hot.repeat_interleave(4, 1).repeat_interleave(4, 2)
    want = torch.einsum("bhws,schw->bchw", spread, x)
    plan = PatchPlan(sample=source)
    assert torch.equal(fm.mix_patches(x, plan), want)
    torch.testing.assert_close(plan.weight, one_hot.mean((1, 2)))
    assert torch.equal(plan.label_sources, torch.arange(20).int().expand(20, 20))


def test_weights_of_zero_drop_what_is_infinite(backend):
    x = images(2, 1, 4, 4)
    x[1] = torch.inf
    mask = torch.tensor([[[1.0, 0.0]]] * 2)
    got = fm.mix_patches(x, PatchPlan(mask=mask, partner=[1, 0]))
    assert torch.equal(got[0, :, :, :2], x[0, :, :, :2]) and got[0, :, :, 2:].isinf().all()
    assert not got.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.float64])
def test_every_dtype_is_rounded_once(backend, dtype):
    x = images(3, 2, 6, 8, dtype=dtype)
    mask = torch.rand(3, 2, 4)
    plan = PatchPlan(mask=mask, partner=[1, 2, 0])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    m = mask.repeat_interleave(3, 1).repeat_interleave(2, 2)[:, None]
    want = m.to(wide) * x.to(wide) + (1 - m).to(wide) * x.roll(-1, 0).to(wide)
    want = (want.round() if dtype == torch.uint8 else want).to(dtype)
    assert same_bits(fm.mix_patches(x, plan), want)


def test_cells_of_any_size_are_whole(backend):
    """``interpolate(mode="nearest")`` puts pixel 41 of cells of 41 pixels into the first cell."""
    mask = torch.tensor([[[0.0, 1.0, 0.0]]])
    plan = PatchPlan(mask=mask, partner=[0])
    x = torch.arange(123.0).view(1, 1, 1, 123)
    assert torch.equal(fm.mix_patches(x, plan), x)
    cells = torch.nn.functional.interpolate(mask[:, None], (1, 123))
    assert cells[0, 0, 0, 41] != 1 and mask.repeat_interleave(41, 2)[0, 0, 41] == 1


def test_layouts_and_out(backend):
    x = images(3, 4, 6, 8).to(memory_format=torch.channels_last)
    plan = PatchPlan(torch.randint(0, 8, (3, 2, 4)))
    made = fm.mix_patches(x, plan)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made, fm.mix_patches(x.contiguous(), plan))
    out = torch.empty(3, 4, 6, 16)[..., ::2]
    assert fm.mix_patches(x, plan, out=out) is out and torch.equal(out, made)


# ------------------------------------------------------------------ errors

X = torch.rand(3, 2, 6, 8)
INDEX = torch.zeros(3, 2, 4, dtype=torch.int32)
REFUSED = {
    "nothing": (lambda: PatchPlan(), ValueError, "got none"),
    "a mask alone": (lambda: PatchPlan(mask=torch.rand(3, 2, 2)), ValueError, "partner: expected"),
    "a map [B, G]": (lambda: PatchPlan(INDEX.flatten(1)), ValueError, r"\.view\("),
    "two batch sizes": (lambda: PatchPlan(INDEX, sample=[0, 1]), ValueError, "3 rows"),
    "floats": (lambda: PatchPlan(INDEX.float()), TypeError, "integers"),
    "a sample that is none": (lambda: PatchPlan(INDEX, sample=[0, 1, 3]), IndexError, r"\[0, 3\)"),
    "an index beyond": (lambda: PatchPlan(INDEX + 8), IndexError, r"\[0, 8\), got 8"),
    "a mask above one": (
        lambda: PatchPlan(mask=torch.full((3, 1, 1), 1.5), partner=[0, 1, 2]),
        ValueError,
        "got 1.5",
    ),
    "a mask of NaN": (
        lambda: PatchPlan(mask=torch.full((3, 1, 1), torch.nan), partner=[0, 1, 2]),
        ValueError,
        r"in \[0, 1\]",
    ),
    "a grid that does not divide": (
        lambda: fm.mix_patches(X[..., :7], PatchPlan(INDEX)),
        ValueError,
        "index: expected a grid that divides",
    ),
    "another batch": (lambda: fm.mix_patches(X[:2], PatchPlan(INDEX)), ValueError, r"\[3, …\]"),
    "integers to blend": (
        lambda: fm.mix_patches(X.long(), PatchPlan(mask=torch.rand(3, 1, 1), partner=[0, 0, 0])),
        TypeError,
        "int64",
    ),
    "a gradient": (
        lambda: fm.mix_patches(X.clone().requires_grad_(), PatchPlan(INDEX)),
        ValueError,
        r"detach\(\)",
    ),
    "out that is x": (
        lambda: fm.mix_patches(X, PatchPlan(INDEX), out=X),
        ValueError,
        "memory of its own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name):
    call, error, message = REFUSED[name]
    before = X.clone()
    with pytest.raises(error, match=message):
        call()
    assert torch.equal(X, before)
