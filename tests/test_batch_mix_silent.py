"""BatchMix neither leaves labels unmixed nor rounds them without an error or a warning."""

import collections

import numpy as np
import pytest
import torch

from fused_mixup import BatchMix, MixedTarget, MixPlan, mix_labels

Heads = collections.namedtuple("Heads", "kind colour")


def images(batch_size=6):
    return torch.rand(batch_size, 3, 8, 8)


def classes():
    return torch.arange(6) % 3


@pytest.mark.parametrize(
    ("named", "batch"),
    [
        ({"images": (0, 1)}, lambda: (images(), images(), classes())),
        ({"images": 1}, lambda: (classes(), images())),
        ({"images": -1}, lambda: [classes(), images()]),
        ({"masks": 1}, lambda: (images(), torch.zeros(6, 8, 8, dtype=torch.int64), classes())),
        ({"masks": 1}, lambda: (images(), torch.rand(6, 8, 8), {"kind": classes()})),
        ({}, lambda: {"image": images(), "classes": [classes(), classes()]}),
        ({}, lambda: {"image": images(), "classes": (classes(), (classes(), classes()))}),
        ({}, lambda: {"image": images(), "classes": classes().numpy()}),
        ({}, lambda: {"image": images(), "classes": {"kind": classes()}}),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_may_be_labels_is_never_left_unmixed(named, batch, training):
    mixer = BatchMix(3, **named).train(training)
    state = mixer.state.clone()
    with pytest.raises(ValueError, match="^labels: expected .*BatchMix"):
        mixer(batch())
    assert torch.equal(mixer.state, state)


def test_labels_behind_two_images_are_mixed_where_they_are_named():
    mixer = BatchMix(3, images=(0, 1), labels=2)
    assert isinstance(mixer((images(), images(), classes()))[2], MixedTarget)
    assert BatchMix(images=(0, 1), labels=())((images(), images(), classes()))[2].dtype is (
        torch.int64
    )


@pytest.mark.parametrize(
    "batch",
    [
        lambda: {"image": images(), "path": ["a.png"] * 6, "size": [8, 8]},
        lambda: {"image": images(), "label": None},
        lambda: {"image": images()},
    ],
)
def test_what_is_no_labels_is_left(batch):
    BatchMix(3)(batch())


def test_positions_without_labels():
    mask = torch.zeros(6, 8, 8, dtype=torch.int64)
    assert isinstance(BatchMix(3, masks=1)((images(), mask))[1], MixedTarget)
    assert len(BatchMix(3, images=(0, 1))((images(), images()))) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("alphas", [{}, {"cutmix_alpha": 1.0, "mixup_alpha": 0.0}])
def test_float_labels_are_mixed_as_mix_labels_does(dtype, alphas):
    labels = torch.randn(6, 5).to(dtype).requires_grad_()
    plan = BatchMix(seed=2, per="sample", **alphas).draw(6, (8, 8))
    mixed = BatchMix(seed=2, per="sample", **alphas)(images(), labels)[1]
    assert torch.equal(mixed, mix_labels(labels, plan))
    w = plan.weight.double()
    values = labels.detach().double()
    exact = values * w[:, :1] + values[plan.partner.long()] * w[:, 1:]
    assert torch.allclose(mixed.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-7)
    mixed.sum().backward()
    assert labels.grad is not None


def test_a_partner_of_weight_0_brings_in_no_nan():
    labels = torch.rand(6, 5)
    labels[5] = torch.nan
    mixed = BatchMix(prob=0.0)(images(), labels)[1]
    assert torch.equal(mixed[:5], labels[:5])


def test_floats_that_cannot_be_blended_are_refused():
    with pytest.raises(TypeError, match=r"labels: .*float8_e4m3fn \[6, 5\]; use .float\(\)"):
        BatchMix()(images(), torch.zeros(6, 5).to(torch.float8_e4m3fn))


@pytest.mark.parametrize("training", [True, False])
def test_complex_masks_are_refused(training):
    mask = torch.zeros(6, 8, 8, dtype=torch.complex64)
    with pytest.raises(TypeError, match="masks.*complex64"):
        BatchMix(3).train(training)({"image": images(), "mask": mask})


def test_named_heads_keep_their_structure_and_numbers():
    labels, plan = Heads(classes(), classes()), MixPlan.uniform(6, "flip", 0.3)
    for counts in (Heads(3, 4), {"colour": 4, "kind": 3}, (3, 4), [3, 4]):
        made = MixedTarget.from_labels(labels, plan, counts)
        assert type(made) is Heads and (made.kind.num_classes, made.colour.num_classes) == (3, 4)
        made = BatchMix(counts)(images(), labels)[1]
        assert type(made) is Heads and (made.kind.num_classes, made.colour.num_classes) == (3, 4)
    with pytest.raises(ValueError, match="num_classes: expected the heads of labels"):
        MixedTarget.from_labels(labels, plan, {"kind": 3})


def test_heads_of_heads_have_their_own_numbers():
    made = BatchMix((3, (4, 5)))(images(), (classes(), (classes(), classes())))[1]
    assert (made[0].num_classes, made[1][0].num_classes, made[1][1].num_classes) == (3, 4, 5)
    made = BatchMix({"a": 3, "b": [4, 5]})(images(), {"a": classes(), "b": [classes()] * 2})[1]
    assert (made["a"].num_classes, made["b"][1].num_classes) == (3, 5)


def test_a_table_beside_images_whose_boxes_have_two_dims():
    batch = {"image": images(), "table": torch.rand(6, 7), "label": classes()}
    table = batch["table"].clone()
    named = {"images": ("image", "table"), "spatial_dims": 2, "inplace": False}
    out = BatchMix(3, **named)(batch)
    weight = out["label"].weight
    expected = table * weight[:, :1] + table.flip(0) * weight[:, 1:]
    assert torch.allclose(out["table"], expected)
    with pytest.raises(ValueError, match="table.*spatial_dims"):
        BatchMix(3, cutmix_alpha=1.0, **named)(batch)


def many():
    yield [0.123456] * 5000
    yield tuple(range(6000))
    yield {f"key{i}": i for i in range(4000)}
    yield "s" * 9000
    yield torch.rand(3000)
    yield np.arange(3000)


def said(call, value):
    try:
        call(value)
    except (TypeError, ValueError, IndexError) as error:
        return str(error)
    return ""


def _plan(pairing):
    plan = MixPlan.uniform(4, "flip", 0.3)
    return MixPlan(None, plan.weight, plan.blend, plan.box, pairing)


@pytest.mark.parametrize(
    "call",
    [
        lambda v: BatchMix(3, pairing=v),
        lambda v: BatchMix(3, per=v),
        lambda v: BatchMix(3, cutmix_minmax=v),
        lambda v: BatchMix(3, schedule=v),
        lambda v: BatchMix(3, schedule=lambda epoch: v),
        lambda v: BatchMix(3, images=v)({"image": images(), "label": classes()}),
        lambda v: BatchMix(3, masks=v)((images(), classes())),
        lambda v: BatchMix(3).draw(6, v),
        lambda v: BatchMix(3)(v),
        lambda v: BatchMix(3)({"picture": images(), **(v if isinstance(v, dict) else {})}),
        lambda v: MixedTarget.from_labels({"a": classes()}, MixPlan.identity(6), v),
        lambda v: MixedTarget.from_labels(v, MixPlan.identity(6), {"a": 3}),
        lambda v: MixPlan.per_sample([0.5] * 4, box=[[0, 0, 1, 1]] * 4, cut=v),
        _plan,
    ],
)
def test_refusals_print_no_data(call):
    for value in many():
        text = said(call, value)
        assert len(text) < 400
        assert "tensor([" not in text


def test_lists_of_a_plan_follow_its_weights_under_another_default_device():
    lam = torch.full((2,), 0.5)
    with torch.device("meta"):
        plan = MixPlan.per_sample(lam, [1, 0], [[0, 0, 1, 1]] * 2, [True, False])
    assert plan == MixPlan.per_sample(lam, [1, 0], [[0, 0, 1, 1]] * 2, [True, False])
