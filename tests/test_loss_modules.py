"""SoftTargetCrossEntropy and SoftTargetBinaryCrossEntropy replace PyTorch's modules."""

from __future__ import annotations

import inspect

import pytest
import torch
from cases import loss_targets
from torch import nn

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

PAIRS = (
    (fm.SoftTargetCrossEntropy, nn.CrossEntropyLoss),
    (fm.SoftTargetBinaryCrossEntropy, nn.BCEWithLogitsLoss),
)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_arguments_stand_where_pytorch_has_them(ours, theirs):
    mine = list(inspect.signature(ours).parameters.values())
    for a, b in zip(mine, inspect.signature(theirs).parameters.values(), strict=False):
        assert (a.name, a.default, a.kind) == (b.name, b.default, b.kind)
    rest = mine[len(inspect.signature(theirs).parameters) :]
    assert all(p.kind == p.KEYWORD_ONLY for p in rest)


def test_in_the_place_of_cross_entropy():
    z = torch.randn(4, 7, 3)
    weight = torch.rand(7)
    labels = torch.randint(0, 7, (4, 3))
    labels[0, 1] = -100
    dense = torch.rand(4, 7, 3)
    for args in ((), (weight,), (weight, None, 5, None, "sum", 0.1)):
        ours, theirs = fm.SoftTargetCrossEntropy(*args), nn.CrossEntropyLoss(*args)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        targets = (labels, dense) if len(args) < 3 else (labels.clamp_min(0),)
        for t in targets:
            torch.testing.assert_close(ours(z, t), theirs(z, t))


def test_in_the_place_of_binary_cross_entropy():
    z, t = torch.randn(4, 7), torch.rand(4, 7)
    weight = torch.rand(7)
    for args in ((), (weight,), (weight, None, None, "sum", 2 * weight)):
        ours, theirs = fm.SoftTargetBinaryCrossEntropy(*args), nn.BCEWithLogitsLoss(*args)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        torch.testing.assert_close(ours(z, t), theirs(z, t))


def test_weights_move_with_the_module():
    loss = fm.SoftTargetCrossEntropy(torch.rand(7)).to("meta")
    assert loss.weight.device.type == "meta"
    loss = fm.SoftTargetBinaryCrossEntropy(pos_weight=torch.rand(7)).double()
    assert loss.pos_weight.dtype == torch.float64
    assert "reduction='sum'" in repr(fm.SoftTargetCrossEntropy(reduction="sum"))
    assert "sum_classes=True" in repr(fm.SoftTargetBinaryCrossEntropy(sum_classes=True))


def test_options_reach_the_function():
    z = (torch.randn(4, 7, requires_grad=True) * 1).detach()
    (_, target), *_ = loss_targets(4, 7)
    leaf = z.clone().requires_grad_()
    for mode in ("grad_in_forward", "inplace_backward"):
        for module in (fm.SoftTargetCrossEntropy, fm.SoftTargetBinaryCrossEntropy):
            value = module(**{mode: True})(leaf * 1.0, target)
            with pytest.raises(RuntimeError, match=mode):
                torch.autograd.grad(value, leaf, create_graph=True)
    with pytest.raises(ValueError, match="sum to one"):
        fm.SoftTargetCrossEntropy(validate=True)(z, target.dense() * 2)
    got = fm.SoftTargetBinaryCrossEntropy(target_threshold=0.5, sum_classes=True)(z, target)
    expected = fm.soft_target_binary_cross_entropy(
        z, target, target_threshold=0.5, sum_classes=True
    )
    assert torch.equal(got, expected)


# ------------------------------------------------------------------ several heads

PLAN = MixPlan.uniform(4, "flip", 0.3)
LABELS = {"kind": torch.arange(4), "colour": torch.tensor([0, 1, 0, 2])}
CLASSES = {"kind": 7, "colour": 3}


def logits():
    return {name: torch.randn(4, k) for name, k in CLASSES.items()}


@pytest.mark.parametrize("kind", [dict, list, tuple])
@pytest.mark.parametrize("module", [fm.SoftTargetCrossEntropy, fm.SoftTargetBinaryCrossEntropy])
def test_heads_in_any_structure(module, kind):
    def shaped(values):
        return values if kind is dict else kind(values.values())

    z = logits()
    targets = MixedTarget.from_labels(shaped(LABELS), PLAN, shaped(CLASSES), 0.1)
    assert type(targets) is kind
    each = [
        module()(z[name], MixedTarget.from_labels(LABELS[name], PLAN, CLASSES[name], 0.1))
        for name in CLASSES
    ]
    torch.testing.assert_close(module()(shaped(z), targets), sum(each))
    factors = shaped({"kind": 2.0, "colour": 0.5})
    got = module(head_weights=factors)(shaped(z), targets)
    torch.testing.assert_close(got, 2 * each[0] + 0.5 * each[1])
    rows = module(reduction="none", **({"sum_classes": True} if "Binary" in str(module) else {}))
    assert rows(shaped(z), targets).shape == (4,)


def test_heads_with_one_number_of_classes():
    targets = MixedTarget.from_labels(LABELS, PLAN, 9)
    assert [t.num_classes for t in targets.values()] == [9, 9]


TARGETS = MixedTarget.from_labels(LABELS, PLAN, CLASSES)
CROSS = fm.SoftTargetCrossEntropy


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: CROSS(size_average=True), ValueError, "size_average: expected None"),
        (lambda: CROSS(reduce=False), ValueError, "reduce: expected None"),
        (lambda: CROSS(reduction="avg"), ValueError, "reduction"),
        (lambda: CROSS(label_smoothing=2), ValueError, "label_smoothing"),
        (lambda: CROSS()(logits(), TARGETS["kind"]), TypeError, "target: expected the heads"),
        (lambda: CROSS()(logits(), list(TARGETS.values())), ValueError, "target: expected the he"),
        (lambda: CROSS()(logits(), {"kind": TARGETS["kind"]}), ValueError, "colour"),
        (lambda: CROSS()({}, {}), ValueError, "logits: expected at least one head"),
        (
            lambda: fm.SoftTargetBinaryCrossEntropy(reduction="none")(logits(), TARGETS),
            ValueError,
            r"losses have one shape.*'kind': \[4, 7\]",
        ),
        (
            lambda: fm.SoftTargetBinaryCrossEntropy(target_threshold="0.5"),
            TypeError,
            "target_threshold: expected a number",
        ),
        (lambda: CROSS()(3, TARGETS), TypeError, "logits: expected a tensor"),
        (lambda: CROSS(head_weights=[1.0])(logits(), TARGETS), ValueError, "head_weights"),
        (
            lambda: CROSS(head_weights=[1.0])(logits()["kind"], TARGETS["kind"]),
            TypeError,
            "as head_weights is given",
        ),
        (
            lambda: MixedTarget.from_labels(LABELS, PLAN, {"kind": 7}),
            ValueError,
            "num_classes: expected the heads of labels",
        ),
    ],
)
def test_bad_input(call, error, says):
    with pytest.raises(error, match=says):
        call()
