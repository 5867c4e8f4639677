"""BatchMix: boxes, masks and points that are refused before anything is written."""

from __future__ import annotations

import pytest
import torch
from detections import MODES, detections, mixer

import fused_mixup as fm
from fused_mixup import BatchMix

pytestmark = pytest.mark.usefixtures("one_thread")
K = 5


def changed(key, i, value):
    def change(batch):
        batch[key] = [value if k == i else v for k, v in enumerate(batch[key])]

    return change


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda b: b.pop("labels") and b.pop("area") and b.pop("names"), ValueError,
         r"boxes\['boxes'\]: expected labels beside them"),
        (changed("labels", 0, torch.zeros(2, dtype=torch.int64)), ValueError,
         r"labels\['labels'\]\[0\]: expected 3 rows, as boxes\['boxes'\]\[0\] has, got 2"),
        (changed("area", 3, torch.zeros(1)), ValueError, r"field\['area'\]\[3\]: expected 4 rows"),
        (changed("boxes", 2, torch.full((2, 4), torch.nan)), ValueError,
         r"boxes\['boxes'\]\[2\]: expected finite boxes"),
        (changed("boxes", 2, torch.tensor([[5.0, 5, 1, 9], [0, 0, 1, 1]])), ValueError,
         r"boxes\['boxes'\]\[2\]: expected finite boxes with x1 <= x2.*reversed"),
        (changed("boxes", 0, torch.zeros(3, 5)), ValueError, r"boxes\['boxes'\]"),
        (lambda b: b.update(boxes=b["boxes"][:3]), ValueError, "boxes"),
        (lambda b: b.update(boxes=torch.zeros(4, 3, 4)), TypeError,
         "expected a tensor.* got a list"),
        (lambda b: b.update(keypoints=[torch.full((len(x), 1, 2), 99.0) for x in b["boxes"]]),
         ValueError, r"keypoints\['keypoints'\]\[0\]: expected points with 0 <= x < 32"),
        (lambda b: b.update(keypoints=[torch.ones(7, 2)] * 4), ValueError,
         "expected 3 rows, as boxes"),
        (lambda b: b.update(masks=[torch.ones(len(x), 9, 9) for x in b["boxes"]]), ValueError,
         r"instance_masks\['masks'\]\[0\]: expected masks of the images' size \[24, 32\]"),
        (lambda b: b.update(image=[*b["image"][:3], torch.rand(3, 9, 9)]), ValueError,
         r"images\['image'\]\[3\]: expected \[3, 24, 32\].*resize"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["MixUp", "both"])
def test_bad_boxes_before_anything_is_written(change, error, says, mode):
    batch = {**detections(), "names": [["a"] * n for n in (3, 0, 2, 4)]}
    change(batch)
    before = batch["image"][0].clone()
    mix = mixer(MODES[mode])
    with pytest.raises(error, match=says) as raised:
        mix(batch)
    assert torch.equal(mix.state, fm.plan_state(4)) and torch.equal(batch["image"][0], before)
    assert "tensor(" not in str(raised.value) and len(str(raised.value)) < 400


def test_options_of_boxes_are_checked_at_once():
    for options, error, says in (
        ({"min_visible": 1.5}, ValueError, "min_visible: expected a number in"),
        ({"box_format": "xyxyr"}, ValueError, "format: expected one of"),
        ({"follows": ["label"]}, TypeError, "follows: expected a dict"),
    ):
        with pytest.raises(error, match=says):
            BatchMix(K, **options)


def test_boxes_beside_sound_are_refused():
    batch = {"audio": torch.rand(4, 100), **{k: detections()[k] for k in ("boxes", "labels")}}
    with pytest.raises(ValueError, match=r"boxes\['boxes'\]: expected pictures"):
        mixer(MODES["CutMix"])(batch)


def test_a_tuple_has_no_place_for_weights():
    batch = detections()
    given = batch["image"], batch["boxes"], batch["labels"]
    kinds = {1: "boxes", 2: "labels"}
    with pytest.raises(ValueError, match=r"boxes\[1\]: expected a dict"):
        mixer(MODES["both"], kinds=kinds)(given)
    _, boxes, labels = mixer(MODES["CutMix"], kinds=kinds)(given)
    assert [len(b) for b in boxes] == [len(y) for y in labels]


def test_boxes_elsewhere_than_the_plans_are_refused():
    batch = detections()
    with pytest.raises(ValueError, match=r"boxes\['boxes'\]: expected it on cpu.*got meta"):
        mixer(MODES["both"])({**batch, "boxes": [b.to("meta") for b in batch["boxes"]]})
    there = mixer(MODES["both"]).to("meta")
    given = {**batch, "image": batch["image"].to("meta")}
    with pytest.raises(ValueError, match=r"boxes\['boxes'\]: .*on meta.*pad_sequence.*'num_boxes'"):
        there(given)
