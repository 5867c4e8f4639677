"""BatchMix with ResizeMix among its variants: images, labels, class maps, other entries."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from batch_mix_cases import K, batch, equal, tensors

import fused_mixup as fm
from fused_mixup import BatchMix

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = {"resizemix": None, "cutmix": 1.0, "fmix": 1.0}


def places(batch_size, size, seed, **options):
    """The places of a BatchMix of ResizeMix alone."""
    state = fm.plan_state(seed)
    return fm.draw_resizemix(batch_size, size, state=state, per="sample", **options)


def resized(x, box):
    """ResizeMix by F.interpolate, with partners x[B-1-i]."""
    out = x.clone()
    for i, (top, left, bottom, right) in enumerate(box.tolist()):
        if bottom > top and right > left:
            values = x[-1 - i].double().reshape(1, -1, *x.shape[-2:])
            small = F.interpolate(values, (bottom - top, right - left)).to(x.dtype)
            piece = out[i, ..., top:bottom, left:right]
            piece.copy_(small.view(piece.shape))
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_alone_it_is_draw_resizemix(dtype, inplace, listed):
    x = (torch.rand(6, 3, 17, 14) * 255).to(dtype)
    labels = torch.arange(6) % K
    plan = places(6, (17, 14), 3, prob=0.8)
    expected = resized(x, plan.box[:, 0])
    mix = BatchMix(K, mix={"resizemix": None}, per="sample", prob=0.8, seed=3, inplace=inplace)
    given = list(x.unbind()) if listed else x.clone()
    out = mix({"image": given, "label": labels})
    mixed = torch.stack(list(out["image"])) if listed else out["image"]
    assert torch.equal(mixed, expected) and not torch.equal(mixed, x)
    if not listed:
        assert torch.equal(given, expected if inplace else x) and (out["image"] is given) == inplace
    assert torch.equal(out["label"].weight, plan.weight)
    area = (plan.box[:, 0, 2:] - plan.box[:, 0, :2]).prod(1) / (17 * 14)
    torch.testing.assert_close(out["label"].weight[:, 1], area)
    assert (area > 0).any() and (area == 0).any()


def test_settings_of_its_own():
    plan = places(6, (32, 32), 4, scale=(0.5, 0.6), alpha=2.0)
    x = torch.rand(6, 1, 32, 32)
    given = {"resizemix": {"alpha": 2.0, "scale": (0.5, 0.6)}}
    mix = BatchMix(mix=given, per="sample", seed=4, inplace=False)
    assert torch.equal(mix({"image": x})["image"], resized(x, plan.box[:, 0]))
    sides = plan.box[:, 0, 2:] - plan.box[:, 0, :2]
    assert (sides >= 16).all() and (sides <= 19).all()


@pytest.mark.parametrize("inplace", [True, False])
def test_each_sample_has_its_variant(inplace):
    """Rows of ResizeMix show the partner in a place, other rows what their plan says."""
    n = 24
    x = torch.rand(n, 2, 16, 16)
    mix = BatchMix(mix=BOTH, per="sample", seed=1, inplace=inplace)
    box = mix._law.draw(mix.state.clone(), mix.settings, n, (16, 16), None, mix._rules)[1]
    out, plans = mix.with_plans({"image": x.clone()})
    plan = plans["image"]
    expected = fm.mix(x, plan)
    here = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
    assert here.any() and not here.all()
    assert torch.equal(expected[here], x[here])
    expected[here] = resized(x, box)[here]
    assert torch.equal(out["image"], expected)
    area = (box[:, 2:] - box[:, :2]).prod(1) / 256
    torch.testing.assert_close(plan.weight[here, 1], area[here])


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_class_maps_and_soft_maps_follow(inplace, dtype):
    box = places(4, (16, 16), 6).box[:, 0]
    maps = torch.randint(0, 2, (4, 16, 16)).to(dtype)
    soft, video = torch.rand(4, 1, 8, 8), torch.rand(4, 3, 2, 16, 16)
    expected = resized(maps, box) if dtype != torch.bool else resized(maps.byte(), box).bool()
    small = torch.floor(box / 2 + 0.5).int()
    entries = {"image": torch.rand(4, 3, 16, 16), "mask": maps, "soft_map": soft, "video": video}
    expected_soft, expected_video = resized(soft, small), resized(video.flatten(1, 2), box)
    mix = BatchMix(K, mix={"resizemix": None}, per="sample", seed=6, inplace=inplace, labels=())
    out = mix(entries)
    assert torch.equal(out["mask"], expected) and out["mask"].dtype == dtype
    assert torch.equal(out["soft_map"], expected_soft)
    assert torch.equal(out["video"].flatten(1, 2), expected_video)


def test_class_maps_beside_mixup_become_targets():
    n = 12
    maps, x = torch.randint(0, K, (n, 8, 8)), torch.rand(n, 1, 8, 8)
    mix = BatchMix(K, mix={"resizemix": None, "mixup": 1.0}, per="sample", inplace=False, seed=2)
    box = mix._law.draw(mix.state.clone(), mix.settings, n, (8, 8), None, mix._rules)[1]
    target = mix({"image": x, "mask": maps})["mask"]
    here = box[:, 2] > box[:, 0]
    assert here.any() and not here.all()
    assert torch.equal(target.labels, resized(maps, box))
    assert torch.equal(target.partner_labels, maps.flip(0))
    assert (target.weight[here] == torch.tensor([1.0, 0.0])).all()


def test_sound_beside_pictures_has_the_weights():
    audio = torch.rand(4, 50)
    mix = BatchMix(mix={"resizemix": None}, per="sample", inplace=False, labels=())
    out, plans = mix.with_plans({"image": torch.rand(4, 1, 8, 8), "audio": audio})
    w = plans["image"].weight
    torch.testing.assert_close(out["audio"], w[:, :1] * audio + w[:, 1:] * audio.flip(0))


def test_schedules_and_resume():
    mix = BatchMix(K, mix=BOTH, schedule=lambda epoch: 0.5 + epoch, per="sample")
    mix.set_epoch(1)
    assert mix.settings[2] == 0  # τ stays uniform
    assert mix.settings[12] == 1.5
    mix(*batch())
    other = BatchMix(K, mix=BOTH, per="sample", seed=9)
    other.load_state_dict(copy.deepcopy(mix.state_dict()))
    (x, y), (again, y_again) = mix(*batch()), other(*batch())
    assert torch.equal(x, again) and equal(tensors(y), tensors(y_again))


@pytest.mark.parametrize("inplace", [True, pytest.param(False, marks=pytest.mark.proof)])
def test_compiled_steps(inplace):
    torch._dynamo.reset()
    mix = BatchMix(K, mix=BOTH, per="sample", inplace=inplace, dense_targets=True)
    other = copy.deepcopy(mix)
    compiled = torch.compile(lambda x, y: other(x, y), backend="aot_eager", fullgraph=True)
    for _ in range(2):
        x, labels = batch()
        mixed, target = compiled(x.clone(), labels)
        expected, expected_target = mix(x.clone(), labels)
        assert torch.equal(mixed, expected) and torch.equal(target, expected_target)
    assert torch.equal(mix.state, other.state)


# ------------------------------------------------------------------ refused


def test_refused():
    mix = BatchMix(mix={"resizemix": None}, inplace=False)
    state = mix.state.clone()
    with pytest.raises(ValueError, match="does not require grad.*resizemix.*detach"):
        mix({"image": torch.rand(2, 1, 8, 8, requires_grad=True)})
    with pytest.raises(ValueError, match="'resizemix'.*call BatchMix with the batch"):
        mix.draw(4, (8, 8))
    with pytest.raises(ValueError, match="audio.*: expected two spatial dims"):
        mix({"audio": torch.rand(4, 50)})
    assert torch.equal(mix.state, state)
    with pytest.raises(ValueError, match="'scale'.*numbers in .0, 1.*got 0.5, 2"):
        BatchMix(mix={"resizemix": {"scale": (0.5, 2)}})
    with pytest.raises(ValueError, match="α > 0|expected"):
        BatchMix(mix={"resizemix": -1.0})
