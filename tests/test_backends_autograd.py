"""A forced backend in backwards and in compiled code."""

from __future__ import annotations

import pytest
import torch
from backend_watch import DEFAULT, PLAN, run_in_thread, run_python

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, backends, forcing, ops

needs_native = pytest.mark.skipif(
    DEFAULT == "reference", reason=str(backends.reason_unavailable("native", "CPU"))
)

# ------------------------------------------------------------------ backwards


BACKWARDS = {
    "mix": lambda z, target: fm.mix(z, PLAN),
    "mix by partners": lambda z, target: fm.mix(z, MixPlan.uniform(4, torch.tensor([1, 1, 0, 3]))),
    "cross-entropy": fm.soft_target_cross_entropy,
    "in forward": lambda z, target: fm.soft_target_cross_entropy(z, target, grad_in_forward=True),
    "in place": lambda z, target: fm.soft_target_cross_entropy(
        z * 1, target, inplace_backward=True
    ),
    "binary": fm.soft_target_binary_cross_entropy,
    "linear": lambda z, target: fm.linear_soft_target_cross_entropy(z, torch.eye(8), None, target),
    "linear, rows": lambda z, target: fm.linear_soft_target_cross_entropy(
        z, torch.eye(8), None, target, chunk_rows=2, reduction="none"
    ),
    "registered": lambda z, target: ops.soft_target_binary_cross_entropy(
        z, target.dense(), None, None, None, None, 0.0, None, 0.0, 0, True
    ),
}


@needs_native
@pytest.mark.parametrize("where", ["same thread", "another thread"])
@pytest.mark.parametrize("loss", BACKWARDS.values(), ids=BACKWARDS)
def test_a_backward_uses_what_its_forward_used(loss, where, reference_calls):
    target = MixedTarget.from_labels(torch.arange(4), PLAN, 8)

    def forward(name):
        z = torch.randn(4, 8).requires_grad_()
        with fm.backend(name):
            return loss(z, target).sum()

    def backward(out):
        reference_calls.clear()
        if where == "same thread":
            out.backward()
        else:
            run_in_thread(out.backward)
        return bool(reference_calls)

    assert backward(forward("reference"))
    with fm.backend("reference"):
        assert not backward(forward("auto"))


@needs_native
@pytest.mark.parametrize("loss", ["mix", "cross-entropy", "binary"])
def test_a_double_backward_uses_it_too(loss, reference_calls):
    target = MixedTarget.from_labels(torch.arange(4), PLAN, 8)
    z = torch.randn(4, 8).requires_grad_()
    with fm.backend("reference"):
        out = BACKWARDS[loss](z, target).square().sum()
    reference_calls.clear()
    (grad,) = torch.autograd.grad(out, z, create_graph=True)
    first = len(reference_calls)
    grad.square().sum().backward()
    assert first and (loss != "mix" or len(reference_calls) > first)


# ------------------------------------------------------------------ compiled code


COMPILED = """
import torch
import torch._dynamo.testing
import fused_mixup as fm
from fused_mixup import ops, reference

torch.set_num_threads(1)
served = []
for name in ("mix", "mix_backward"):
    def watched(*args, name=name, real=getattr(reference, name)):
        served.append(name)
        return real(*args)
    setattr(reference, name, watched)
graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
plan, x = fm.MixPlan.uniform(4, "flip", 0.3), torch.randn(4, 8, requires_grad=True)
compiled = torch.compile(
    lambda x, blend, box: ops.mix(x, None, blend, box, plan.rule), backend=graphs, fullgraph=True
)
want = fm.mix(x, plan).detach()


def step():
    served.clear()
    out = compiled(x, plan.blend, plan.box)
    out.sum().backward()
    assert torch.equal(out.detach(), want)
    return list(served)


both = ["mix", "mix_backward"]
default = both if fm.backends.chosen("CPU") == "reference" else []
assert fm.forcing.ever_forced or step() == []
for name in ("reference", "auto", "reference"):
    with fm.backend(name):
        assert step() == (both if name == "reference" else default), (name, served)
    assert step() == default
for graph in graphs.graphs:
    print([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
"""


def test_compiled_code_is_compiled_once_more_and_follows_from_then_on():
    done = run_python(COMPILED, FUSED_MIXUP_BACKEND="auto")
    assert done.returncode == 0, done.stderr
    graphs = [f"['{namespace}.mix.default']" for namespace in (ops.NAMESPACE, ops.CHOSEN)]
    assert done.stdout.splitlines() == graphs


def test_compiled_code_follows_the_thread_that_runs_it(reference_calls):
    plan, x = PLAN, torch.randn(4, 8)
    compiled = torch.compile(
        lambda x, blend, box: ops.mix(x, None, blend, box, plan.rule),
        backend="aot_eager",
        fullgraph=True,
    )
    with fm.backend("reference"):
        compiled(x, plan.blend, plan.box)
        assert len(reference_calls) == 1
        if DEFAULT != "reference":
            run_in_thread(compiled, x, plan.blend, plan.box)
            assert len(reference_calls) == 1


def test_a_context_inside_compiled_code(reference_calls):
    def inside(x):
        with fm.backend("reference"):
            return fm.mix(x, PLAN)

    x = torch.randn(4, 8)
    assert torch.equal(torch.compile(inside, backend="eager")(x), fm.mix(x, PLAN))
    assert [name for name, _ in reference_calls] == ["mix"] and forcing.forced() == "auto"
