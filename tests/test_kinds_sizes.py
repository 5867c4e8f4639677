"""Entries of other sizes than the first: where boxes lie in them, and the share each got."""

from __future__ import annotations

import functools

import pytest
import torch
from kinds_by_hand import (
    K,
    by_weights,
    classes,
    generator,
    images,
    map_target,
    mixed,
    mixer,
    random_batches,
    scaled_box,
    share,
)

import fused_mixup as fm
from fused_mixup import BatchMix

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.proof)])
def test_boxes_map_to_entries_of_other_sizes(count):
    pick = generator(5)
    for options, (n, m, *_), b in random_batches(count, seed=11):
        n, m = n + 2, m + 2
        up = int(torch.randint(1, 4, (), generator=pick))
        h, w = int(torch.randint(1, 20, (), generator=pick)), n + 3
        batch = {
            "image": images(b, n, m),
            "small": images(b, h, w, seed=1),
            "mask": torch.randint(0, K, (b, n * up, m * up), generator=pick),
            "audio": torch.randn(b, 1, 50, generator=pick),
            "label": classes(b),
        }
        given = {key: value.clone() for key, value in batch.items()}
        mix = BatchMix(K, kinds={"small": "image"}, **options)
        out, plans = mix.with_plans(batch)
        cuts = bool(options.get("cutmix_alpha"))

        def to(*sizes, n=n, m=m):
            return functools.partial(scaled_box, sizes=(n, m), new_sizes=sizes)

        plan = plans["image"]
        close = {"rtol": 1e-5, "atol": 1e-6}
        expected = mixed(given["small"], plan, to(h, w))
        torch.testing.assert_close(out["small"].double(), expected, **close)
        expected = map_target(given["mask"], plan, K, None, to(n * up, m * up))
        got = out["mask"]
        got = (
            got.dense()
            if options["mixup_alpha"]
            else torch.stack([(got == c).float() for c in range(K)], 1)
        )
        torch.testing.assert_close(got.double(), expected, **close)
        heard = by_weights(given["audio"], plan) if cuts else mixed(given["audio"], plan)
        torch.testing.assert_close(out["audio"].double(), heard, **close)
        if cuts:  # the share that each entry really got
            for i, box in enumerate(plan.box.tolist()):
                small = share(to(h, w)(box), (h, w))
                if plan.blend[i, 1] == 0 and share(box, (n, m)) > 0:
                    assert abs(plans["small"].weight[i, 1] - small) < 1e-6
                    assert abs(plans["small"].weight[i].sum() - 1) < 1e-6
        assert torch.equal(out["label"].weight, plan.weight)


def test_labels_follow_the_entry_that_they_name():
    options = {"kinds": {"small": "image"}, "labels": ("label", "small_label")}
    batch = {
        "image": images(4, 16, 16),
        "small": images(4, 3, 3, seed=1),
        "label": classes(),
        "small_label": classes(),
    }
    follows = {"small_label": "small"}
    out, plans = mixer(follows=follows, per="sample", **options).with_plans(batch)
    assert not torch.equal(plans["small"].weight, plans["image"].weight)
    assert torch.equal(out["small_label"].weight, plans["small"].weight)
    assert torch.equal(out["label"].weight, plans["image"].weight)
    with pytest.raises(ValueError, match="follows: expected .*'sound'"):
        mixer(follows={"small_label": "sound"}, **options)(batch)


@pytest.mark.parametrize("inplace", [True, False])
def test_a_box_in_time_for_video_and_its_sound(inplace):
    video, sound = torch.randn(4, 6, 3, 4, 5), torch.randn(4, 2, 90)
    mels = torch.randn(4, 1, 8, 45)
    picture = images(4, 5, 7)
    batch = {"video": video, "audio": sound, "mel": mels, "image": picture, "label": classes()}
    given = {key: value.clone() for key, value in batch.items()}
    mix = mixer(cut="time", per="sample", inplace=inplace)
    out, plans = mix.with_plans(batch)
    plan = plans["video"]
    assert plan.spatial_dims == 1 and plan == mixer(per="sample").draw(4, (6,))
    assert bool((plan.box[:, 1] > plan.box[:, 0]).any())
    last = mixed(given["video"].movedim(1, -1), plan).movedim(-1, 1)
    torch.testing.assert_close(out["video"].double(), last)
    for name, size in (("audio", 90), ("mel", 45)):
        expected = mixed(given[name], plan, lambda box, size=size: scaled_box(box, (6,), (size,)))
        torch.testing.assert_close(out[name].double(), expected)
    torch.testing.assert_close(
        out["image"].double(), by_weights(given["image"], plan), rtol=1e-5, atol=1e-6
    )
    assert torch.equal(out["label"].weight, plan.weight)
    assert (out["video"] is video) == inplace
    with pytest.raises(ValueError, match=r"images\['image'\]: expected a kind that has time"):
        mixer(cut="time")({"image": picture, "label": classes()})
    with pytest.raises(ValueError, match="cut: expected one of"):
        mixer(cut="frames")


def test_maps_of_another_form_are_refused():
    mix = mixer(mixup_alpha=1.0)
    for sizes in ((8, 7), (16, 8), (4, 5)):
        maps = torch.zeros(4, *sizes, dtype=torch.int64)
        with pytest.raises(ValueError, match=r"masks\['mask'\]: expected its last sizes"):
            mix({"image": images(), "mask": maps})
    maps = torch.zeros(4, 2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"masks\['mask'\]: expected no map"):
        mixer(cut="time")({"audio": torch.rand(4, 90), "mask": maps})
    assert torch.equal(mix.state, fm.plan_state(3))


def test_resized_plans():
    plan = fm.MixPlan.uniform(4, "flip", 0.75, (2, 2, 6, 6))
    half = plan.resize((8, 8), (4, 4))
    assert half.box[0].tolist() == [1, 1, 3, 3] and half.weight[0].tolist() == [0.75, 0.25]
    assert half.serves(torch.device("cuda"))  # still one row
    assert plan.resize((8, 8), (8, 8)) is plan
    assert plan.resize((8, 8), (4, 4), correct_lam=False).weight[0, 0] == 0.75
    none = fm.MixPlan.uniform(4, "flip", 0.3)
    assert none.resize((8, 8), (4, 4)) is none
    for size, new in (((8,), (4, 4)), ((8, 8), (0, 4)), ((8, 8), (4,)), ((5, 5), (3, 3))):
        with pytest.raises(ValueError, match="size"):
            plan.resize(size, new)
    with pytest.raises(TypeError, match="new_size: expected"):
        plan.resize((8, 8), (4.5, 4))
