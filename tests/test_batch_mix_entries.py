"""Entries of careless batches: bytes, views of each other, boxes of another image, slips."""

from __future__ import annotations

import collections
import warnings

import pytest
import torch
from kinds_by_hand import by_weights, mixed, scaled_box

import fused_mixup as fm
from fused_mixup import BatchMix, MixedTarget

pytestmark = pytest.mark.usefixtures("one_thread")
MIXUP, CUTMIX = {"mixup_alpha": 1.0}, {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}
K = 5


def levels(*shape, scale=1.0):
    """Sample i is all i·scale."""
    return (
        (torch.arange(shape[0]).float() * scale)
        .view(-1, *[1] * (len(shape) - 1))
        .expand(shape)
        .clone()
    )


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 2, 3, 8, 8), (4, 30)])
@pytest.mark.parametrize("kind", [list, torch.Tensor])
def test_bytes_are_blended_as_floats_are(inplace, shape, kind):
    x = levels(*shape, scale=60).to(torch.uint8)
    given = list(x.clone()) if kind is list else x.clone()
    name = {4: "image", 5: "video", 2: "audio"}[len(shape)]
    out, plans = BatchMix(K, **MIXUP, inplace=inplace).with_plans(
        {name: given, "label": torch.arange(4)}
    )
    got = torch.stack(out[name]) if kind is list else out[name]
    expected = mixed(x, plans[name]).round()
    assert got.dtype == torch.uint8 and torch.equal(got.double(), expected)
    assert not torch.equal(got, x)


def test_bytes_of_sound_beside_a_cut_image():
    sound = levels(4, 40, scale=60).to(torch.uint8)
    batch = {"image": torch.rand(4, 3, 8, 8), "audio": sound.clone(), "label": torch.arange(4)}
    out, plans = BatchMix(K, **CUTMIX, seed=3).with_plans(batch)
    assert torch.equal(out["audio"].double(), by_weights(sound, plans["image"]).round())


def test_soft_maps_of_bytes_are_no_class_maps():
    soft = levels(4, 8, 8, scale=60).to(torch.uint8)
    batch = {"image": torch.rand(4, 3, 8, 8), "soft_map": soft.clone(), "label": torch.arange(4)}
    out, plans = BatchMix(K, **MIXUP).with_plans(batch)
    assert torch.equal(out["soft_map"].double(), mixed(soft, plans["image"]).round())


def test_boxes_lie_in_the_image_of_their_own_structure():
    boxes = [torch.tensor([[0.0, 0.0, 64.0, 64.0]])] * 4
    labels = [torch.tensor([i]) for i in range(4)]
    batch = {
        "left": {"image": torch.rand(4, 3, 32, 32)},
        "right": {"image": torch.rand(4, 3, 64, 64), "boxes": boxes, "labels": labels},
    }
    out, plans = BatchMix(**CUTMIX, seed=1).with_plans(batch)
    own = plans["right.image"]
    assert own.box[0].tolist() == scaled_box(
        plans["left.image"].box[0].tolist(), (32, 32), (64, 64)
    )
    expected = fm.mix_boxes(boxes, labels, own, (64, 64))
    assert all(map(torch.equal, out["right"]["boxes"], expected[0]))
    assert all(map(torch.equal, out["right"]["labels"], expected[1]))


def test_padded_masks_follow_their_boxes():
    def batch():
        boxes = torch.tensor([2.0, 2, 30, 30]).expand(4, 5, 4).clone()
        return {
            "image": torch.rand(4, 3, 32, 32),
            "boxes": boxes,
            "labels": torch.zeros(4, 5, dtype=torch.int64),
            "masks": torch.ones(4, 5, 32, 32, dtype=torch.bool),
        }

    out, plans = BatchMix(**CUTMIX, seed=1).with_plans(batch())
    y0, x0, y1, x1 = plans["image"].box[0].tolist()
    assert out["masks"].shape == (4, 10, 32, 32)
    for mask in out["masks"][0, :5]:
        assert mask.sum() == 32 * 32 - (y1 - y0) * (x1 - x0)


def test_views_of_each_other_are_refused_or_kept_apart():
    x = torch.rand(4, 4, 8, 8)
    before = x.clone()
    for one, other in ((x, x[:, :1]), (x[:, :2], x[:, 1:3]), (x[:, :, ::2], x[:, :, 1:5])):
        mix = BatchMix(**MIXUP)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of views of a larger tensor
            with pytest.raises(ValueError, match=r"images\['depth'\]: expected memory of its own"):
                mix({"image": one, "depth": other})
        assert torch.equal(x, before) and torch.equal(mix.state, fm.plan_state(0))
    plan = BatchMix(**MIXUP).draw(4, (8, 8))
    with pytest.warns(UserWarning, match="a view of a larger tensor"):
        BatchMix(**MIXUP)({"image": x[:, :3], "depth": x[:, 3:]})  # they share no element
    assert torch.equal(x, fm.mix(before, plan))


@pytest.mark.parametrize("first", [torch.rand(4, 3, 8, 8), list(torch.rand(4, 3, 8, 8))])
def test_lists_beside_tensors(first):
    other = [torch.rand(1, 8, 8) for _ in range(4)]
    maps = [torch.zeros(8, 8, dtype=torch.int64) for _ in range(4)]
    out = BatchMix(K, **MIXUP)({"image": first, "depth": other, "mask": maps})
    assert len(out["depth"]) == 4 and isinstance(out["mask"], MixedTarget)


def test_a_list_of_samples_comes_back_as_one():
    samples = [
        {"image": levels(3, 4, 4) + 10 * i, "id": i, "label": i, "soft": torch.full((2,), 1.0 * i)}
        for i in range(4)
    ]
    mix = BatchMix(K, **MIXUP, kinds={"soft": "labels"})
    out, plans = mix.with_plans(samples)
    whole = torch.stack([s["image"] for s in samples])
    expected = mixed(whole, plans["image"])
    assert type(out) is list and [s["id"] for s in out] == [0, 1, 2, 3]
    torch.testing.assert_close(
        torch.stack([s["image"] for s in out]).double(), expected, rtol=1e-6, atol=1e-5
    )
    assert len(out[1]["label"]) == 1 and out[1]["soft"].shape == (2,)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_tuple_of_dicts_of_heads_whatever_the_batch_size(size):
    y = {"a": torch.arange(size) % K}, {"b": torch.arange(size) % K}
    _, target = BatchMix([{"a": K}, {"b": K}], **MIXUP)(torch.rand(size, 3, 8, 8), y)
    assert type(target) is tuple and isinstance(target[1]["b"], MixedTarget)


def test_slips_of_the_pen_are_named():
    batch = {"image": torch.rand(4, 3, 8, 8), "label": torch.arange(4), "t": {"depth": None}}
    for options, says in (
        ({"kinds": {"imgae": "image"}}, "kinds: expected 'imgae' in the batch"),
        ({"kinds": {"t.depht": "keep"}}, "kinds: expected 't.depht' in the batch"),
        ({"follows": {"lable": "image"}}, r"follows: expected one of the labels \['label'\]"),
        ({"follows": {"label": "sound"}}, "follows: expected one of the mixed entries"),
    ):
        mix = BatchMix(K, **MIXUP, **options)
        with pytest.raises(ValueError, match=says):
            mix(batch)
        assert torch.equal(mix.state, fm.plan_state(0))


def test_labels_in_a_nested_entry_follow_by_their_dotted_name():
    batch = {
        "image": torch.rand(4, 3, 32, 32),
        "t": {"image": torch.rand(4, 3, 5, 5), "label": torch.arange(4)},
    }
    mix = BatchMix(10, **CUTMIX, seed=2, follows={"t.label": "t.image"})
    out, plans = mix.with_plans(batch)
    assert torch.equal(out["t"]["label"].weight, plans["t.image"].weight)
    seg = [{"seg": torch.zeros(32, 32, dtype=torch.int64)} for _ in range(4)]
    _, targets = BatchMix(K, **CUTMIX, kinds={"1.seg": "class_map"})(batch["image"], seg)
    assert targets[0]["seg"].shape == (32, 32)


BOX = torch.tensor([[0.0, 0, 8, 8]])


@pytest.mark.parametrize(
    ("options", "batch", "error", "says"),
    [
        (CUTMIX, {"image": torch.rand(4, 3, 8, 8), "bbox": [[[0, 0, 4, 4]]] * 4}, TypeError,
         r"boxes\['bbox'\]: expected tensors, one for each sample, got lists"),
        (CUTMIX, {"image": torch.rand(4, 8, 8), "boxes": [BOX] * 4, "labels": [BOX[0, :1]] * 4},
         ValueError, r"boxes\['boxes'\]: expected pictures.*boxes of 1 dims"),
        ({**CUTMIX, "spatial_dims": 1},
         {"image": torch.rand(4, 3, 8, 8), "boxes": [BOX] * 4, "labels": [BOX[0, :1]] * 4},
         ValueError, r"boxes\['boxes'\]: expected pictures"),
        ({**MIXUP, **CUTMIX, "mixup_alpha": 1.0, "cut": "time"},
         {"video": torch.rand(4, 6, 3, 8, 8), "mask": torch.zeros(4, 6, 8, 8).long()},
         ValueError, r"masks\['mask'\]: expected no map, as boxes are cut in time"),
        (CUTMIX, collections.namedtuple("S", "image boxes labels")(
            torch.rand(4, 3, 8, 8), torch.zeros(4, 2, 4), torch.zeros(4, 2).long()),
         ValueError, "expected a dict, as they come back with an entry 'num_boxes'"),
        ({**MIXUP, "kinds": {1: "keypoints"}}, (torch.rand(4, 3, 8, 8), [torch.rand(2, 2)] * 4),
         ValueError, "expected a dict, as they come back with an entry '1_visible'"),
        (CUTMIX, (torch.rand(4, 3, 8, 8), [{"masks": torch.ones(2, 8, 8),
                                             "labels": torch.ones(2), "area": torch.ones(3)}] * 4),
         ValueError, r"field\[1\]\[…\]\['area'\]\[0\]: expected 2 rows"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_written(options, batch, error, says):
    mix = BatchMix(K, **options)
    first = batch["video" if "video" in batch else "image"] if isinstance(batch, dict) else batch[0]
    before = first.clone()
    with pytest.raises(error, match=says):
        mix(batch)
    assert torch.equal(first, before) and torch.equal(mix.state, fm.plan_state(0))


@pytest.mark.parametrize("padded", [True, False])
def test_eval_and_training_give_the_same_keys(padded):
    boxes, points = BOX.expand(4, 1, 4).clone(), torch.rand(4, 1, 2, 2)
    labels = torch.zeros(4, 1, dtype=torch.int64)
    rows = {"boxes": boxes, "labels": labels, "keypoints": points}
    rows = rows if padded else {key: list(value.unbind()) for key, value in rows.items()}
    batch = {"image": torch.rand(4, 3, 8, 8), **rows}
    mix = BatchMix(**MIXUP, inplace=False)
    trained, kept = mix(batch), mix.eval()(batch)
    assert trained.keys() == kept.keys() and ("num_boxes" in kept) == padded
    assert bool(kept["keypoints_visible"][0].all()) and kept["keypoints_visible"][0].dtype == (
        torch.bool
    )


@pytest.mark.parametrize("batch", [
    lambda b: {"image": torch.rand(b, 3, 32, 32), "mask": torch.zeros(b, 16, 16).long()},
    lambda b: {"video": torch.rand(b, 4, 3, 6, 6), "audio": torch.rand(b, 2, 40)},
])  # fmt: skip
def test_maps_and_boxes_in_time_compile(batch):
    torch._dynamo.reset()
    options = {**CUTMIX, "mixup_alpha": 1.0, "seed": 4}
    options |= {"cut": "time"} if "video" in batch(2) else {}
    eager, mix = BatchMix(K, **options), BatchMix(K, **options)
    step = torch.compile(mix, backend="aot_eager", fullgraph=True)
    for b in (4, 6, 4):
        torch.manual_seed(b)
        given = batch(b)
        want, got = (f({k: v.clone() for k, v in given.items()}) for f in (eager, step))
        for key, value in want.items():
            if isinstance(value, MixedTarget):
                assert torch.equal(value.dense(), got[key].dense())
            else:
                assert torch.equal(value, got[key])
