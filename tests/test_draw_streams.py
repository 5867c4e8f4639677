"""draw_plan: streams resume, no value is read on the host, and a step compiles once."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
from draw_cases import PAIRING_NAMES, draw, draw_cases
from torch.utils._python_dispatch import TorchDispatchMode

import fused_mixup as fm
from fused_mixup import ops, reference
from fused_mixup.codes import STEP_WORD, VERSION_WORD

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ streams


def test_a_state_saved_and_restored_goes_on_to_the_bit(device):
    state = fm.plan_state(5, rank=2, worker=1, device=device)
    options = {"per": "sample", "pairing": "shuffle", "cutmix_alpha": 1.0}
    draw(16, (8, 8), state=state, **options)
    saved = state.clone()
    later = [draw(16, (8, 8), state=state, **options) for _ in range(3)]
    assert later == [draw(16, (8, 8), state=saved, **options) for _ in range(3)]
    assert torch.equal(state, saved)
    assert later[0] != later[1]


def test_no_two_streams_or_steps_are_alike(device):
    states = [
        fm.plan_state(5),
        fm.plan_state(6),
        fm.plan_state(5 + 2**32),
        fm.plan_state(5, rank=1),
        fm.plan_state(5, worker=0),
        fm.plan_state(5, worker=1),
        fm.plan_state(5, rank=1, worker=0),
    ]
    late = fm.plan_state(5)
    late[STEP_WORD] = 2**32
    lam, orders = set(), set()
    for state in (*states, late):
        state = state.to(device)
        for _ in range(3):
            plan = draw(32, state=state, pairing="shuffle")
            lam.add(plan.blend[0, 0].item())
            orders.add(tuple(plan.partner.tolist()))
    assert len(lam) == len(orders) == 3 * 8


def test_seeds_of_64_bits_signed_or_not():
    assert torch.equal(fm.plan_state(-1), fm.plan_state(2**64 - 1))


def test_a_state_of_another_version_poisons_where_it_cannot_be_read(device):
    state = fm.plan_state(1, device=device)
    state[VERSION_WORD] += 1
    settings = fm.plan_settings(cutmix_alpha=1.0)
    _, weight, blend, _ = ops.draw_plan(state, settings, None, None, 6, [4], 2, 1, True, False)
    assert weight.isnan().all() and blend.isnan().all()
    assert state[STEP_WORD] == 0


# ------------------------------------------------------------------ no host reads, compiling


class NoHostReads(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read"
        return func(*args, **(kwargs or {}))


def test_no_value_is_read_on_the_host():
    for state, *rest in draw_cases(12, seed=2):
        with NoHostReads():
            reference.draw_plan(state, *rest)
    labels = torch.arange(8) % 3
    for pairing in PAIRING_NAMES:
        with NoHostReads():
            draw(8, (4, 4), cutmix_alpha=1.0, pairing=pairing, labels=labels)
    with pytest.raises(AssertionError, match="a value was read"), NoHostReads():
        labels[0].item()


def test_a_schedule_neither_breaks_nor_recompiles(device):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    labels = torch.arange(8, device=device) % 3

    def step(x, state, settings):
        plan = fm.draw_plan(
            x.shape[0],
            x.shape[2:],
            state=state,
            settings=settings,
            per="sample",
            pairing="cross_class",
            labels=labels,
        )
        return fm.mix(x, plan)

    compiled = torch.compile(step, backend=counter, fullgraph=True)
    x = torch.randn(8, 3, 6, 6, device=device)
    settings = fm.plan_settings(device=device)
    states = fm.plan_state(1, device=device), fm.plan_state(1, device=device)
    for alpha in (0.1, 0.2, 0.8):
        settings.copy_(fm.plan_settings(mixup_alpha=alpha, cutmix_alpha=1.0))
        for _ in range(2):
            assert torch.equal(compiled(x, states[0], settings), step(x, states[1], settings))
    assert torch.equal(*states)
    assert counter.frame_count == 1


def test_compiled_with_plain_numbers(device):
    torch._dynamo.reset()
    states = fm.plan_state(1, device=device), fm.plan_state(1, device=device)

    def step(x, state):
        options = {"cutmix_alpha": 1.0, "per": "pair", "cutmix_minmax": (0.1, 0.9)}
        return fm.mix(x, fm.draw_plan(len(x), x.shape[2:], state=state, **options))

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
    for n in (4, 7, 8):
        x = torch.randn(n, 3, 6, 5, device=device)
        assert torch.equal(compiled(x, states[0]), step(x, states[1]))
    assert torch.equal(*states)
