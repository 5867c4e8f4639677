"""BatchMix: labels and masks of every kind, while training and in eval mode."""

from __future__ import annotations

import collections

import pytest
import torch
import torch.nn.functional as F
from batch_mix_cases import BOTH, K, batch, tensors

import fused_mixup as fm
from fused_mixup import BatchMix, MixedTarget

pytestmark = pytest.mark.usefixtures("one_thread")

MODES = {
    "MixUp": {"mixup_alpha": 1.0},
    "CutMix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "both": {**BOTH, "per": "sample", "pairing": "shuffle"},
}
modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def plan_of(num_classes, mode, **options):
    return BatchMix(num_classes, **mode, **options).draw(6, (8, 8))


def blended(y, plan):
    w = plan.weight.to(y.dtype).view(6, 2, *[1] * (y.ndim - 1))
    return y * w[:, 0] + y[plan.partner.long()] * w[:, 1]


def indices(n):
    return torch.arange(6) % n


# ------------------------------------------------------------------ floats


@modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 4, 2)])
def test_floats_are_blended_by_weight(mode, shape, dtype):
    y = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    x, before = batch()[0], y.clone()
    mixed, target = BatchMix(**mode)(x, y)
    close = {"rtol": 0.02, "atol": 0.01} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(target, blended(y, plan_of(None, mode)), **close)
    assert target.dtype == dtype and torch.equal(y, before)
    assert mixed is x and not torch.equal(x, batch()[0])
    assert BatchMix(K, **mode).eval()(x, y)[1] is y


def test_gradients_reach_float_labels():
    y = torch.rand(6, 3, requires_grad=True)
    BatchMix()(batch()[0], y)[1].sum().backward()
    assert y.grad is not None and torch.allclose(y.grad, torch.ones(6, 3))


# ------------------------------------------------------------------ none


@modes
def test_images_alone(mode):
    x = batch()[0]
    expected = fm.mix(x, plan_of(None, mode))
    for given in (x, (x,), [x], {"image": x}, {"image": x, "id": ["a"] * 6}, (x, None)):
        out = BatchMix(K, **mode, inplace=False)(given)
        assert type(out) is type(given)
        if isinstance(given, torch.Tensor):
            assert torch.equal(out, expected)
        else:
            key = "image" if isinstance(given, dict) else 0
            assert len(out) == len(given) and torch.equal(out[key], expected)
        assert torch.equal(x, batch()[0])
    made = {"image": x, "index": torch.arange(6)}
    out = BatchMix(**mode, inplace=False, labels=())(made)
    assert torch.equal(out["image"], expected) and out["index"] is made["index"]
    eager = BatchMix(**mode).eval()
    assert eager(x) is x and torch.equal(x, batch()[0])


# ------------------------------------------------------------------ ignored


@pytest.mark.parametrize("ignored", [-100, -1, 255])
@pytest.mark.parametrize("pairing", ["flip", "shuffle", "cross_class"])
@pytest.mark.parametrize("dense", [False, True])
def test_ignored_labels(ignored, pairing, dense):
    x, labels = batch()
    labels[[1, 4, 5]] = ignored
    options = {"pairing": pairing, "per": "sample", "seed": 3}
    mix = BatchMix(K, **options, ignore_index=ignored, dense_targets=dense)
    target = mix(x, labels)[1]
    plan = BatchMix(K, **options).draw(6, (), labels)
    same = MixedTarget.from_labels(labels, plan, K, ignore_index=ignored)
    if dense:
        assert torch.equal(target, same.dense())
    else:
        assert target.ignore_index == ignored
        assert all(map(torch.equal, tensors(target), tensors(same)))
        assert fm.soft_target_cross_entropy(torch.zeros(6, K), target).isfinite()
    unmixed = mix.eval()(x, labels)[1]
    hot = torch.zeros(6, K)
    hot[labels != ignored, labels[labels != ignored]] = 1.0
    assert torch.equal(unmixed if dense else unmixed.dense(), hot)
    with pytest.raises(IndexError, match="expected class indices"):
        BatchMix(K)(x, labels)


# ------------------------------------------------------------------ several heads

Heads = collections.namedtuple("Heads", ["kind", "colour"])


@modes
def test_heads_in_one_entry(mode):
    x, kind, colour = batch()[0], indices(3), indices(5)
    size = torch.rand(6, 2)
    plan = plan_of(None, mode)
    for labels, counts in (
        ({"kind": kind, "colour": colour}, {"kind": 3, "colour": 5}),
        ([kind, colour], [3, 5]),
        ((kind, colour), (3, 5)),
        (Heads(kind, colour), Heads(3, 5)),
        ({"kind": kind, "colour": colour, "size": size}, {"kind": 3, "colour": 5, "size": None}),
    ):
        mix = BatchMix(counts, **mode)
        out = mix(x.clone(), labels)[1]
        assert type(out) is type(labels)
        made = out if isinstance(out, dict) else dict(zip(("kind", "colour"), out, strict=True))
        for name, y, n in (("kind", kind, 3), ("colour", colour, 5)):
            same = MixedTarget.from_labels(y, plan, n)
            assert all(map(torch.equal, tensors(made[name]), tensors(same)))
            assert made[name].num_classes == n
        if "size" in made:
            torch.testing.assert_close(made["size"], blended(size, plan))
        unmixed = mix.eval()(x, labels)[1]
        first = unmixed["kind"] if isinstance(unmixed, dict) else unmixed[0]
        assert type(unmixed) is type(labels) and torch.equal(first.labels, kind)


@pytest.mark.parametrize("counts", [{"kind": 3, "colour": 5}, [3, 5], 5])
def test_heads_in_entries_of_their_own(counts):
    x, made = batch()[0], {"kind": indices(3), "colour": indices(5)}
    out = BatchMix(counts, labels=("kind", "colour"))({"image": x, **made, "id": 1})
    assert list(out) == ["image", "kind", "colour", "id"]
    assert out["kind"].num_classes == (5 if counts == 5 else 3)
    assert all(torch.equal(out[key].labels, made[key]) for key in made)
    loss = fm.SoftTargetCrossEntropy()
    assert loss({"a": torch.zeros(6, 5)}, {"a": out["colour"]}).isfinite()


def test_the_head_that_pairs_are_chosen_by():
    options = {"per": "sample", "pairing": "cross_class"}
    x, kind, size = batch()[0], indices(3), torch.rand(6)
    out = BatchMix({"kind": 3, "size": None}, **options)(x, {"kind": kind, "size": size})[1]
    assert bool((out["kind"].labels != out["kind"].partner_labels).all())
    for labels in ({"kind": kind, "other": kind}, {"size": size}):
        mix = BatchMix(3, **options)
        with pytest.raises(ValueError, match="one head of class indices for 'cross_class'"):
            mix(x, labels)
        assert torch.equal(mix.state, fm.plan_state(0))


# ------------------------------------------------------------------ class maps


def one_hot(maps):
    return F.one_hot(maps.long(), K).movedim(-1, 1).float().contiguous()


@modes
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32, torch.bool])
def test_class_maps_are_mixed_as_the_images_are(mode, dtype):
    x = batch()[0]
    maps = torch.randint(0, K, (6, 8, 8), generator=torch.Generator().manual_seed(2)).to(dtype)
    expected = fm.mix(one_hot(maps), plan_of(K, mode))
    for made in ({"image": x.clone(), "mask": maps.clone()}, (x.clone(), None, maps.clone())):
        key = "mask" if isinstance(made, dict) else 2
        mix = BatchMix(K, **mode, masks=key, label_smoothing=0.0)
        out = mix(made)[key]
        if mode["mixup_alpha"]:
            assert out.num_classes == K
            torch.testing.assert_close(out.dense(), expected)
            loss = fm.soft_target_cross_entropy(torch.zeros(6, K, 8, 8), out)
            torch.testing.assert_close(loss, torch.tensor(float(K)).log())
            assert torch.equal(mix.eval()(made)[key].dense(), one_hot(made[key]))
        else:
            assert out is made[key] and out.dtype == dtype
            assert torch.equal(one_hot(out), expected)
            assert mix.eval()(made)[key] is made[key]


@modes
def test_ignored_pixels_beside_labels_of_another_number_of_classes(mode):
    x, labels = batch()
    maps = torch.randint(0, 3, (6, 8, 8))
    maps[:, 2] = 255
    counts = {"label": K, "mask": 3}
    given = {"image": x, "label": labels, "mask": maps.clone()}
    out = BatchMix(counts, **mode, ignore_index=255)(given)
    assert out["label"].num_classes == K
    if mode["mixup_alpha"]:
        assert (out["mask"].num_classes, out["mask"].ignore_index) == (3, 255)
        assert bool((out["mask"].dense()[:, :, 2].sum(1) == 0).any())
        dense = BatchMix(counts, **mode, ignore_index=255, dense_targets=True)
        made = dense({"image": batch()[0], "label": labels, "mask": maps})["mask"]
        assert torch.equal(made, out["mask"].dense())
    else:
        assert bool((out["mask"][:, 2] == 255).all())


@modes
def test_masks_of_floats_are_mixed_as_images(mode):
    x, soft = batch()[0], torch.rand(6, 2, 8, 8)
    expected = fm.mix(soft, plan_of(K, mode))
    assert torch.equal(BatchMix(**mode)({"image": x, "mask": soft.clone()})["mask"], expected)
    before = soft.clone()
    out = BatchMix(**mode, inplace=False)({"image": x, "mask": soft})["mask"]
    assert torch.equal(out, expected) and torch.equal(soft, before)


def test_masks_are_copied_where_images_are():
    mode, maps = MODES["CutMix"], torch.randint(0, K, (6, 8, 8))
    before = maps.clone()
    out = BatchMix(**mode, inplace=False)({"image": batch()[0], "mask": maps})["mask"]
    assert torch.equal(maps, before) and not torch.equal(out, maps)


# ------------------------------------------------------------------ inputs of other sizes


def test_inputs_of_other_sizes_without_boxes():
    labels, names = indices(5), ("a", "b")
    for a, b in (
        ((6, 3, 8, 8), (6, 7)),
        ((6, 3, 16, 16), (6, 3, 8, 8)),
        ((6, 3, 2, 8, 8), (6, 1, 100)),
        ((6,), (6, 2)),
    ):
        a, b = torch.rand(a), torch.rand(b)
        mix = BatchMix(5, per="sample", images=names, inplace=False, seed=4)
        plan = BatchMix(5, per="sample", seed=4).draw(6)
        out = mix({"a": a, "b": b, "label": labels})
        assert torch.equal(out["a"], fm.mix(a, plan)) and torch.equal(out["b"], fm.mix(b, plan))


# ------------------------------------------------------------------ default dtypes and devices


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("training", [True, False])
def test_defaults_of_pytorch_change_nothing(dtype, device, training):
    maps, mode = torch.randint(0, K, (6, 8, 8)), {**BOTH, "per": "sample"}
    given = {"image": batch()[0], "label": batch()[1], "mask": maps}

    def out(**options):
        mix = BatchMix(K, **mode, **options).train(training)
        made = mix({key: value.clone() for key, value in given.items()})
        return [t if isinstance(t, torch.Tensor) else t.dense() for t in made.values()]

    expected = out(), out(dense_targets=True)
    try:
        torch.set_default_dtype(dtype)
        mixers = [BatchMix(K, **mode).train(training), BatchMix(K, **mode, dense_targets=True)]
        torch.set_default_device(device)
        got = []
        for mix in mixers:
            made = mix.train(training)({key: value.clone() for key, value in given.items()})
            got.append([t if isinstance(t, torch.Tensor) else t.dense() for t in made.values()])
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for a, b in zip(expected, got, strict=True):
        for s, t in zip(a, b, strict=True):
            assert s.dtype == t.dtype and s.device == t.device and torch.equal(s, t)


# ------------------------------------------------------------------ compiled


@modes
def test_every_kind_compiles_as_one_graph(mode):
    torch._dynamo.reset()
    x, maps = batch()[0], torch.randint(0, K, (6, 8, 8))
    given = {
        "heads": {"kind": indices(3), "size": torch.rand(6, 2)},
        "alone": None,
        "dense": torch.rand(6, 4),
    }
    for name, labels in given.items():
        made = {"image": x, "label": labels, "mask": maps}
        eager, mix = (BatchMix(K, **mode, inplace=False, seed=2) for _ in range(2))
        step = torch.compile(mix, backend="aot_eager", fullgraph=True)
        for _ in range(2):
            a, b = eager(made), step(made)
            leaves_a, leaves_b = map(flat, (a, b))
            assert len(leaves_a) == len(leaves_b) > 1, name
            assert all(map(torch.equal, leaves_a, leaves_b)), name


def flat(value):
    if isinstance(value, dict):
        return [t for v in value.values() for t in flat(v)]
    if isinstance(value, MixedTarget):
        return list(tensors(value))
    return [] if value is None else [value]
