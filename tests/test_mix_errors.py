"""mix_, mix, paste_: inputs that they refuse, and forward mode, which they support."""

from __future__ import annotations

import pytest
import torch

import fused_mixup as fm
from fused_mixup import MixPlan

B = 4


def image(**kw):
    return torch.ones(B, 3, 8, 8, **kw)


FLIP = MixPlan.uniform(B, "flip", 0.5)
WIDE = MixPlan.uniform(B, "flip", 0.5, [0, 0, 9, 3])
VOLUME = MixPlan.uniform(3, "flip", 0.5, [0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("x", "plan", "error", "says"),
    [
        (image(dtype=torch.int64), FLIP, TypeError, "mix embeddings, not ids"),
        (image(dtype=torch.complex64), FLIP, TypeError, "x: expected float16"),
        ([1, 2], FLIP, TypeError, "x: expected a tensor"),
        (image(), 0.5, TypeError, "plan: expected a MixPlan"),
        (image()[:3], FLIP, ValueError, r"x: expected shape \[4, …\]"),
        (torch.ones(()), FLIP, ValueError, "x: expected shape"),
        (image(), WIDE, ValueError, "plan: expected boxes inside"),
        (torch.ones(3, 8, 8), VOLUME, ValueError, "at least 4 dims"),
        (image(device="meta"), FLIP.to("meta"), None, ""),
        (image(device="meta"), MixPlan.per_sample(torch.rand(B)), ValueError, "use plan.to"),
        (torch.ones([B] + [1] * 13), FLIP, ValueError, "at most 13 dims"),
    ],
)
def test_bad_input(x, plan, error, says):
    for op in (fm.mix_, fm.mix):
        if error is None:
            op(x, plan)
            continue
        before = x.clone() if isinstance(x, torch.Tensor) and x.device.type == "cpu" else None
        with pytest.raises(error, match=says):
            op(x, plan)
        assert before is None or torch.equal(x, before)


def test_in_place_refuses_what_it_would_break():
    x = image(requires_grad=True)
    with pytest.raises(ValueError, match="does not require grad.*mix\\(x, plan\\)"):
        fm.mix_(x, FLIP)
    with torch.inference_mode():
        made_there = image()
        fm.mix_(made_there, FLIP)
    with pytest.raises(ValueError, match="inference mode"):
        fm.mix_(made_there, FLIP)
    overlapping = (torch.ones(1, 8).expand(B, 8), torch.ones(10).as_strided((B, 4), (2, 1)))
    for view in overlapping:
        with pytest.raises(ValueError, match="overlapping"):
            fm.mix_(view, FLIP)
        with pytest.raises(ValueError, match="overlapping"):
            fm.paste_(view, MixPlan.identity(B))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_graph_that_saved_the_batch_refuses_to_run_after_mixing(device, compiled):
    # Gradients would be silently wrong: autograd does not see the writes of a custom kernel.
    cut = MixPlan.uniform(B, "flip", 0.5, [0, 0, 3, 3])
    writes = {
        "mix_": lambda x: fm.mix_(x, FLIP),
        "paste_": lambda x: fm.paste_(x, cut),
        "mix out": lambda x: fm.mix(torch.ones_like(x), FLIP, out=x),
    }
    for name, write in writes.items():
        torch._dynamo.reset()
        write = torch.compile(write, backend="aot_eager", fullgraph=True) if compiled else write
        x = image(device=device)
        w = torch.ones(8, device=device, requires_grad=True)
        loss = (x * w).sum()
        write(x)
        assert x._version > 0, name
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_paste_refuses_a_plan_that_blends():
    with pytest.raises(ValueError, match="only pastes boxes"):
        fm.paste_(torch.ones(B, 8, 8, dtype=torch.int64), FLIP)


def test_views_and_layouts_that_lie_about_their_memory():
    for lazy in (torch._neg_view(image()), image(dtype=torch.complex64).conj()):
        with pytest.raises(ValueError, match="resolve_neg"):
            fm.paste_(lazy, MixPlan.identity(B))
    nested = torch.nested.nested_tensor([torch.ones(2)] * B, layout=torch.jagged)
    for other, said in ((image().to_sparse(), "a dense tensor"), (nested, "samples of one size")):
        for op in (fm.mix_, fm.mix):
            with pytest.raises(TypeError, match=f"x: expected {said}"):
                op(other, FLIP)


def test_bad_out():
    x = image()
    for out, says in (
        (image(dtype=torch.float64), "like x"),
        (x, "reaches into that of x"),
        (x.flatten()[: 3 * 64].view(1, 3, 8, 8).expand(B, 3, 8, 8), "overlapping"),
        (image(requires_grad=True), "no gradients"),
    ):
        with pytest.raises(ValueError, match=says):
            fm.mix(x, FLIP, out=out)
    with pytest.raises(TypeError, match="out: expected a tensor"):
        fm.mix(x, FLIP, out=3)
    with pytest.raises(ValueError, match="no gradients"):
        fm.mix(image(requires_grad=True), FLIP, out=image())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: clamping is tested on the host")
def test_values_on_a_device_are_clamped_not_read():
    rows = torch.tensor([99, -5, 2, 0], dtype=torch.int32, device="cuda")
    box = torch.tensor([[-3, -3, 99, 99]] * B, dtype=torch.int32, device="cuda")
    keep = torch.tensor([[1.0, 0.0]] * B, device="cuda")
    plan = MixPlan(rows, keep, keep.double(), box)
    x = torch.arange(float(B), device="cuda").view(B, 1, 1).expand(B, 8, 8).contiguous()
    assert fm.mix(x, plan)[:, 0, 0].tolist() == [3.0, 0.0, 2.0, 0.0]


def test_forward_mode_has_tangents_in_place_too():
    x, v = image(dtype=torch.float64), image(dtype=torch.float64)
    for op in (fm.mix, lambda t, plan: fm.mix_(t.clone(), plan)):
        _, tangent = torch.func.jvp(lambda t, op=op: op(t, FLIP), (x,), (v,))
        torch.testing.assert_close(tangent, fm.mix(v, FLIP))
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, v)
            mixed = torch.autograd.forward_ad.unpack_dual(op(dual, FLIP))
        torch.testing.assert_close(mixed.tangent, fm.mix(v, FLIP))
        torch.testing.assert_close(mixed.primal, fm.mix(x, FLIP))
