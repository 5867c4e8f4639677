"""Draws inside torch.utils.checkpoint: gradients and steps are those of the step without it."""

from __future__ import annotations

import contextlib
import functools

import pytest
import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

import fused_mixup as fm
from fused_mixup import BatchMix, MixPlan, mix, tracing
from fused_mixup.codes import STEP_WORD

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*in-place ops"),
]

B, D = 8, 4
X = torch.rand(B, D, generator=torch.Generator().manual_seed(0))
region = functools.partial(checkpoint, use_reentrant=False)


def plain(call, *args, **options):
    return call(*args)


class Step:
    """A loss whose blocks draw; ``within`` is checkpoint, or a plain call of the block."""

    def __init__(self, within, kind):
        self.mix = BatchMix(10, per="sample", pairing="derangement", seed=3)
        self.state = fm.plan_state(5)
        self.within, self.kind = within, kind

    def mixed(self, x):
        return mix(x, self.mix.draw(B))

    def one(self, x, w):
        return (self.mixed(x * w) ** 2).sin()

    def several(self, x, w):
        a = self.mixed(x * w) ** 2
        b = mix(a * w, fm.draw_plan(B, state=self.state, per="sample")).sin() + a
        return self.mixed(b * w) ** 2

    def nested(self, x, w):
        a = self.mixed((x * w).sin()) ** 2
        b = self.within(self.one, a, w)
        c = self.within(self.several, b, w)
        return self.mixed(c.sin() * w) ** 2

    def __call__(self, x, w):
        if self.kind == "in turn":
            return self.within(self.several, self.within(self.one, x, w), w).sum()
        options = {"context_fn": selected} if self.kind == "selective" else {}
        options |= {"early_stop": False} if self.kind == "no early stop" else {}
        blocks = {"one": self.one, "nested": self.nested}
        return self.within(blocks.get(self.kind, self.several), x, w, **options).sum()

    def steps(self):
        return int(self.mix.state[STEP_WORD]), int(self.state[STEP_WORD])


def selected():
    def policy(context, op, *args, **kwargs):
        saved = op is torch.ops.aten.mul.Tensor
        return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def gradient(step, call=None, backwards=1):
    w = torch.full((D,), 0.5, requires_grad=True)
    loss = (call or step)(X, w)
    for i in range(backwards):
        loss.backward(retain_graph=i + 1 < backwards)
    return w.grad, step.steps()


def same(a, b):
    torch.testing.assert_close(a[0], b[0])
    assert a[1] == b[1]


KINDS = ["one", "several", "nested", "in turn", "selective", "no early stop"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recompute_draws_the_plans_of_its_forward(kind):
    for backwards in (1, 2) if kind != "selective" else (1,):
        expected = gradient(Step(plain, kind), backwards=backwards)
        same(gradient(Step(region, kind), backwards=backwards), expected)


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        ("nested", "aot_eager"),
        ("in turn", "aot_eager"),
        ("selective", "aot_eager"),
        ("several", "aot_eager_default_partitioner"),
        ("several", "inductor"),
    ],
)
def test_compiled(kind, backend):
    torch._dynamo.reset()
    step, expected = Step(region, kind), Step(plain, kind)
    compiled = torch.compile(step, backend=backend, fullgraph=True)
    for _ in range(2):
        same(gradient(step, compiled), gradient(expected))


def test_a_compiled_block_inside_a_region():
    torch._dynamo.reset()
    step = Step(region, "one")
    step.one = torch.compile(step.one, backend="aot_eager", fullgraph=True)
    expected = Step(plain, "one")
    for _ in range(2):
        same(gradient(step), gradient(expected))


def test_a_backward_inside_a_region():
    def inner(step, x, w):
        y = step.within(step.one, x, w).sum()
        (g,) = torch.autograd.grad(y, w, create_graph=True)
        return step.mixed(x * g)

    def outer(step, w):
        return step.within(lambda x, w: inner(step, x, w) ** 2, X, w).sum()

    results = []
    for within in (plain, functools.partial(region, early_stop=False)):
        step = Step(within, "one")
        results.append(gradient(step, lambda x, w, step=step: outer(step, w)))
    same(*results)


def test_other_hooks_and_threads_around_it():
    results = []
    for within in (plain, region):
        step = Step(within, "several")
        with torch.autograd.graph.save_on_cpu():
            results.append(gradient(step))

        def call(x, w, step=step):
            def block(x, w):
                with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
                    return step.several(x, w)

            return step.within(block, x, w).sum()

        results.append(gradient(Step(within, "several"), None))
        step.mix.load_state_dict(Step(within, "several").mix.state_dict())
        step.state.copy_(fm.plan_state(5))
        results.append(gradient(step, call))
    for other in results[1:]:
        same(other, results[0])
    assert tracing.checkpoint_regions() == []


def test_what_was_drawn_is_forgotten_with_the_graph():
    from fused_mixup.plan import draw_replay

    before = len(draw_replay._drawn)
    for _ in range(3):
        gradient(Step(region, "several"))
    assert len(draw_replay._drawn) <= before


def test_settings_of_the_forward_count_in_the_recompute():
    gradients = []
    for within in (plain, region):
        step = Step(within, "one")
        w = torch.full((D,), 0.5, requires_grad=True)
        loss = step(X, w)
        step.mix.settings[0] = 100.0  # another epoch
        loss.backward()
        gradients.append(w.grad)
    torch.testing.assert_close(*gradients)


# ------------------------------------------------------------------ refused


def reentrant(call, *args):
    return checkpoint(call, *args, use_reentrant=True)


def test_a_reentrant_region_is_refused():
    step = Step(reentrant, "one")
    with pytest.raises(RuntimeError, match="draw before the region and pass the plan in"):
        gradient(step)
    assert step.steps() == (1, 0)


def test_a_compiled_block_in_a_reentrant_region_is_refused():
    torch._dynamo.reset()
    step = Step(reentrant, "one")
    step.one = torch.compile(step.one, backend="aot_eager")
    with pytest.raises(RuntimeError, match="draw before the region and pass the plan in"):
        gradient(step)


@pytest.mark.parametrize("missing", ["_top_hooks", "_pop_hooks", "_push_hooks", "_may_push"])
def test_without_private_names_a_recompute_is_never_another_plan(missing, monkeypatch):
    expected = gradient(Step(plain, "one"))
    monkeypatch.setattr(tracing, missing, None)
    step = Step(region, "one")
    if missing == "_top_hooks":
        with pytest.raises(RuntimeError, match="draw before the region"):
            gradient(step)
    else:
        same(gradient(step), expected)


def test_other_names_inside_checkpoint(monkeypatch):
    monkeypatch.setattr(tracing, "_checkpoint_region", lambda pack: None)
    with pytest.raises(RuntimeError, match="draw before the region"):
        gradient(Step(region, "one"))


def test_a_recompute_that_draws_more_is_refused():
    step, calls = Step(region, "one"), []

    def call(x, w):
        def block(x, w):
            calls.append(None)
            for _ in calls:
                x = step.mixed(x * w)
            return x.sin().exp()

        return checkpoint(block, x, w, use_reentrant=False, early_stop=False).sum()

    with pytest.raises(RuntimeError, match="expected 1 draws in the recompute"):
        gradient(step, call)


# ------------------------------------------------------------------ writing in place


def in_place(within, compiled, apply):
    torch._dynamo.reset()
    x, w = X.clone(), torch.full((D,), 0.5, requires_grad=True)

    def block(x, w):
        return ((apply(x) * w).sin() ** 2).sum()

    def step(x, w):
        return within(block, x, w)

    (torch.compile(step, backend="aot_eager", fullgraph=True) if compiled else step)(
        x, w
    ).backward()
    return w.grad, x


@pytest.mark.parametrize("op", ["mix_", "BatchMix"])
def test_images_that_a_region_writes(op):
    def applied():
        plan = MixPlan.uniform(B, "flip", 0.3)
        return BatchMix(per="sample", seed=2) if op == "BatchMix" else lambda x: fm.mix_(x, plan)

    expected = in_place(plain, False, applied())
    # Autograd refuses a backward when a tensor that it saved was written.
    refused = pytest.raises(RuntimeError, match="modified by an inplace operation")
    with refused:
        in_place(region, False, applied())
    graphs = torch.__version__ >= "2.13"  # older ones run the step uncompiled where it draws
    with contextlib.nullcontext() if op == "mix_" or graphs else refused:
        torch.testing.assert_close(in_place(region, True, applied()), expected)
