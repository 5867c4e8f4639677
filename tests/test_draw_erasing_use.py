"""random_erasing: what it refuses; compiled, and in the recompute of a checkpoint."""

from __future__ import annotations

import functools

import pytest
import torch
import torch._dynamo.testing
from torch.utils.checkpoint import checkpoint

import fused_mixup as fm
from fused_mixup.codes import STEP_WORD

pytestmark = pytest.mark.usefixtures("one_thread")

NAN, INF = float("nan"), float("inf")


def erase(batch_size=64, spatial=(40, 30), *, state=None, device="cpu", **options):
    state = fm.plan_state(7, device=device) if state is None else state
    return fm.random_erasing(batch_size, spatial, state=state, **options)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"spatial": (8,)}, ValueError, r"spatial: expected \(H, W\)"),
        ({"spatial": (8, -1)}, ValueError, "spatial: expected sizes"),
        ({"batch_size": 65537}, ValueError, "batch_size: expected 0 to 65,536"),
        ({"prob": 1.5}, ValueError, "prob: expected a probability"),
        ({"prob": torch.ones(())}, TypeError, "prob: expected a number"),
        ({"area": 0.3}, TypeError, "area: expected two numbers"),
        ({"area": (0.3,)}, ValueError, "area: expected two numbers"),
        ({"area": (0.3, 0.2)}, ValueError, "area: expected 0 <= low <= high <= 1"),
        ({"area": (0.3, 1.1)}, ValueError, "area: expected 0 <= low <= high <= 1"),
        ({"area": (NAN, 1.0)}, ValueError, "area: expected 0 <= low <= high <= 1"),
        ({"aspect": (0.0, 1.0)}, ValueError, "aspect: expected 1e-06 <= low"),
        ({"aspect": ("a", 1.0)}, TypeError, "aspect: expected a number"),
        ({"mode": "random"}, ValueError, "mode: expected one of"),
        ({"mode": "rand", "value": 1.0}, ValueError, "value: expected 0, the default, with mode"),
        ({"value": "red"}, TypeError, "value: expected a number, or one for each channel"),
        ({"value": []}, ValueError, "value: expected 1 to 64 numbers, got 0"),
        ({"value": [1e39]}, ValueError, "value: expected numbers within the range of float32"),
        ({"value": NAN}, ValueError, "value: expected numbers within the range of float32"),
        ({"value": torch.ones(2, device="meta")}, TypeError, "make Erasing"),
        ({"max_count": 0}, ValueError, "max_count: expected 1 to 64"),
        ({"max_count": 65}, ValueError, "max_count: expected 1 to 64"),
        ({"max_count": 1.5}, TypeError, "max_count: expected an int"),
        ({"channels": 65}, ValueError, "channels: expected 1 to 64"),
        ({"clean": 5}, ValueError, "clean: expected 0 to batch_size, got 5 of 4 samples"),
        ({"clean": -1}, ValueError, "clean: expected 0 to batch_size"),
        ({"settings": fm.plan_settings()}, ValueError, r"as erasing_settings\(\) makes them"),
        ({"settings": torch.zeros(5)}, TypeError, r"float64 \[5\] of erasing_settings"),
    ],
)
def test_bad_arguments(options, error, says):
    state = fm.plan_state(0)
    given = {"batch_size": 4, "spatial": (8, 8), "state": state, **options}
    with pytest.raises(error, match=says):
        fm.random_erasing(**given)
    assert torch.equal(state, fm.plan_state(0))


def test_bad_states():
    for state in (None, torch.zeros(4), torch.zeros(4, dtype=torch.int64)):
        with pytest.raises((TypeError, ValueError), match="state: expected"):
            fm.random_erasing(4, (8, 8), state=state)


# ------------------------------------------------------------------ compiled, checkpointed


def test_a_step_with_batches_of_any_size_compiles_once():
    torch._dynamo.reset()
    state, expected, x = fm.plan_state(6), fm.plan_state(6), torch.empty(7, 3, 20, 30)

    def step(x, state):
        erasing = erase(len(x), x.shape[2:], state=state, mode="rand", max_count=2)
        return erasing.box, erasing.value

    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=counter)
    frames = set()
    for size in (6, 6, 5, 7):  # not 4, as the state has that size
        assert all(map(torch.equal, compiled(x[:size], state), step(x[:size], expected)))
        assert torch.equal(state, expected)
        frames.add(counter.frame_count)
    assert len(frames) == 1  # not more than the first call took


@pytest.mark.parametrize("compiled", [False, True])
def test_a_recompute_draws_the_boxes_of_its_forward(compiled):
    torch._dynamo.reset()
    x = torch.rand(8, 3, 12, 10)

    def block(state, x, w):
        a = x * w * w
        for mode in ("rand", "const"):
            erasing = fm.random_erasing(8, (12, 10), state=state, mode=mode, prob=0.9)
            y0, x0, y1, x1 = (t.view(8, 1, 1, 1) for t in erasing.box[:, 0].unbind(1))
            row, column = torch.arange(12).view(1, 1, -1, 1), torch.arange(10)
            inside = (row >= y0) & (row < y1) & (column >= x0) & (column < x1)
            a = torch.where(inside, erasing.value[:, 0, :, None, None], a).sin()
            a = fm.mix(a, fm.draw_plan(8, state=state, per="sample", pairing="shuffle"))
        return a.square().sum()

    results = []
    for within in (lambda f, *a: f(*a), functools.partial(checkpoint, use_reentrant=False)):
        state = fm.plan_state(3)
        w = torch.full((10,), 0.5, requires_grad=True)

        def step(state, x, w, within=within):
            return within(block, state, x, w)

        if compiled and results:
            step = torch.compile(step, backend="aot_eager", fullgraph=True)
        step(state, x, w).backward()
        results.append((w.grad, state))
    torch.testing.assert_close(results[1], results[0])
    assert int(state[STEP_WORD]) == 4
