"""Direct calls of ops with unexpected arguments raise, or give the right result.

Every tensor argument of every op takes another dtype, other shapes and other strides, through
torch.ops as an exported graph calls them. The reference gives the right result from the values.
"""

from __future__ import annotations

import math

import pytest
import torch
from smoke import call, names_written, op_inputs, order_arguments, schema_of

import fused_mixup as fm
from fused_mixup import backends, ops, reference
from fused_mixup.plan import draw_replay

FLOATS = (torch.float16, torch.float32, torch.float64)
INTS = (torch.int16, torch.int32, torch.int64)
REFUSED = (RuntimeError, TypeError, ValueError, IndexError)
# Ops refuse other strides of these, which kernels read or write as words.
ADJACENT = {"state", "settings"}
# The op's main tensor may have any shape that the others fit.
FREE = {"map", "x", "grad", "logits", "labels", "samples", "state", "boxes"}
FREE |= {"other", "index", "partner_index", "mask", "pool"}  # any number of samples; other grids
FREE |= {"erase_box", "erase_value"}  # any number of boxes; values may be one for all

CALLS = op_inputs()
ARGUMENTS = [
    (name, key)
    for name, calls in CALLS.items()
    for key in calls[0]
    if any(isinstance(c[key], torch.Tensor) for c in calls)
]
WHY_NOT = {b: backends.reason_unavailable(b, "CPU") for b in ("native", "reference", "triton")}
BACKENDS = [
    pytest.param(
        name,
        marks=[
            pytest.mark.skipif(why is not None, reason=str(why)),
            *([pytest.mark.proof] if name == "triton" else []),  # it takes minutes
        ],
    )
    for name, why in WHY_NOT.items()
]


def other_dtypes(t):
    known = FLOATS if t.is_floating_point() else INTS
    return {f"as {dtype}": t.to(dtype) for dtype in known if dtype != t.dtype}


def other_shapes(t):
    yield "a dim more", t.unsqueeze(-1)
    yield "a dim before", t.unsqueeze(0)
    if t.ndim:
        yield "a row less", t[:-1]
        yield "a row more", torch.cat((t, t[:1]))
        yield "two rows for all", t[:2]
        yield "one row", t[:1]
        yield "the first row", t[0]
        yield "nothing", t[:0]
    if t.ndim > 1:
        yield "flat", t.flatten()
        yield "a column less", t[:, :-1]
        yield "a column more", torch.cat((t, t[:, :1]), 1)
        yield "turned", t.transpose(0, 1)


def other_strides(t):
    """Strided copies of the values; a wrong read between them gives NaN, or no valid index."""
    between = torch.full_like(t, float("nan") if t.is_floating_point() else -1)
    yield "every other", torch.stack((t, between), -1)[..., 0]
    if t.ndim > 1:
        yield "columns adjacent", t.transpose(0, 1).contiguous().transpose(0, 1)
        yield "rows apart", torch.cat((t, between), 1)[:, : t.shape[1]]


def calls_of(name, key):
    return [c for c in CALLS[name] if isinstance(c[key], torch.Tensor)]


def same(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=2e-3, atol=2e-3, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "key"), ARGUMENTS)
def test_another_dtype(backend, name, key):
    for arguments in calls_of(name, key):
        for what, changed in other_dtypes(arguments[key]).items():
            with fm.backend(backend):
                got = try_op(name, {**arguments, key: changed})
            if got is not None:
                back = changed.to(arguments[key].dtype)
                want = call(getattr(reference, name), name, {**arguments, key: back})
                try:
                    same(got, want)
                except AssertionError as error:
                    raise AssertionError(f"{name}, {key} {what}: {error}") from None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "key"), ARGUMENTS)
def test_another_shape(backend, name, key):
    for arguments in calls_of(name, key):
        for what, changed in other_shapes(arguments[key]):
            if changed.shape == arguments[key].shape:
                continue
            with fm.backend(backend):
                got = try_op(name, {**arguments, key: changed})
            if got is None:
                continue
            # Some of the mixes; a canvas of another size.
            fewer = (name, key) in (("mix_samples", "out"), ("mix_rectangles", "out"))
            assert key in FREE or fewer, f"{name}: {key} with {what} was taken"
            want = call(getattr(reference, name), name, {**arguments, key: changed})
            same(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "key"), ARGUMENTS)
def test_other_strides(backend, name, key):
    for arguments in calls_of(name, key):
        want = call(getattr(reference, name), name, arguments)
        for what, changed in other_strides(arguments[key]):
            with fm.backend(backend):
                got = try_op(name, {**arguments, key: changed}, as_it_lies)
            assert got is not None or key in ADJACENT, f"{name}: {key}, {what}, was refused"
            if got is not None:
                same(got, want)


def try_op(name, arguments, copy=torch.clone):
    """The op's results, or None if it refuses; then its outputs must be unchanged."""
    arguments = dict(arguments)
    for key in names_written(name):
        arguments[key] = copy(arguments[key])
    before = {key: arguments[key].clone() for key in names_written(name)}
    order = [arguments[a.name] for a in schema_of(name).arguments]
    try:
        returned = getattr(torch.ops.fused_mixup, name)(*order)
    except REFUSED:
        for key, value in before.items():
            assert torch.equal(arguments[key], value), f"{name} wrote {key} before it refused"
        return None
    results = list(returned) if isinstance(returned, tuple) else [returned]
    return [r for r in results if r is not None] + [arguments[key] for key in names_written(name)]


def as_it_lies(t):
    """A copy with the same strides."""
    room = torch.empty(sum(s * (n - 1) for s, n in zip(t.stride(), t.shape, strict=True)) + 1)
    copy = room.to(t.dtype).as_strided(t.shape, t.stride())
    return copy.copy_(t)


# ------------------------------------------------------------------ numbers, and several tensors

NUMBERS = {"pairing": (-1, 7), "reduction": (-1, 3), "per": (-1, 3), "batch_size": (-1, 2**17)}
NUMBERS |= {"focal_gamma": (-1.0, math.inf, math.nan), "z_loss": (-0.1, math.inf, math.nan)}
NUMBERS |= {"max_count": (0, 65), "channels": (0, 65), "erase_mode": (-1, 3), "clean": (-1, 2**17)}
NUMBERS |= {"height": (-1, 2**31), "width": (-1, 2**31), "fill": ([0.0] * 65,)}
NUMBERS |= {"resample": (-1, 4), "interpolation": (-1, 2), "kernel": (-1, 2)}
NUMBERS |= {"kinds": ([], [-1], [10], [0] * 17), "rank": (2, 5)}
NUMBERS |= {"num_classes": (-1, 2**31, 2**63 - 1), "spatial": ([5, -1], [5, 6, 7, 8], [2**31])}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "key"),
    [
        (n, k)
        for n, calls in CALLS.items()
        for k, value in calls[0].items()
        if k in NUMBERS and not isinstance(value, bool)
    ],
)
def test_numbers_that_mean_nothing(backend, name, key):
    for arguments in CALLS[name]:
        for number in NUMBERS[key]:
            with fm.backend(backend):
                assert try_op(name, {**arguments, key: number}) is None, number


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("mix", "partner"),
        ("mix_backward", "sources"),
        ("mix_backward", "offsets"),
        ("mix_targets", "partner"),
        ("mix_boxes", "partner"),
        ("mix_patches", "partner"),
        ("mix_boxes_packed", "partner"),
        ("draw_plan", "partner"),
        ("draw_variants", "partner"),
        ("soft_target_cross_entropy", "weight"),
        ("soft_target_cross_entropy", "partner_labels"),
        ("soft_target_binary_cross_entropy_backward", "weight"),
    ],
)
def test_a_tensor_that_is_missing(backend, name, key):
    for arguments in calls_of(name, key):
        with fm.backend(backend):
            assert try_op(name, {**arguments, key: None}) is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_that_differ(backend):
    for arguments in CALLS["mix_samples"]:
        samples = arguments["samples"]
        for bad in (samples[0].double(), samples[0][:2], samples[0][0]):
            for wrong in ([*samples[:3], bad], [bad, *samples[1:]]):
                with fm.backend(backend):
                    assert try_op("mix_samples", {**arguments, "samples": wrong}) is None
        with fm.backend(backend):
            assert try_op("mix_samples", {**arguments, "samples": samples[:2]}) is None
            assert try_op("mix_samples", {**arguments, "samples": []}) is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [n for n in CALLS if names_written(n) and n[:4] != "draw"])
def test_memory_written_twice_is_refused(backend, name):
    """Ops refuse to write a tensor whose elements share memory."""
    (key,) = names_written(name)
    for arguments in CALLS[name]:
        one = arguments[key][:1].expand(arguments[key].shape)
        with fm.backend(backend):
            assert try_op(name, {**arguments, key: one}, lambda t: t) is None


def test_out_that_is_x_is_refused_or_right():
    for arguments in CALLS["mix_out"]:
        plan = [arguments[k] for k in ("partner", "blend", "box", "pairing")]
        want = reference.mix(arguments["x"], *plan)
        x = arguments["x"].clone()
        try:
            ops.mix_out(x, *plan, x)
        except REFUSED:
            continue
        torch.testing.assert_close(x, want)


def test_lists_of_a_transpose_are_clamped():
    """Values that no partner tensor gives do not read outside the batch."""
    (arguments, _) = CALLS["mix_backward"]
    for key, values in (("sources", [-9, 10**6, 2, 1]), ("offsets", [-5, 2, 10**6, -7, 10**6])):
        wild = torch.tensor(values, dtype=torch.int32)
        assert try_op("mix_backward", {**arguments, key: wild}) is not None


@pytest.mark.parametrize("name", ["mix_", "mix", "mix_out", "paste_", "mix_targets", "mix_boxes"])
def test_meta_beside_real_tensors_is_refused(name):
    """PyTorch then calls the fake implementation, which would return uninitialised memory."""
    for arguments in CALLS[name]:
        first, *others = (k for k, v in arguments.items() if isinstance(v, torch.Tensor))
        for key in others:
            with pytest.raises(ValueError, match="one device"):
                call(ops.default_op(name), name, {**arguments, key: arguments[key].to("meta")})


def test_a_trace_of_a_draw_runs_no_draw(monkeypatch):
    """A draw would count as one of the checkpoint region around the compiled block."""

    def looks_for_regions():
        raise AssertionError("the fake runs the draw itself")

    monkeypatch.setattr(draw_replay, "checkpoint_regions", looks_for_regions)
    state, settings = (t.to("meta") for t in (fm.plan_state(0), fm.plan_settings()))
    draw = torch.ops.fused_mixup.draw_plan_in_graph
    partner, *_ = draw(state, settings, None, None, 4, [], 1, 1, True, False)
    assert partner.shape == (4,)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "key"), ARGUMENTS)
def test_sparse_tensors_are_refused(backend, name, key):
    """They reach no kernel of a device; plain PyTorch would end in its own assertions."""
    for arguments in calls_of(name, key):
        changed = {**arguments, key: arguments[key].to_sparse()}
        order = [changed[a.name] for a in schema_of(name).arguments]
        for space in (torch.ops.fused_mixup, torch.ops.fused_mixup_chosen):
            with fm.backend(backend), pytest.raises(ValueError, match="expected dense tensors"):
                getattr(space, name)(*order)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (name, a.name)
        for name in CALLS
        for a in schema_of(name).arguments
        if str(a.type) == "Tensor"
    ],
)
def test_none_for_a_tensor_is_refused(backend, name, key):
    """PyTorch takes None for any tensor of an op; without another tensor it reaches no kernel."""
    order = order_arguments(name, {**CALLS[name][0], key: None})
    for space in (torch.ops.fused_mixup, torch.ops.fused_mixup_chosen):
        with fm.backend(backend), pytest.raises(REFUSED):
            getattr(space, name)(*order)


def test_ranks_among_no_classes(backend):
    """A tile of positions is sized by the classes: without any the process must not die."""
    for positions in ((3,), ()):
        logits, labels = torch.zeros(4, 0, *positions), torch.zeros(4, *positions).long()
        arguments = {"logits": logits, "labels": labels, "partner_labels": None}
        with fm.backend(backend):
            got = try_op("label_ranks", arguments)
        assert got is None or got[0].shape == (1, 4, *positions)
