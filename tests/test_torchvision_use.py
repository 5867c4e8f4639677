"""Our torchvision MixUp and CutMix: extra features and errors.

test_torchvision.py compares their results with torchvision's.
"""

from __future__ import annotations

import pytest
import torch
from peers import tv_tensors, v2
from torch.utils._pytree import tree_flatten

import fused_mixup as fm
from fused_mixup import torchvision as ours

KINDS = ("MixUp", "CutMix")


# ------------------------------------------------------------------ extra features


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_inplace_writes_the_images_and_gives_them_back(kind, dtype):
    x = tv_tensors.Image((torch.rand(5, 3, 8, 7) * 99).to(dtype))
    sample = {"a": x, "labels": torch.arange(5), "again": x}
    torch.manual_seed(0)
    want = getattr(ours, kind)(num_classes=5)(sample)
    torch.manual_seed(0)
    got = getattr(ours, kind)(num_classes=5, inplace=True)(sample)
    assert got["a"] is x and got["again"] is x  # the batch was mixed once
    assert torch.equal(x, want["a"]) and torch.equal(got["labels"], want["labels"])


@pytest.mark.parametrize("kind", KINDS)
def test_inplace_holds_no_second_batch(kind, extra_memory):
    x, y = torch.rand(16, 3, 64, 64), torch.arange(16)
    mixer = getattr(ours, kind)(num_classes=16, inplace=True)
    assert extra_memory(lambda: mixer(x, y)) < 2**15 < x.nbytes


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_cutmix_pastes_masks_with_the_box_of_the_images(dtype, inplace):
    ids = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 9, 11).contiguous()
    mask = tv_tensors.Mask(ids[:, 0].to(dtype))
    given = mask.clone()
    mixer = ours.CutMix(num_classes=4, inplace=inplace)
    x, target = mixer(ids.clone(), {"labels": torch.arange(4), "masks": mask})
    assert isinstance(target["masks"], tv_tensors.Mask) and target["masks"].dtype == dtype
    assert torch.equal(target["masks"], x[:, 0].to(dtype))
    assert not torch.equal(x[:, 0].to(dtype), given)  # the mask has pasted values
    assert (target["masks"] is mask) == inplace
    assert torch.equal(mask, x[:, 0].to(dtype) if inplace else given)


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_targets_stand_for_the_dense_ones(kind):
    x, y, logits = torch.rand(6, 3, 8, 8), torch.arange(6) % 4, torch.randn(6, 4)
    torch.manual_seed(4)
    _, dense = getattr(v2, kind)(num_classes=4)(x, y)
    torch.manual_seed(4)
    _, target = getattr(ours, kind)(num_classes=4, sparse_targets=True)(x, y)
    assert isinstance(target, fm.MixedTarget) and torch.equal(target.dense(), dense)
    loss = fm.soft_target_cross_entropy(logits, target)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, dense))


def test_uint8_mixup_blends_and_rounds():
    x, y = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8), torch.arange(4)
    with pytest.raises(RuntimeError):
        v2.MixUp(num_classes=4)(x, y)
    torch.manual_seed(1)
    wide, _ = v2.MixUp(num_classes=4)(x.float(), y)
    torch.manual_seed(1)
    images, _ = ours.MixUp(num_classes=4)(x, y)
    assert images.dtype == torch.uint8 and torch.equal(images, wide.round().to(torch.uint8))


def test_other_names_are_torchvisions():
    assert ours.RandomChoice is v2.RandomChoice and ours.Compose is v2.Compose
    with pytest.raises(AttributeError, match="NoSuchTransform"):
        _ = ours.NoSuchTransform


# ------------------------------------------------------------------ errors


def bad_samples():
    x, y = torch.rand(4, 3, 6, 6), torch.arange(4)
    image, index = tv_tensors.Image, {"num_classes": 4}
    boxes = tv_tensors.BoundingBoxes(torch.rand(4, 4), format="XYXY", canvas_size=(6, 6))
    points = tv_tensors.KeyPoints(torch.rand(4, 2), canvas_size=(6, 6))
    yield "no getter", index | {"labels_getter": None}, (x, y), "labels"
    yield "label ndim", index, (x, torch.rand(4, 2, 2)), "labels"
    yield "label width", index, (x, torch.rand(4, 5)), "num_classes"
    yield "no num_classes", {}, (x, y), "num_classes"
    yield "no labels to count", {"num_classes": -1}, (x[:0], y[:0]), "num_classes"
    yield "int32 labels", index, (x, y.int()), r"\.long\(\)"
    yield "label too large", index, (x, y + 1), "num_classes"
    yield "label negative", index, (x, y - 1), "num_classes"
    yield "one entry", index, ((x,),), "labels_getter"
    yield "second entry", index, (x, "cat"), "labels_getter"
    yield "no label key", index, ({"a": x, "b": y},), "labels_getter"
    yield "boxes", index, (x, {"labels": y, "b": boxes}), "BoundingBoxes"
    yield "keypoints", index, (x, {"labels": y, "b": points}), "KeyPoints"
    yield "image ndim", index, (x[0], y), r"\[B, C, H, W\]"
    yield "video ndim", index, (tv_tensors.Video(x), y), r"\[B, T, C, H, W\]"
    yield "batch size", index, (x[1:], y), "batch of 4"
    two = (image(x), {"labels": y, "b": image(x[1:])})
    yield "second image", index, two, "batch of 4"
    pil = pytest.importorskip("PIL.Image", reason="PIL is not installed").new("RGB", (4, 4))
    yield "PIL", index, (pil, y), "ToImage"


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_torchvisions_but_come_before_anything_happens(kind, inplace):
    for name, options, sample, words in bad_samples():
        with pytest.raises(Exception) as theirs:
            getattr(v2, kind)(**options)(*sample)
        leaves = [t for t in tree_flatten(sample)[0] if isinstance(t, torch.Tensor)]
        before, state = [t.clone() for t in leaves], torch.get_rng_state()
        with pytest.raises(type(theirs.value), match=words) as own:
            getattr(ours, kind)(**options, inplace=inplace)(*sample)
        assert type(own.value) is type(theirs.value), name
        assert torch.equal(torch.get_rng_state(), state), f"{name}: something was drawn"
        assert all(torch.equal(a, b) for a, b in zip(before, leaves, strict=True)), name


def cases_of_one_kind():
    x, y = torch.rand(4, 3, 6, 6), torch.arange(4)
    image = tv_tensors.Image
    yield "MixUp", (x.int(), y), "float"
    yield "CutMix", (x[..., :0], y), "at least 1"
    yield "CutMix", (image(x), {"labels": y, "b": image(x[..., 1:])}), "one size"
    yield "CutMix", ({"labels": y, "pixels": x},), "first"
    yield "MixUp", (x, {"labels": y, "m": tv_tensors.Mask(x[:, 0])}), "CutMix"


@pytest.mark.parametrize("case", list(cases_of_one_kind()), ids=lambda case: f"{case[0]} {case[2]}")
def test_errors_of_one_of_the_two(case):
    kind, sample, words = case
    with pytest.raises(Exception) as theirs:
        getattr(v2, kind)(num_classes=4)(*sample)
    with pytest.raises(type(theirs.value), match=words):
        getattr(ours, kind)(num_classes=4)(*sample)


def test_labels_first_in_a_dict_mix_no_image_and_say_so():
    sample = {"labels": torch.arange(4), "pixels": torch.rand(4, 3, 6, 6)}
    torch.manual_seed(0)
    want = v2.MixUp(num_classes=4)(sample)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="labels are the first tensor") as warned:
        got = ours.MixUp(num_classes=4)(sample)
    assert [w.filename for w in warned] == [__file__]
    assert got["pixels"] is sample["pixels"] is want["pixels"]
    assert torch.equal(got["labels"], want["labels"])


def test_a_getter_that_makes_a_new_tensor_is_refused():
    mixer = ours.MixUp(num_classes=4, labels_getter=lambda sample: sample[1].long())
    with pytest.raises(ValueError, match="labels_getter"):
        mixer(torch.rand(4, 3, 6, 6), torch.arange(4).int())


def test_masks_of_another_size_are_refused():
    for mask in (torch.zeros(4, 6, 5), torch.zeros(3, 6, 6), torch.zeros(6, 6)):
        with pytest.raises(ValueError, match="masks: expected"):
            ours.CutMix(num_classes=4)(
                torch.rand(4, 3, 6, 6), {"labels": torch.arange(4), "m": tv_tensors.Mask(mask)}
            )


def test_inplace_and_sparse_refuse_what_they_cannot_do():
    x = torch.rand(4, 3, 6, 6)
    with pytest.raises(ValueError, match="require grad"):
        ours.MixUp(num_classes=4, inplace=True)(x.clone().requires_grad_(), torch.arange(4))
    with pytest.raises(ValueError, match="sparse_targets"):
        ours.CutMix(sparse_targets=True)(x, torch.rand(4, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_inplace_writes_no_image_if_a_later_one_refuses(kind):
    first, second = (tv_tensors.Image(torch.rand(4, 3, 6, 6)) for _ in range(2))
    before, state = first.clone(), torch.get_rng_state()
    second.requires_grad_()
    with pytest.raises(ValueError, match="require grad"):
        getattr(ours, kind)(num_classes=4, inplace=True)(
            first, {"labels": torch.arange(4), "b": second}
        )
    assert torch.equal(first, before) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("names", [("label_a", "LABELS"), ("no", "xLabelx", "label")])
def test_the_default_getter_picks_torchvisions_key(names):
    sample = torch.rand(4, 3, 6, 6), {name: torch.rand(4, 3) for name in names}
    torch.manual_seed(0)
    _, want = v2.MixUp()(*sample)
    torch.manual_seed(0)
    _, got = ours.MixUp()(*sample)
    assert sum(not torch.equal(got[name], sample[1][name]) for name in names) == 1
    assert all(torch.equal(got[name], want[name]) for name in names)


def test_an_infinite_alpha_is_refused():  # torchvision's λ is then NaN, and so is the batch
    with pytest.raises(ValueError, match="finite"):
        ours.MixUp(alpha=float("inf"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_must_be_positive(kind, alpha):
    # torchvision leaves the check to torch.distributions, whose checks torch.compile disables.
    with pytest.raises(ValueError, match="alpha"):
        getattr(ours, kind)(alpha=alpha)


@pytest.mark.parametrize("kind", KINDS)
def test_constructor_refuses_what_torchvision_refuses(kind):
    for module in (v2, ours):
        with pytest.raises(TypeError):
            getattr(module, kind)(1.0)  # the options are keyword-only
        with pytest.raises(ValueError, match="labels_getter"):
            getattr(module, kind)(labels_getter="first")
