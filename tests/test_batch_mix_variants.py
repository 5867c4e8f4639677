"""BatchMix with mix=: variants by name, their entries, epochs and compiled steps."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._dynamo.testing
import torch.utils.checkpoint
from batch_mix_cases import K, batch, equal, run, tensors

import fused_mixup as fm
from fused_mixup import BatchMix, MixedTarget
from fused_mixup.codes import STEP_WORD
from fused_mixup.variants.numbers import SETTINGS

pytestmark = pytest.mark.usefixtures("one_thread")

MIX = {"mixup": 0.8, "cutmix": None, "fmix": 1.0, "gridmix": {"alpha": 0.5, "holes": 3}}


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
def test_a_step_is_that_of_the_functions(name, per):
    mix = BatchMix(K, mix={name: None}, per=per, prob=0.9, label_smoothing=0.1, seed=5, rank=3)
    state = fm.plan_state(5, 3)
    for _ in range(2):
        x, labels = batch()
        plan = fm.draw_variants(6, (8, 8), state=state, mix={name: True}, per=per, prob=0.9)
        expected = fm.mix(x, plan)
        mixed, target = mix(x, labels)
        assert mixed is x and torch.equal(mixed, expected)
        same = MixedTarget.from_labels(labels, plan, K, 0.1)
        assert equal(tensors(target), tensors(same))
    assert torch.equal(mix.state, state)


def test_masks_mix_what_the_formula_says():
    x = torch.rand(6, 3, 16, 16)
    mix = BatchMix(mix={"fmix": 1.0, "gmix": 1.0}, per="sample", inplace=False)
    mixed, plans = mix.with_plans({"image": x})
    plan = plans["image"]
    m = plan.mask.dense()
    torch.testing.assert_close(mixed["image"], m * x + (1 - m) * x.flip(0))
    assert 0 < m.mean() < 1


def test_entries_of_a_segmentation_batch():
    """Class maps are pasted where m < ½, soft maps are blended by the mask, at their own sizes."""
    mix = BatchMix(K, mix={"fmix": 1.0, "smoothmix": None}, per="sample", inplace=False)
    x, soft = torch.rand(6, 3, 16, 16), torch.rand(6, 1, 8, 8)
    maps = torch.randint(0, K, (6, 16, 16))
    entries = {"image": x, "mask": maps, "soft_map": soft, "label": torch.arange(6) % K}
    out, plans = mix.with_plans(entries)
    m = plans["mask"].mask.dense()[:, 0]
    assert torch.equal(out["mask"], torch.where(m < 0.5, maps.flip(0), maps))
    small = plans["soft_map"].mask.dense((8, 8))
    torch.testing.assert_close(out["soft_map"], small * soft + (1 - small) * soft.flip(0))
    assert torch.equal(out["label"].weight, plans["image"].weight)


def test_class_maps_beside_mixup_become_targets():
    mix = BatchMix(K, mix={"mixup": 1.0, "fmix": 1.0}, per="sample", inplace=False, seed=2)
    maps = torch.randint(0, K, (8, 12, 12))
    entries = {"image": torch.rand(8, 3, 12, 12), "mask": maps}
    out, plans = mix.with_plans(entries)
    plan, target = plans["image"], out["mask"]
    masked = plan.mask.code != 0
    assert masked.any() and not masked.all()
    m = plan.mask.dense()[:, 0]
    assert torch.equal(target.labels, torch.where(m < 0.5, maps.flip(0), maps))
    assert torch.equal(target.partner_labels, maps.flip(0))
    assert torch.equal(target.weight, plan.blend.float())
    assert (target.weight[masked] == torch.tensor([1.0, 0.0])).all()


def test_frames_of_a_video_share_a_mask_and_its_sound_the_weights():
    mix = BatchMix(mix={"gridmix": 1.0}, per="sample", inplace=False, labels=())
    video, audio = torch.rand(4, 5, 3, 8, 8), torch.rand(4, 50)
    out, plans = mix.with_plans({"video": video, "audio": audio})
    m = plans["video"].mask.dense()[:, :, None]
    torch.testing.assert_close(out["video"], m * video + (1 - m) * video.flip(0))
    w = plans["video"].weight
    torch.testing.assert_close(out["audio"], w[:, :1] * audio + w[:, 1:] * audio.flip(0))


def test_samples_that_are_not_collated():
    samples = [torch.rand(3, 8, 8) for _ in range(4)]
    mix = BatchMix(K, mix={"fmix": 1.0}, seed=4)
    other = copy.deepcopy(mix)
    made = mix({"image": samples, "label": [0, 1, 2, 0]})
    stacked = other({"image": torch.stack(samples), "label": torch.tensor([0, 1, 2, 0])})
    assert torch.equal(torch.stack(list(made["image"])), stacked["image"])


def test_schedules_by_name():
    def schedule(epoch):
        return {"fmix": 0.1 + epoch, "weights": [0.25, 0.75], "prob": 0.5}

    mix = BatchMix(K, mix={"mixup": 1, "fmix": 1}, schedule=schedule, off_after_epoch=3)
    mix.set_epoch(2)
    expected = fm.variant_settings({"mixup": 1, "fmix": 2.1}, [0.25, 0.75], prob=0.5)
    assert torch.equal(mix.settings, expected)
    mix.set_epoch(3)
    assert mix.settings[0] == 0
    x, labels = batch()
    before = x.clone()
    assert torch.equal(mix(x, labels)[0], before)
    one = BatchMix(K, mix={"fmix": 1, "smoothmix": None}, schedule=lambda epoch: 3.0)
    assert torch.equal(one.settings, fm.variant_settings({"fmix": 3.0, "smoothmix": None}))
    with pytest.raises(ValueError, match="schedule: expected keys of .*'prob'.*got 'mixip'"):
        BatchMix(K, mix={"fmix": 1}, schedule=lambda epoch: {"mixip": 1.0})


def test_resumes_to_the_bit():
    mix = BatchMix(K, mix=MIX, per="sample", pairing="shuffle", seed=3)
    run(mix, 2)
    saved = copy.deepcopy(mix.state_dict())
    later = run(mix, 2)
    other = BatchMix(K, mix=MIX, per="sample", pairing="shuffle", seed=9)
    other.load_state_dict(saved)
    assert equal(run(other, 2), later)
    with pytest.raises(RuntimeError, match="expected a settings"):
        BatchMix(K, mix={"fmix": 1}).load_state_dict(saved)
    with pytest.raises(RuntimeError, match="expected a settings"):
        BatchMix(K).load_state_dict(saved)


def test_compiled_steps_do_not_recompile():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    mix = BatchMix(K, mix=MIX, per="sample", schedule=lambda epoch: 0.2 + epoch, inplace=False)
    other = copy.deepcopy(mix)

    def step(mix, x, labels):
        mixed, target = mix(x, labels)
        return fm.soft_target_cross_entropy(mixed.flatten(1)[:, :K], target) + mixed.mean()

    compiled = torch.compile(step, backend=counter, fullgraph=True)
    for epoch in range(2):
        for _ in range(2):
            x, labels = batch()
            assert torch.equal(compiled(other, x, labels), step(mix, x, labels))
        mix.set_epoch(epoch + 1)
        other.set_epoch(epoch + 1)
    assert torch.equal(mix.state, other.state) and counter.frame_count == 1


def test_the_recompute_of_a_checkpoint_mixes_as_its_forward():
    mix = BatchMix(mix={"fmix": 1.0, "mixup": 1.0}, per="sample", inplace=False)
    scale, seen = torch.ones((), requires_grad=True), []

    def region(x, scale):
        mixed = mix({"image": x})["image"]
        seen.append(mixed)
        return (mixed * scale).sin()

    x = torch.rand(4, 1, 8, 8)
    torch.utils.checkpoint.checkpoint(region, x, scale, use_reentrant=False).sum().backward()
    assert len(seen) == 2 and torch.equal(*seen)
    assert mix.state[STEP_WORD] == 1


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mix": {"fmix": 1}, "mixup_alpha": 0.2}, "mix: expected None beside mixup_alpha"),
        ({"mix": {"fmix": 1}, "cutmix_alpha": 1.0}, "mix: expected None beside mixup_alpha"),
        ({"weights": [1.0]}, "weights: expected None without mix="),
        ({"mix": {"fmx": 1}}, "mix: expected names of .*'fmix'.*got 'fmx'"),
        ({"mix": {"fmix": 1}, "weights": [0.5, 0.5]}, "weights: expected 1 numbers"),
        ({"mix": {"fmix": 1}, "cut": "time"}, "cut: expected 'space' for the masks"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        BatchMix(K, **options)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"audio": torch.rand(4, 50)}, "audio.*: expected two spatial dims for the masks"),
        ({"volume": torch.rand(4, 1, 4, 4, 4)}, "images.*: expected two spatial dims"),
        (
            {"image": torch.rand(2, 3, 8, 8), "boxes": [torch.rand(1, 4), torch.rand(2, 4)]},
            "boxes.*: expected no boxes, .*'boxes': 'keep'",
        ),
    ],
)
def test_batches_that_no_mask_fits(entries, match):
    mix = BatchMix(K, mix={"fmix": 1.0}, kinds={"boxes": "boxes"} if "boxes" in entries else None)
    state = mix.state.clone()
    with pytest.raises(ValueError, match=match):
        mix(entries)
    assert torch.equal(mix.state, state)


def test_boxes_are_fine_without_masks():
    mix = BatchMix(K, mix={"mixup": 1.0, "cutmix": 1.0}, kinds={"boxes": "boxes"})
    boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])] * 2
    out = mix({"image": torch.rand(2, 3, 8, 8), "boxes": boxes})
    assert "box_weights" in out
    sound = BatchMix(K, mix={"mixup": 1.0})
    assert sound({"audio": torch.rand(4, 50)})["audio"].shape == (4, 50)
