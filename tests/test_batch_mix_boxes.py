"""BatchMix of detection batches: boxes and all that belongs to them, in every structure."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
from detections import MODES, H, K, W, copied, detections, generator, mixer, same
from kinds_by_hand import inside

import fused_mixup as fm
from fused_mixup import BatchMix, MixedTarget

pytestmark = pytest.mark.usefixtures("one_thread")
modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


# ------------------------------------------------------------------ structures


@modes
def test_lists_in_a_dict_are_those_of_mix_boxes(mode):
    for seed in range(20):
        batch = detections((3, 0, 2, 4, 1, 0), seed)
        mix = BatchMix(seed=seed, pairing="shuffle", **mode)
        out, plans = mix.with_plans(copied(batch))
        plan = plans["image"]
        boxes, labels, weights = fm.mix_boxes(batch["boxes"], batch["labels"], plan, (H, W))
        assert torch.equal(out["image"], fm.mix(batch["image"], plan))
        assert same(out["boxes"], boxes) and same(out["labels"], labels)
        assert ("box_weights" in out) == bool(mode["mixup_alpha"])
        if mode["mixup_alpha"]:
            assert same(out["box_weights"], weights)
        _, area, _ = fm.mix_boxes(batch["boxes"], batch["area"], plan, (H, W))
        assert same(out["area"], area) and out["path"] is batch["path"]
        rows = [
            torch.tensor([[i, k] for k in range(len(b))]).view(-1, 2)
            for i, b in enumerate(batch["boxes"])
        ]
        _, origin, _ = fm.mix_boxes(batch["boxes"], rows, plan, (H, W))
        assert out["names"] == [[f"{i}.{k}" for i, k in o.tolist()] for o in origin]


@modes
@pytest.mark.parametrize("container", [list, tuple])
def test_a_dict_for_each_sample(mode, container):
    batch = detections()
    targets = container(
        {"boxes": b, "labels": y, "image_id": i} if len(b) else {"image_id": i}
        for i, (b, y) in enumerate(zip(batch["boxes"], batch["labels"], strict=True))
    )
    expected = mixer(mode)(copied(batch))
    images, out = mixer(mode)(list(batch["image"].unbind()), targets)
    assert type(images) is list and torch.equal(torch.stack(images), expected["image"])
    assert type(out) is container and [t["image_id"] for t in out] == [0, 1, 2, 3]
    for i, target in enumerate(out):
        if "boxes" not in target:  # it had none, and got none
            assert len(expected["boxes"][i]) == 0 and list(target) == ["image_id"]
            continue
        assert torch.equal(target["boxes"], expected["boxes"][i])
        assert torch.equal(target["labels"], expected["labels"][i])
        if mode["mixup_alpha"]:
            assert torch.equal(target["box_weights"], expected["box_weights"][i])
    stacked, _ = mixer(mode)(batch["image"].clone(), targets)
    assert torch.equal(stacked, expected["image"])


@modes
def test_padded_boxes(mode):
    counts = (3, 0, 2, 4)
    batch = detections(counts)
    pad = torch.nn.utils.rnn.pad_sequence
    padded = {
        "image": batch["image"].clone(),
        "boxes": pad(batch["boxes"], batch_first=True),
        "labels": pad(batch["labels"], batch_first=True),
        "num_boxes": torch.tensor(counts),
        "label": torch.arange(4),
    }
    expected = mixer(mode)(copied(batch))
    out = mixer(mode, num_classes=K)(padded)
    assert out["boxes"].shape == (4, 8, 4) and isinstance(out["label"], MixedTarget)
    for i, n in enumerate(out["num_boxes"].tolist()):
        assert torch.equal(out["boxes"][i, :n], expected["boxes"][i])
        assert torch.equal(out["labels"][i, :n], expected["labels"][i])
        if mode["mixup_alpha"]:
            assert torch.equal(out["box_weights"][i, :n], expected["box_weights"][i])


@modes
def test_weights_that_come_are_multiplied(mode):
    batch = detections()
    given = [torch.full((len(b),), 0.5) for b in batch["boxes"]]
    expected = mixer(mode).with_plans(copied(batch))
    plan = expected[1]["image"]
    _, _, weights = fm.mix_boxes(batch["boxes"], batch["labels"], plan, (H, W))
    out = mixer(mode)({**copied(batch), "box_weights": given})
    assert same(out["box_weights"], [w * 0.5 for w in weights])


@pytest.mark.parametrize("blends", [True, False])
def test_eval_leaves_boxes_alone(blends):
    batch = detections()
    mix = mixer(MODES["both" if blends else "CutMix"]).eval()
    out = mix(batch)
    assert out["boxes"] is batch["boxes"] and out["image"] is batch["image"]
    if blends:
        assert same(out["box_weights"], [torch.ones(len(b)) for b in batch["boxes"]])
    else:
        assert "box_weights" not in out


# ------------------------------------------------------------------ masks and points of boxes


@modes
def test_masks_and_points_follow_their_boxes(mode):
    pick = generator(3)
    for seed in range(10):
        batch = detections((3, 0, 2, 4), seed)
        whole = {
            "masks": [
                torch.randint(0, 2, (len(b), H, W), generator=pick).to(torch.uint8)
                for b in batch["boxes"]
            ],
            "keypoints": [
                torch.rand(len(b), 2, 3, generator=pick) * 20 + 1 for b in batch["boxes"]
            ],
        }
        rows = [
            torch.tensor([[i, k] for k in range(len(b))]).view(-1, 2)
            for i, b in enumerate(batch["boxes"])
        ]
        given = {**copied(batch), **whole, "rows": rows}
        mix = BatchMix(
            seed=seed,
            per="sample",
            pairing="shuffle",
            **{k: v for k, v in mode.items() if k != "per"},
            kinds={"names": "keep", "rows": "field"},
        )
        out, plans = mix.with_plans(given)
        plan = plans["image"]
        columns = plan.partner.tolist(), plan.blend.tolist(), plan.box.tolist()
        for i, (j, (_, b1), box) in enumerate(zip(*columns, strict=True)):
            where = inside((H, W), box) if box else torch.zeros(H, W, dtype=torch.bool)
            for m, (s, k) in enumerate(out["rows"][i].tolist()):
                own = s == i
                shown = (
                    torch.ones_like(where)
                    if i == j
                    else (~where if own else where | torch.tensor(b1 != 0))
                )
                assert torch.equal(out["masks"][i][m], whole["masks"][s][k] * shown)
                for q in range(2):
                    x, y, v = whole["keypoints"][s][k][q].tolist()
                    got = out["keypoints"][i][m][q]
                    assert got[:2].tolist() == whole["keypoints"][s][k][q][:2].tolist()
                    assert got[2] == (v if shown[int(y), int(x)] else 0)


@modes
def test_masks_without_boxes_stay_by_their_pixels(mode):
    pick = generator(5)
    counts = (2, 3, 0, 1)
    images = torch.rand(4, 3, H, W, generator=pick)
    masks = [(torch.rand(n, H, W, generator=pick) < 0.02).to(torch.uint8) for n in counts]
    labels = [torch.randint(0, K, (n,), generator=pick) for n in counts]
    targets = [{"masks": m, "labels": y} for m, y in zip(masks, labels, strict=True)]
    kept = 0
    for seed in range(15):
        mix = BatchMix(seed=seed, pairing="roll", min_visible=0.4, **{**mode, "per": "sample"})
        (_, out), plans = mix.with_plans(images.clone(), targets)
        plan = plans["0"]
        columns = plan.partner.tolist(), plan.blend.tolist(), plan.box.tolist()
        for i, (j, (b0, b1), box) in enumerate(zip(*columns, strict=True)):
            where = inside((H, W), box) if box else torch.zeros(H, W, dtype=torch.bool)
            expected = []
            for s, shown, w in ((i, ~where, b0), (j, where | torch.tensor(b1 != 0), b1 or 1.0)):
                for m, y in zip(masks[s], labels[s], strict=True):
                    seen = m * shown
                    if seen.sum() > 0 and seen.sum() / m.sum() >= 0.4:
                        expected.append((seen, y, w))
            kept += len(expected)
            assert len(out[i]["masks"]) == len(expected)
            for m, (seen, y, w) in enumerate(expected):
                assert torch.equal(out[i]["masks"][m], seen) and out[i]["labels"][m] == y
                if mode["mixup_alpha"]:
                    assert abs(out[i]["box_weights"][m] - w) < 1e-6
    assert kept > 50


def test_points_alone():
    points = [torch.tensor([[3.0, 4.0], [30.0, 20.0]]), torch.rand(1, 2)] * 2
    batch = {"image": torch.rand(4, 3, H, W), "keypoints": points, "label": torch.arange(4)}
    out, plans = mixer(MODES["both"], num_classes=K).with_plans(batch)
    expected, visible = fm.mix_keypoints(points, plans["image"], (H, W))
    assert same(out["keypoints"], expected) and same(out["keypoints_visible"], visible)


# ------------------------------------------------------------------ collated, compiled


def test_samples_with_boxes_are_collated():
    batch = detections((2, 2, 2, 2))  # as many in each: they stay lists all the same
    samples = [
        {
            "image": batch["image"][i],
            "boxes": batch["boxes"][i],
            "labels": batch["labels"][i],
            "label": i,
            "mask": torch.zeros(H, W, dtype=torch.int64),
        }
        for i in range(4)
    ]
    mix = mixer(MODES["both"], num_classes=K)
    out = mix.collate(samples)
    assert type(out["boxes"]) is list and isinstance(out["label"], MixedTarget)
    assert out["image"].shape == (4, 3, H, W) and out["mask"].shape == (4, H, W)
    pairs = [(s["image"], {"boxes": s["boxes"], "labels": s["labels"]}) for s in samples]
    images, targets = mixer(MODES["both"]).collate(pairs)
    assert images.shape == (4, 3, H, W) and [len(t) for t in targets] == [3] * 4


def test_padded_boxes_compile_once():
    torch._dynamo.reset()
    counts = (3, 0, 2, 4)
    batch = detections(counts)
    pad = torch.nn.utils.rnn.pad_sequence

    def padded():
        return {
            "image": batch["image"].clone(),
            "mask": torch.arange(4 * H * W, dtype=torch.int32).view(4, H, W) % K,
            "boxes": pad(batch["boxes"], batch_first=True),
            "labels": pad(batch["labels"], batch_first=True),
            "num_boxes": torch.tensor(counts),
            "label": torch.arange(4),
        }

    eager, mix = (mixer(MODES["both"], num_classes=K, inplace=False) for _ in range(2))
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    step = torch.compile(mix, backend=counter, fullgraph=True)
    for _ in range(3):
        a, b = eager(padded()), step(padded())
        for key, value in a.items():
            if isinstance(value, MixedTarget):
                assert torch.equal(value.labels, b[key].labels)
                assert torch.equal(value.weight, b[key].weight)
            else:
                assert torch.equal(value, b[key]), key
    assert counter.frame_count == 1
