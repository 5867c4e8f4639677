"""mix_samples: values against stacking and mixing by hand, layouts of samples, refusals."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from cases import BLENDABLE, GRID, mix_by_hand, mixed_by_hand, plans, values

import fused_mixup as fm
from fused_mixup import MixPlan, backends, ops


def last_first(s):
    """Copy with the first dim innermost in memory, as decoders lay out channels."""
    return s.movedim(0, -1).contiguous().movedim(-1, 0)


def sample_layouts(x):
    """(name, list of samples) for a batch x in many memory layouts; values are equal."""
    yield "contiguous", [s.clone() for s in x]
    yield "rows of a batch", list(x)
    yield "channels last", [last_first(s) for s in x]
    yield "some channels last", [last_first(s) if i % 2 else s.clone() for i, s in enumerate(x)]
    yield "every second element", [torch.stack((s, s + 1), -1)[..., 0] for s in x]
    yield "transposed", [s.transpose(0, -1).contiguous().transpose(0, -1) for s in x]
    flat = [torch.zeros(s.numel() + 5, dtype=s.dtype) for s in x]
    # Each sample has another offset, so that vectors of own and partner are never both aligned.
    yield (
        "odd offsets",
        [
            f[i % 5 : s.numel() + i % 5].view(s.shape).copy_(s)
            for i, (f, s) in enumerate(zip(flat, x, strict=True))
        ],
    )
    wide = [torch.zeros((*s.shape[:-1], s.shape[-1] + 3), dtype=s.dtype) for s in x]
    yield "padded rows", [w[..., 1:-2].copy_(s) for w, s in zip(wide, x, strict=True)]


@pytest.mark.parametrize("dtype", BLENDABLE, ids=str)
def test_all_plans_shapes_and_batches(backend, dtype):
    for batch_size, shape in GRID:
        if batch_size == 0:
            continue
        x, mixed = mixed_by_hand(batch_size, tuple(shape), dtype)
        for layout, samples in (
            ("contiguous", [s.clone() for s in x]),
            ("last first", [last_first(s) for s in x]),
        ):
            before = [s.clone() for s in samples]
            for name, plan, expected in mixed:
                got = fm.mix_samples(samples, plan)
                assert got.is_contiguous() and torch.equal(got, expected), (shape, name, layout)
                assert all(map(torch.equal, samples, before)), (shape, name, layout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8], ids=str)
@pytest.mark.parametrize("shape", [[3, 20, 33], [4, 7, 5], [1, 6, 8], [2, 3, 4, 5]], ids=str)
def test_layouts_of_samples_and_out(backend, dtype, shape):
    """A kernel's loop follows from the strides of samples and out, and what it computes from the
    plan. So every layout meets every out and, with one or two of its outs, every plan; which ones
    moves on from plan to plan."""
    x, mixed = mixed_by_hand(5, tuple(shape), dtype)
    samples_of = dict(sample_layouts(x))
    room = torch.empty((7, *shape), dtype=dtype)
    last = torch.empty((*shape[1:], 5, shape[0]), dtype=dtype)
    outs = {f"contiguous, {n}": room[1 : n + 1] for n in (5, 3, 0)}
    outs["channels last"] = last.movedim(-1, 0).movedim(-1, 0)
    outs["batch last"] = torch.empty((*shape, 5), dtype=dtype).movedim(-1, 0)
    pairs = list(itertools.product(samples_of, outs))
    for k, (name, plan, expected) in enumerate(mixed):
        for layout, kind in pairs[k % 4 :: 4]:
            room.fill_(77)
            out = outs[kind].fill_(77)
            assert fm.mix_samples(samples_of[layout], plan, out=out) is out
            assert torch.equal(out, expected[: len(out)]), (name, layout, kind)
            after = len(out) + 1 if "contiguous" in kind else 0
            assert (room[0] == 77).all() and (room[after:] == 77).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
@pytest.mark.parametrize("own", [0.3, 0.0, 1.0])
def test_long_stretches_of_pairs_and_of_single_rows(backend, dtype, own):
    # Runs longer than one copy of the kernel; rows 0 and 4, 1 and 2 are partners.
    shape = [3, 61, 67]
    x = values((6, *shape), dtype)
    partner = torch.tensor([4, 2, 1, 0, 0, 5], dtype=torch.int32)
    first = torch.tensor([own, 0.25, 0.75, 0.5, 0.125, 0.5], dtype=torch.float64)
    blend = torch.stack((first, 1 - first), 1)
    box = torch.zeros(6, 4, dtype=torch.int32)
    box[1] = box[3] = torch.tensor([7, 11, 50, 40], dtype=torch.int32)
    plan = MixPlan(partner, torch.full((6, 2), 0.5), blend, box)
    expected = mix_by_hand(x, plan)
    for layout, samples in sample_layouts(x):
        assert torch.equal(fm.mix_samples(samples, plan), expected), layout


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 64, 65])
def test_channels_that_come_last(backend, channels):
    x = values((4, channels, 30, 41), torch.uint8)
    for name, plan in plans(4, [channels, 30, 41]):
        got = fm.mix_samples([last_first(s) for s in x], plan)
        assert torch.equal(got, mix_by_hand(x, plan)), name


def test_float32_equals_stack_and_eager_bit_for_bit(backend):
    samples = list(torch.randn(16, 3, 40, 40))
    x = torch.stack(samples)
    for lam in torch.rand(20).tolist():
        got = fm.mix_samples(samples, MixPlan.uniform(16, "flip", lam))
        expected = x * lam + x.flip(0) * (1 - lam)
        assert torch.equal(got.view(torch.int32), expected.view(torch.int32))


def test_every_value_of_uint8_rounds_half_to_even(backend):
    own, other = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    samples = [own.to(torch.uint8), other.to(torch.uint8)]
    for lam in (0.5, 0.25, 1 / 3, 0.998, 1e-3):
        got = fm.mix_samples(samples, MixPlan.uniform(2, "flip", lam))[0]
        blend = np.float32(lam), np.float32(1 - lam)
        exact = own.numpy().astype(np.float32) * blend[0]
        exact = np.rint(exact + other.numpy().astype(np.float32) * blend[1])
        assert torch.equal(got, torch.from_numpy(exact.astype(np.uint8)))


def test_weights_beyond_a_byte_are_clamped(backend):
    samples = [values((40, 9), torch.uint8) for _ in range(2)]
    base = MixPlan.uniform(2, "flip", 0.5)
    for pair in ((3.0, -1.0), (1e20, -1.0), (-1e20, 1.0), (0.0, 0.0)):
        blend = torch.tensor([pair] * 2, dtype=torch.float64)
        plan = MixPlan(base.partner, base.weight, blend, base.box, "flip")
        exact = samples[0].float() * pair[0] + samples[1].float() * pair[1]
        got = fm.mix_samples(samples, plan)[0]
        assert torch.equal(got, exact.round().clamp(0, 255).to(torch.uint8)), pair


def test_a_batch_of_many_samples(backend):
    x = values((130, 3, 5), torch.float32)
    for partner in (torch.arange(130).roll(1), torch.randperm(130), torch.arange(130).flip(0)):
        plan = MixPlan.uniform(130, partner, 0.3)
        assert torch.equal(fm.mix_samples(list(x), plan), mix_by_hand(x, plan))


def test_one_sample_and_samples_of_no_size(backend):
    x = values((1, 3, 5, 7), torch.uint8)
    assert torch.equal(fm.mix_samples(list(x), MixPlan.uniform(1, "flip", 0.3)), x)
    for shape in ([0], [3, 0, 4], [3, 4, 0]):
        got = fm.mix_samples([torch.empty(shape)] * 4, MixPlan.uniform(4, "flip", 0.3))
        assert got.shape == (4, *shape)
    scalars = fm.mix_samples(list(torch.arange(4.0)), MixPlan.uniform(4, "flip", 0.25))
    assert scalars.tolist() == [2.25, 1.75, 1.25, 0.75]


def test_a_sample_may_come_twice(backend):
    s = values((3, 8, 9), torch.uint8)
    assert torch.equal(fm.mix_samples([s, s], MixPlan.uniform(2, "flip", 0.5)), torch.stack([s, s]))


# ------------------------------------------------------------------ arrays


def test_arrays_of_every_kind_without_a_warning(backend):
    x = values((4, 3, 20, 33), torch.uint8)
    plan = MixPlan.uniform(4, "roll", 0.3)
    expected = mix_by_hand(x, plan)
    arrays = [s.numpy().copy() for s in x]
    pixels = [np.ascontiguousarray(a.transpose(1, 2, 0)).transpose(2, 0, 1) for a in arrays]
    locked = [a.copy() for a in arrays]
    for a in locked:
        a.flags.writeable = False
    backwards = [a[:, :, ::-1].copy()[:, :, ::-1] for a in arrays]
    kinds = {"arrays": arrays, "pixels": pixels, "read-only": locked, "backwards": backwards}
    kinds["mixed with tensors"] = [arrays[0], x[1], locked[2], x[3]]
    for kind, samples in kinds.items():
        before = [np.array(np.asarray(s)) for s in samples]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(fm.mix_samples(samples, plan), expected), kind
        assert all(np.array_equal(s, b) for s, b in zip(samples, before, strict=True))
    assert not locked[0].flags.writeable


# ------------------------------------------------------------------ refusals

B = 4
FLIP = MixPlan.uniform(B, "flip", 0.5)
WIDE = MixPlan.uniform(B, "flip", 0.5, [0, 0, 9, 3])


def images(**kw):
    return [torch.ones(3, 8, 8, **kw) for _ in range(B)]


class Picture:  # imitates PIL's class, which has an array interface too
    __array_interface__ = np.ones((8, 8, 3), np.uint8).__array_interface__


@pytest.mark.parametrize(
    ("samples", "plan", "error", "says"),
    [
        ([], FLIP, ValueError, "samples: expected at least one"),
        (torch.ones(B, 3), FLIP, TypeError, r"goes to mix\(x, plan\)"),
        (iter(images()), FLIP, TypeError, "samples: expected a list"),
        (images()[:3], FLIP, ValueError, r"samples: expected shape \[4, …\]"),
        (images(), 0.5, TypeError, "plan: expected a MixPlan"),
        (images(), WIDE, ValueError, "plan: expected boxes inside"),
        ([torch.ones(8)] * B, WIDE, ValueError, "at least 3 dims"),
        (images(dtype=torch.int64), FLIP, TypeError, "samples: expected float16"),
        ([*images()[:2], *images(dtype=torch.uint8)[:2]], FLIP, TypeError, r"samples\[2\].*uint8"),
        ([*images()[:3], torch.ones(3, 8, 7)], FLIP, ValueError, r"samples\[3\].*resize or crop"),
        (images(requires_grad=True), FLIP, ValueError, r"samples\[0\].*torch.stack"),
        (images(device="meta"), FLIP, ValueError, r"samples\[0\]: expected it on the CPU"),
        ([torch._neg_view(s) for s in images()], FLIP, ValueError, r"samples\[0\].*resolve_neg"),
        ([s.to_sparse() for s in images()], FLIP, TypeError, "expected a dense tensor"),
        ([Picture()] * B, FLIP, TypeError, "PILToTensor"),
        ([np.ones(3, "datetime64[s]")] * B, FLIP, TypeError, "a dtype that PyTorch has"),
    ],
)
def test_bad_input(samples, plan, error, says):
    out = torch.full((B, 3, 8, 8), 7.0)
    with pytest.raises(error, match=says):
        fm.mix_samples(samples, plan)
    with pytest.raises(error, match=says):
        fm.mix_samples(samples, plan, out)
    assert (out == 7).all()


def test_bad_out():
    whole = torch.ones(B, 3, 8, 8)
    samples = list(whole)
    for out, says in (
        (torch.ones(B, 3, 8, 8, dtype=torch.float64), "like samples"),
        (torch.ones(B + 1, 3, 8, 8), "or fewer rows"),
        (torch.ones(B, 3, 8, 7), "like samples"),
        (torch.ones(B, 3, 8), "like samples"),
        (whole, r"reaches into that of samples\[0\]"),
        (whole[3:], r"reaches into that of samples\[3\]"),
        (torch.ones(1, 3, 8, 8).expand(B, 3, 8, 8), "overlapping"),
        (torch.ones(B, 3, 8, 8, requires_grad=True), "does not require grad"),
    ):
        with pytest.raises(ValueError, match=says):
            fm.mix_samples(samples, FLIP, out)
    with pytest.raises(TypeError, match="out: expected a tensor"):
        fm.mix_samples(samples, FLIP, 3)


def test_a_graph_that_saved_out_refuses_to_run():
    out, w = torch.ones(B, 3, 8, 8), torch.ones(8, requires_grad=True)
    loss = (out * w).sum()
    fm.mix_samples(images(), FLIP, out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_compile(backend):
    torch._dynamo.reset()
    samples = list(torch.randn(B, 3, 8, 8))
    # Inductor makes C++ of + 1; the chosen op is one for both backends.
    compiler = "inductor" if fm.backends.chosen("CPU") == "native" else "aot_eager"
    compiled = torch.compile(
        lambda s, p: fm.mix_samples(s, p) + 1, fullgraph=True, backend=compiler
    )
    for plan in (FLIP, MixPlan.uniform(B, "roll", 0.3, [1, 2, 5, 7])):
        assert torch.equal(compiled(samples, plan), fm.mix_samples(samples, plan) + 1)


def test_arguments_that_would_crash_the_kernel_are_refused():
    if backends.reason_unavailable("native", "CPU"):
        pytest.skip("the CPU extension is not built")
    args = None, FLIP.blend, FLIP.box, FLIP.rule
    out = torch.ones(B, 3, 8, 8)
    odd = [*images()[:3], torch.ones(3, 8, 7)]
    for samples in (odd, images()[:3], images(dtype=torch.float64)):
        with fm.backend("native"), pytest.raises(RuntimeError):
            ops.mix_samples(samples, *args, out)
    with fm.backend("native"), pytest.raises(RuntimeError):
        ops.mix_samples(images(), *args, torch.ones(B, 3, 8, 7))


# ------------------------------------------------------------------ backends


def test_a_backend_without_the_op_says_so(monkeypatch):
    samples, plan = list(torch.ones(4, 8)), MixPlan.uniform(4, "flip", 0.3)
    expected = fm.mix_samples(samples, plan)
    no_kernel = "mix_samples has a kernel in the CPU extension alone"
    for missing, why in ((None, no_kernel), ("it is not interpreted", "it is not interpreted")):
        monkeypatch.setitem(backends._reasons, ("triton", "CPU"), missing)
        refused = f"triton backend is forced but cannot run on CPU tensors: {why}"
        with fm.backend("triton"), pytest.raises(RuntimeError, match=refused):
            fm.mix_samples(samples, plan)
        assert torch.equal(fm.mix_samples(samples, plan), expected)
    for backend, device in (("native", "CUDA"), ("triton", "CUDA"), ("triton", "CPU")):
        assert backends.reason_unavailable(backend, device, "mix_samples")
