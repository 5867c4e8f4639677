"""The kernels of csrc/cuda, run on the host (tests/host_cuda), against the reference.

float32, float64 and uint8 must be equal bit for bit; so must the half types, since kernel and
reference both round once, after the same float32 arithmetic.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from host_cuda import build
from host_cuda import ops as host

from fused_mixup import reference
from fused_mixup.ops import transpose_pairing
from fused_mixup.plan import PAIRINGS as RULES

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)")

BATCHES = (1, 2, 3, 8, 33)
SHAPES = ([3, 5, 7], [3, 16, 16], [17], [2, 4, 6, 8])
LAYOUTS = ("contiguous", "channels_last", "offset", "misaligned", "strided")
BLENDS = ((0.3, 0.7), (1.0, 0.0), (0.0, 1.0), "rows", (0.5, 0.5))
BOXES = ("none", "uniform", "rows", "empty", "borders", "everything")
TENSOR, FLIP, ROLL = RULES["tensor"], RULES["flip"], RULES["roll"]
PAIRINGS = {
    "flip": FLIP,
    "roll": ROLL,
    "self": RULES["self"],
    "permutation": TENSOR,
    "shared": TENSOR,  # several samples with one partner: no permutation
}
# Blocks and threads forward, in reverse, shuffled: a kernel must not lean on an order.
ORDERS = (0, 1, 2)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors here are small: PyTorch's threads would cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(a, b):
    return a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())


def random(shape, dtype, generator):
    if not dtype.is_floating_point:
        high = 256 if dtype == torch.uint8 else 100
        return torch.randint(0, high, shape, generator=generator).to(dtype)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def make_batch(batch, shape, dtype, layout, generator):
    """A batch of the given layout, and its storage, so that a test sees writes beside it."""
    if layout == "offset":
        base = random([batch + 1, *shape], dtype, generator)
        return base[1:], base
    if layout == "misaligned":
        numel = batch * int(torch.Size(shape).numel())
        base = random([numel + 1], dtype, generator)
        return base[1:].view(batch, *shape), base
    if layout == "strided":
        base = random([batch, *shape[:-1], 2 * shape[-1] + 1], dtype, generator)
        return base[..., 1::2], base
    base = random([batch, *shape], dtype, generator)
    if layout == "channels_last" and base.ndim >= 4:
        form = torch.channels_last if base.ndim == 4 else torch.channels_last_3d
        base = base.contiguous(memory_format=form)
    return base, base


def copy_of(x, base):
    """x over a copy of its storage."""
    other = base.clone()
    return other.as_strided(x.shape, x.stride(), x.storage_offset()), other


def make_partner(kind, batch, generator):
    if kind == "permutation":
        return torch.randperm(batch, generator=generator).int()
    if kind == "shared":
        return torch.randint(0, batch, (batch,), generator=generator).int()
    return None


def make_blend(kind, batch, generator):
    if kind != "rows":
        return torch.tensor([kind], dtype=torch.float64).expand(batch, 2)
    lam = torch.rand(batch, generator=generator, dtype=torch.float64)
    lam[::3] = 1.0  # rows that are not mixed among rows that are
    return torch.stack((lam, 1 - lam), 1)


def make_box(kind, batch, shape, generator):
    spatial = shape[1:] if len(shape) > 1 else shape
    d = len(spatial)
    size = torch.tensor(spatial)
    if kind == "none":
        return torch.empty((batch, 0), dtype=torch.int32)
    if kind == "everything":
        row = torch.tensor([[0] * d + list(spatial)], dtype=torch.int32)
        return row.expand(batch, -1)
    if kind == "empty":
        row = torch.tensor([[1] * d + [1] * d], dtype=torch.int32)
        return row.expand(batch, -1)
    rows = 1 if kind == "uniform" else batch
    ends = torch.rand((2, rows, d), generator=generator)
    ends = (ends * (size + 1)).int().sort(0).values
    start, stop = ends[0], ends[1]
    if kind == "borders":  # to the border, and beyond it: kernels clamp
        start[::2], stop[1::2] = 0, (size + 3).int()
    box = torch.cat((start, stop), 1).int()
    return box.expand(batch, -1) if kind == "uniform" else box


def cases(seed):
    """(order, batch, shape, layout, blend, box): every geometry, blends and boxes in rotation."""
    rotation = itertools.cycle(itertools.product(BLENDS, BOXES))
    orders = itertools.cycle(ORDERS)
    for _ in range(seed):
        next(rotation)
    for batch, shape, layout in itertools.product(BATCHES, SHAPES, LAYOUTS):
        for _ in range(2):
            yield next(orders), batch, shape, layout, *next(rotation)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
def test_mix(dtype, pairing):
    generator = torch.Generator().manual_seed(0)
    rule = PAIRINGS[pairing]
    seed = 7 * list(PAIRINGS).index(pairing) + host.DTYPES.index(dtype)
    for case in cases(seed):
        order, batch, shape, layout, blend_kind, box_kind = case
        host.set_order(order)
        partner = make_partner(pairing, batch, generator)
        blend = make_blend(blend_kind, batch, generator)
        box = make_box(box_kind, batch, shape, generator)
        x, base = make_batch(batch, shape, dtype, layout, generator)
        args = (partner, blend, box, rule)
        expected = reference.mix(x, *args)
        assert same(host.mix(x, *args), expected), ("mix", case)
        # In place: the batch, and nothing beside it.
        y, y_base = copy_of(x, base)
        want, want_base = copy_of(x, base)
        want.copy_(expected)
        host.mix_(y, *args)
        assert same(y_base, want_base), ("mix_", case)
        if rule in (TENSOR, ROLL):  # as for a batch beyond what shared memory holds
            y, y_base = copy_of(x, base)
            host.mix_(y, *args, shared_limit=0)
            assert same(y_base, want_base), ("mix_ by walking", case)
        if dtype.is_floating_point:
            pointers = transpose_pairing(partner) if partner is not None else (None, None)
            backward = (partner, *pointers, blend, box, rule)
            got = host.mix_backward(x, *backward)
            assert same(got, reference.mix_backward(x, *backward)), ("mix_backward", case)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int16, torch.int32, torch.int64, torch.complex128, torch.bool],
    ids=str,
)
def test_paste(dtype, pairing):
    generator = torch.Generator().manual_seed(1)
    rule = PAIRINGS[pairing]
    for case in cases(0):
        order, batch, shape, layout, _, box_kind = case
        host.set_order(order)
        partner = make_partner(pairing, batch, generator)
        box = make_box(box_kind, batch, shape, generator)
        x, base = make_batch(batch, shape, dtype, layout, generator)
        want, want_base = copy_of(x, base)
        reference.paste_(want, partner, box, rule)
        for limit in (host.SHARED_LIMIT, 0):
            y, y_base = copy_of(x, base)
            host.paste_(y, partner, box, rule, shared_limit=limit)
            assert same(y_base, want_base), (limit, case)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_out_of_place_changes_layout(layout):
    generator = torch.Generator().manual_seed(2)
    x, _ = make_batch(8, [3, 16, 16], torch.float32, "contiguous", generator)
    for pairing, box_kind in itertools.product(PAIRINGS, BOXES):
        partner = make_partner(pairing, 8, generator)
        args = (
            partner,
            make_blend("rows", 8, generator),
            make_box(box_kind, 8, [3, 16, 16], generator),
            PAIRINGS[pairing],
        )
        out, _ = make_batch(8, [3, 16, 16], torch.float32, layout, generator)
        host.mix_out(x, *args, out)
        assert same(out, reference.mix(x, *args))


def test_a_weight_of_zero_drops_its_term():
    x = torch.full((4, 3, 8, 8), torch.inf)
    x[::2] = 1.0
    for pairing, blend in itertools.product((FLIP, ROLL), ((1.0, 0.0), (0.5, 0.0), (0.0, 0.5))):
        blend = torch.tensor([blend], dtype=torch.float64)
        for rows in (blend.expand(4, 2), blend.repeat(4, 1)):
            args = (None, rows, torch.empty((4, 0), dtype=torch.int32), pairing)
            assert same(host.mix(x, *args), reference.mix(x, *args))
            y = x.clone()
            host.mix_(y, *args)
            assert same(y, reference.mix(x, *args))


@pytest.mark.parametrize("limit", [16 * 300 - 1, 0])
@pytest.mark.parametrize("order", ORDERS)
def test_graphs_beyond_shared_memory(order, limit):
    """Chains, trees and cycles: the order in which rows are overwritten must spare originals."""
    host.set_order(order)
    batch = 300
    generator = torch.Generator().manual_seed(order)
    i = torch.arange(batch)
    graphs = {
        "chain": (i + 1).clamp(max=batch - 1),
        "one cycle": (i + 1) % batch,
        "pairs": i ^ 1,
        "self": i,
        "star": torch.zeros_like(i),
        "tree": i // 2,
        "random": torch.randint(0, batch, (batch,), generator=generator),
        "permutation": torch.randperm(batch, generator=generator),
    }
    x = random([batch, 5], torch.float32, generator)
    blend = make_blend("rows", batch, generator)
    box = torch.empty((batch, 0), dtype=torch.int32)
    for name, partner in graphs.items():
        y = x.clone()
        host.mix_(y, partner.int(), blend, box, TENSOR, shared_limit=limit)
        assert same(y, reference.mix(x, partner.int(), blend, box, TENSOR)), name


def test_partner_out_of_range_is_clamped():
    x = torch.randn(4, 3, 8, 8)
    partner = torch.tensor([-5, 2**31 - 1, -(2**31), 7], dtype=torch.int32)
    blend = torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(4, 2)
    box = torch.empty((4, 0), dtype=torch.int32)
    expected = reference.mix(x, partner, blend, box, TENSOR)
    assert same(host.mix(x, partner, blend, box, TENSOR), expected)
    for limit in (host.SHARED_LIMIT, 0):
        y = x.clone()
        host.mix_(y, partner, blend, box, TENSOR, shared_limit=limit)
        assert same(y, expected)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("dtype", host.DTYPES[:4], ids=str)
def test_mix_targets(dtype, pairing):
    generator = torch.Generator().manual_seed(3)
    orders = itertools.cycle(ORDERS)
    for batch, classes, rest in itertools.product(BATCHES, (1, 2, 7, 10, 1000), ([], [3], [2, 2])):
        for blend_kind, smoothing in itertools.product(("rows", (1.0, 0.0)), (0.0, 0.1)):
            host.set_order(next(orders))
            labels = torch.randint(0, classes, (batch, *rest), generator=generator)
            if batch == 3:
                labels.view(-1)[1] = (-1, classes, 2**40)[len(rest)]
            partner = make_partner(pairing, batch, generator)
            weight = make_blend(blend_kind, 1 if batch == 0 else batch, generator).float()
            if blend_kind != "rows":
                weight = weight[:1].expand(batch, 2)
            args = (labels, partner, weight, PAIRINGS[pairing], classes, smoothing, dtype)
            assert same(host.mix_targets(*args), reference.mix_targets(*args)), args


# ------------------------------------------------------------------ the loss

CLASSES = (1, 2, 5, 32, 33, 1000, 1025, 5000)
# Against float64: sums of K float32 terms, and for half types exp2 with 2 units in the last place.
LOSS_TOLERANCE = {torch.float64: 1e-12}
# The gradient is rounded once to its type: half a unit in the last place, and float32 arithmetic.
GRAD_ROUNDING = {torch.float16: 2**-11, torch.bfloat16: 2**-8, torch.float32: 2e-6}


def check_loss(logits, target, partner_labels, weight, ts, ls, generator):
    wide = [t.double() if t is not None and t.is_floating_point() else t for t in (logits, target)]
    exact = (wide[0], wide[1], partner_labels, weight, ts, ls)
    for reduction in (0, 1, 2):
        args = (logits, target, partner_labels, weight, ts, ls, reduction)
        loss, stats = host.soft_target_cross_entropy(*args)
        want, want_stats = reference.soft_target_cross_entropy(*exact, reduction)
        tolerance = LOSS_TOLERANCE.get(logits.dtype, 3e-6)
        torch.testing.assert_close(
            loss.double(), want, rtol=tolerance, atol=4 * tolerance, equal_nan=True
        )
        torch.testing.assert_close(
            stats.double(), want_stats, rtol=tolerance, atol=4 * tolerance, equal_nan=True
        )
        again, _ = host.soft_target_cross_entropy(*args)
        assert same(loss, again)
        shape = (logits.shape[0],) if reduction == 2 else ()
        grad_loss = torch.rand(shape, generator=generator).to(loss.dtype) + 0.5
        grad = host.soft_target_cross_entropy_backward(grad_loss, logits, stats, *args[1:])
        want = reference.soft_target_cross_entropy_backward(
            grad_loss.double(), wide[0], want_stats, *exact[1:], reduction
        )
        assert grad.dtype == logits.dtype and grad.stride() == torch.empty_like(logits).stride()
        rounding = GRAD_ROUNDING.get(logits.dtype, 1e-11)
        # Below the smallest normal half a value is rounded to a multiple of 2^-24.
        tiny = 2**-25 if logits.dtype == torch.float16 else 0
        torch.testing.assert_close(
            grad.double(), want, rtol=1.01 * rounding + tolerance, atol=tiny + tolerance,
            equal_nan=True,
        )  # fmt: skip


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", host.DTYPES[:4], ids=str)
def test_loss(dtype, classes):
    generator = torch.Generator().manual_seed(classes)
    settings = itertools.product((0.0, 0.1), (0.0, 0.1), ("sparse", "equal", "dense", "float32"))
    orders = itertools.cycle(ORDERS)
    layouts = itertools.cycle(("contiguous", "misaligned", "strided", "rows", "offset"))
    for ts, ls, kind in settings:
        host.set_order(next(orders))
        layout = next(layouts)
        batch = 3 if classes > 100 else 11
        if layout == "rows":  # rows apart, columns together
            logits = (random([batch, classes + 3], dtype, generator) * 4)[:, 1 : classes + 1]
        else:
            logits, _ = make_batch(batch, [classes], dtype, layout, generator)
            logits *= 4
        labels = torch.randint(0, classes, (batch,), generator=generator)
        partner_labels = torch.randint(0, classes, (batch,), generator=generator)
        weight = make_blend("rows" if ls else (0.3, 0.7), batch, generator).float()
        if kind in ("dense", "float32"):
            target = torch.rand(batch, classes, generator=generator).softmax(1)
            target[:, ::3] = 0.0
            target = target.to(dtype if kind == "dense" else torch.float32)
            if layout == "strided":
                target = target.t().contiguous().t()
            check_loss(logits, target, None, None, 0.0, ls, generator)
        else:
            partner_labels = labels if kind == "equal" else partner_labels
            check_loss(logits, labels, partner_labels, weight, ts, ls, generator)


@pytest.mark.parametrize("classes", [5, 1000, 5000])
@pytest.mark.parametrize("dtype", host.DTYPES[:4], ids=str)
def test_loss_of_hard_logits(dtype, classes):
    """−inf where no label stands, whole stretches of it, and logits far from zero."""
    generator = torch.Generator().manual_seed(4)
    logits = (torch.randn(6, classes, generator=generator) * 3).to(dtype)
    labels = torch.randint(0, 2, (6,), generator=generator)
    weight = torch.tensor([[1.0, 0.0], [0.25, 0.75]]).repeat(3, 1)
    target = torch.zeros(6, classes).to(dtype)
    target[:, :2] = 0.5
    masked = logits.clone()
    masked[:, 2::2] = -torch.inf
    masked[1:, 2 : classes - 1] = -torch.inf
    partner = labels.clone()
    partner[::2] = classes - 1  # weight 0: its logit may be −inf
    masked[::2, -1] = -torch.inf
    check_loss(masked, labels, partner, weight, 0.0, 0.0, generator)
    check_loss(masked, target, None, None, 0.0, 0.0, generator)
    if dtype != torch.float16:  # 1e4 leaves float16 nothing to tell logits apart by
        shifted = (logits.double() + 1e4).to(dtype)
        for ts in (0.0, 0.1):
            check_loss(shifted, labels, partner, weight, ts, 0.0, generator)
        check_loss(shifted, target, None, None, 0.0, 0.1, generator)


@pytest.mark.parametrize("bad", [-1, -100, 9, 2**40])
def test_labels_out_of_range_poison_their_row(bad):
    logits = torch.randn(4, 9)
    good = torch.tensor([0, 1, 2, 3])
    wrong = good.clone()
    wrong[2] = bad
    weight = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    for labels, partner in ((wrong, good), (good, wrong)):
        args = (labels, partner, weight, 0.0, 0.0, 2)
        loss, stats = host.soft_target_cross_entropy(logits, *args)
        grad = host.soft_target_cross_entropy_backward(torch.ones(4), logits, stats, *args)
        for t in (loss, grad.sum(1)):
            assert t.isnan().tolist() == [False, False, True, False]
        assert grad[2].isnan().all()
        loss, _ = host.soft_target_cross_entropy(logits, *args[:-1], 0)
        assert loss.isnan()


def test_loss_of_an_empty_batch():
    empty = torch.empty(0, dtype=torch.int64)
    args = (torch.empty(0, 5), empty, empty, torch.empty(0, 2), 0.0, 0.0)
    for reduction in (0, 1):
        got, _ = host.soft_target_cross_entropy(*args, reduction)
        assert same(got, reference.soft_target_cross_entropy(*args, reduction)[0])


def test_all_minus_infinity_is_nan():
    logits = torch.full((2, 9), -torch.inf)
    labels = torch.tensor([0, 1])
    weight = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    loss, _ = host.soft_target_cross_entropy(logits, labels, labels, weight, 0.0, 0.0, 2)
    assert loss.isnan().all()


# ------------------------------------------------------------------ the harness itself


def test_harness_finds_divergence_poison_and_races():
    import ctypes

    lib = host.library()
    out = torch.zeros(64)

    def run(which):
        return lib.host_self_test(ctypes.c_int64(which), ctypes.c_void_p(out.data_ptr()))

    host.set_order(0)
    assert run(0) != 0 and b"gone" in lib.host_error()
    assert run(1) != 0 and b"lanes missing" in lib.host_error()
    assert run(2) == 0 and out[:32].isnan().all()
    assert run(3) == 0
    forward = out[:32].clone()
    out.zero_()
    host.set_order(1)
    assert run(3) == 0
    assert not torch.equal(forward, out[:32])
