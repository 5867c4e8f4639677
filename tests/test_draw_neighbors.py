"""draw_neighbors: what is drawn, on every backend alike; frequencies; what it refuses."""

from __future__ import annotations

import math
import random

import pytest
import torch
from neighbor_cases import neighbor_case, neighbor_cases

import fused_mixup as fm
from fused_mixup import backends, ops, reference
from fused_mixup.codes import DRAW_NEIGHBOR, GAUSSIAN, STEP_WORD, TOPHAT, VERSION_WORD
from fused_mixup.reference.random import Stream
from fused_mixup.tables import draw_neighbors

pytestmark = pytest.mark.usefixtures("one_thread")


def near(labels, h=0.5, *, state=None, seed=7, **options):
    state = fm.plan_state(seed, device=labels.device) if state is None else state
    return draw_neighbors(labels, h, state=state, **options)


# ------------------------------------------------------------------ what is drawn


def test_every_backend_gives_the_bits_of_the_reference(device):
    for args in neighbor_cases(60, seed=1):
        state, *rest = args
        expected = reference.draw_neighbors(state.clone(), *rest)
        there = [a.to(device, copy=True) if isinstance(a, torch.Tensor) else a for a in args]
        got = ops.draw_neighbors(*there)
        assert got.dtype == torch.int32 and torch.equal(got.cpu(), expected), rest[-1]
        state[STEP_WORD] += 1
        assert torch.equal(there[0].cpu(), state)


@pytest.mark.parametrize("kernel", [GAUSSIAN, TOPHAT])
def test_pools_of_several_blocks(device, kernel):
    """More labels than are summed together, with every one of the bandwidths' reaches."""
    rng = random.Random(kernel)
    for batch, pool in ((3, 1024), (5, 1025), (4, 2500)):
        state, _, labels, others, _ = neighbor_case(rng, batch, pool, kernel)
        for h in (0.3, 40.0):
            rest = torch.tensor([h], dtype=torch.float64), labels, others, kernel
            there = [t.to(device, copy=True) if isinstance(t, torch.Tensor) else t for t in rest]
            expected = reference.draw_neighbors(state.clone(), *rest)
            assert torch.equal(ops.draw_neighbors(state.to(device), *there).cpu(), expected)


def by_hand(labels, others, h, kernel, state):
    """The partners by the formulas of docs/tables.md, with Python's functions and integers."""
    stream, partner = Stream(state), []
    for i, y in enumerate(labels.tolist()):
        low, high, _, _ = (int(w) for w in stream.words(torch.tensor(i), DRAW_NEIGHBOR))
        squares = [sum((a - b) ** 2 for a, b in zip(y, x, strict=True)) for x in others.tolist()]
        least = min(squares)
        if kernel == TOPHAT:
            weights = [int(s < h * h or s == least) for s in squares]
        else:
            weights = [round(math.exp(-(s - least) / (2 * h * h)) * 2**32) for s in squares]
        place = (high << 32 | low) * sum(weights) >> 64
        j = 0
        while place >= weights[j]:
            place -= weights[j]
            j += 1
        partner.append(j)
    return partner


@pytest.mark.parametrize("kernel", ["gaussian", "tophat"])
def test_partners_are_those_of_the_formulas(device, kernel):
    code = TOPHAT if kernel == "tophat" else GAUSSIAN
    for seed in range(4):
        labels = torch.randn(40, 1 + seed, dtype=torch.float64)
        pool = torch.randn(30, 1 + seed, dtype=torch.float64)
        for others in (None, pool):
            state = fm.plan_state(seed)
            expected = by_hand(labels, labels if others is None else others, 0.7, code, state)
            there = None if others is None else others.to(device)
            got = near(labels.to(device), 0.7, seed=seed, pool=there, kernel=kernel)
            assert got.tolist() == expected


def test_frequencies_are_those_of_the_density():
    """χ² of each sample's partners over many draws; seeds are fixed, so nothing is flaky."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    draws = 4000
    labels = torch.tensor([0.0, 0.1, 0.15, 0.9, 1.0, 2.0, -3.0], dtype=torch.float64)
    for kernel in ("gaussian", "tophat"):
        # All rows alike in one batch: each row is a draw of its own.
        gap = labels[:, None] - labels
        density = torch.exp(-gap.square() / (2 * 0.4**2))
        density = density if kernel == "gaussian" else (gap.abs() < 0.4).double()
        density /= density.sum(1, keepdim=True)
        for i, y in enumerate(labels):
            chosen = near(y.repeat(draws), 0.4, seed=i, pool=labels, kernel=kernel)
            seen = torch.bincount(chosen, minlength=len(labels)).double()
            expected = draws * density[i]
            assert not seen[expected < 1e-6].any()
            kept = expected >= 1
            rest = (seen[~kept].sum() + 0.5, expected[~kept].sum() + 0.5)
            got = torch.cat([seen[kept], rest[0][None]])
            want = torch.cat([expected[kept], rest[1][None]])
            assert stats.chisquare(got.numpy(), want.numpy()).pvalue > 1e-3, (kernel, i)


def test_steps_and_streams_are_independent(device):
    labels = torch.zeros(512, device=device)
    state = fm.plan_state(3, device=device)
    first, second = (near(labels, state=state) for _ in range(2))
    assert state[STEP_WORD] == 2 and (first == second).float().mean() < 0.02
    assert len(first.unique()) > 256  # of 512 equal labels, 63 % are someone's partner
    other = near(labels, state=fm.plan_state(3, rank=1, device=device))
    assert (first == other).float().mean() < 0.02


def test_a_bandwidth_beyond_the_labels_is_a_shuffle_with_replacement(device):
    labels = torch.randn(300, device=device)
    wide = near(labels, 1e6)
    assert torch.equal(wide, near(torch.zeros_like(labels), 1.0))
    assert near(labels, 1e-9).tolist() == list(range(300))


def test_a_pool_out_of_reach_gives_the_nearest(device):
    labels = torch.tensor([5.0, -5.0], device=device)
    pool = torch.tensor([0.0, 1.0, -2.0], device=device)
    for kernel in ("gaussian", "tophat"):
        assert near(labels, 1e-3, pool=pool, kernel=kernel).tolist() == [1, 2]
    assert near(labels, 0.5, pool=pool[:1]).tolist() == [0, 0]


def test_dtypes_and_layouts(device):
    labels = torch.randint(-8, 8, (33, 2), device=device) / 4  # exact in every dtype
    expected = near(labels.double(), 0.3)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert torch.equal(near(labels.to(dtype), 0.3), expected)
    assert torch.equal(near(labels.t().contiguous().t(), 0.3), expected)
    assert torch.equal(near(labels, 0.3, pool=labels.double()), expected)
    flat = near(labels[:, 0].contiguous(), 0.3)
    assert torch.equal(near(labels[:, :1], 0.3), flat)
    assert torch.equal(near(labels[:, 0], 0.3), flat)
    changing = torch.tensor([0.3], dtype=torch.float64, device=device)
    assert torch.equal(near(labels, changing), expected)
    assert near(labels[:0]).shape == (0,)


def test_threads_draw_what_one_thread_draws():
    if backends.reason_unavailable("native", "CPU") is not None:
        pytest.skip("needs the C++ extension")
    labels = torch.randn(3000)
    alone = near(labels)
    torch.set_num_threads(2)
    assert torch.equal(near(labels), alone)


def test_labels_that_are_not_finite_keep_their_sample(device):
    labels = torch.randn(20, 1, device=device)
    labels[3], labels[5] = math.nan, math.inf
    h = torch.tensor([0.5], dtype=torch.float64)
    state = fm.plan_state(1, device=device)
    partner = ops.draw_neighbors(state, h, labels, None, GAUSSIAN)
    assert partner[3] == 3 and partner[5] == 5


def test_a_state_of_another_version_keeps_every_sample(device):
    state = fm.plan_state(1, device=device)
    state[VERSION_WORD] += 1
    before, h = state.clone(), torch.tensor([9.0], dtype=torch.float64)
    partner = ops.draw_neighbors(state, h, torch.randn(20, 1, device=device), None, GAUSSIAN)
    assert partner.tolist() == list(range(20)) and torch.equal(state, before)


# ------------------------------------------------------------------ in use


def test_partners_go_into_plans(device):
    labels = torch.randn(64, device=device)
    state = fm.plan_state(2, device=device)
    partner = near(labels, 0.2, state=state)
    plan = fm.draw_plan(64, state=state, mixup_alpha=2.0, pairing=partner)
    x = torch.randn(64, 5, device=device)
    own, other = plan.blend.float().unbind(1)
    own, other = own.to(device)[:, None], other.to(device)[:, None]
    torch.testing.assert_close(fm.mix(x, plan), own * x + other * x[partner.long()])
    mixed = fm.mix_labels(labels, plan)
    assert (mixed - labels).abs().max() < 2.0  # neighbours are within reach of the kernel


def test_a_checkpoint_draws_the_same_again(device):
    labels, x = torch.randn(32, device=device), torch.randn(32, 3, device=device)
    x.requires_grad_()
    state = fm.plan_state(5, device=device)

    def block(x):
        partner = near(labels, 0.5, state=state)
        plan = fm.MixPlan.uniform(32, partner.long(), 0.3)
        return fm.mix(x, plan).square()

    out = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
    out.sum().backward()
    again = x.detach().clone().requires_grad_()
    plan = fm.MixPlan.uniform(32, near(labels, 0.5, seed=5).long(), 0.3)
    fm.mix(again, plan).square().sum().backward()
    torch.testing.assert_close(x.grad, again.grad)
    assert state[STEP_WORD] == 1


@pytest.mark.proof  # the compiler takes seconds to import
def test_compiled_draws_are_those_of_eager_calls(device):
    labels = torch.randn(50, device=device)
    state = fm.plan_state(5, device=device)
    step = torch.compile(lambda y: near(y, 0.5, state=state), backend="aot_eager", fullgraph=True)
    eager = fm.plan_state(5, device=device)
    for _ in range(3):
        assert torch.equal(step(labels), near(labels, 0.5, state=eager))
    assert torch.equal(state, eager)


# ------------------------------------------------------------------ errors

Y = torch.zeros(4)


@pytest.mark.parametrize(
    ("labels", "h", "options", "error", "match"),
    [
        (Y.long(), 1.0, {}, TypeError, r"labels: expected floating labels .* \.float\(\)"),
        ([1.0], 1.0, {}, TypeError, "labels: expected floating labels"),
        (torch.zeros(4, 2, 2), 1.0, {}, ValueError, r"use \.flatten\(1\)"),
        (torch.zeros(4, 0), 1.0, {}, ValueError, "D >= 1"),
        (Y + math.nan, 1.0, {}, ValueError, "labels: expected finite numbers"),
        (Y, 0.0, {}, ValueError, "bandwidth: expected a number in"),
        (Y, math.nan, {}, ValueError, "bandwidth: expected a number in"),
        (Y, "1", {}, TypeError, "bandwidth: expected a number"),
        (Y, torch.tensor([1.0]), {}, TypeError, r"bandwidth: .* \[1\] .* dtype=torch.float"),
        (Y, torch.ones(()).double(), {}, TypeError, r"bandwidth: expected .* float64 \[1\]"),
        (Y, torch.ones(1).double().requires_grad_(), {}, ValueError, "bandwidth: .* no gradient"),
        (Y, torch.tensor([-1.0]).double(), {}, ValueError, "bandwidth: expected a number in"),
        (Y, 1.0, {"kernel": "linear"}, ValueError, "kernel: expected one of"),
        (Y, 1.0, {"pool": torch.zeros(3, 2)}, ValueError, "pool: expected labels of shape"),
        (Y, 1.0, {"pool": Y[:0]}, ValueError, "pool: expected at least one"),
        (Y, 1.0, {"pool": Y.int()}, TypeError, "pool: expected floating"),
        (Y, 1.0, {"pool": Y - math.inf}, ValueError, "pool: expected finite"),
        (Y.to("meta"), 1.0, {}, ValueError, "labels: expected them on cpu"),
    ],
)
def test_bad_arguments(labels, h, options, error, match):
    state = fm.plan_state(1)
    with pytest.raises(error, match=match):
        draw_neighbors(labels, h, state=state, **options)
    assert state[STEP_WORD] == 0
    with pytest.raises(TypeError, match="state: expected a tensor"):
        draw_neighbors(Y, 1.0, state=None)
