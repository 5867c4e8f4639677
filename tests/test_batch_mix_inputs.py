"""BatchMix: batches of all kinds, masks, spatial dims, refusals."""

from __future__ import annotations

import collections
import types

import pytest
import torch
from batch_mix_cases import K, batch, equal, tensors

import fused_mixup as fm
from fused_mixup import BatchMix

pytestmark = pytest.mark.usefixtures("one_thread")


Pair = collections.namedtuple("Pair", ["images", "labels"])


def test_structures():
    def mixer(**options):
        return BatchMix(K, mixup_alpha=0.0, cutmix_alpha=1.0, seed=4, inplace=False, **options)

    x, labels = batch()
    expected, target = mixer()(x, labels)
    assert not torch.equal(expected, x)
    names = ["cat"] * 6
    for made in ([x, labels], Pair(x, labels), (x, labels, names)):
        out = mixer()(made)
        assert type(out) is type(made) and len(out) == len(made)
        assert torch.equal(out[0], expected) and equal(tensors(out[1]), tensors(target))
        assert out[2:] == made[2:] and made[1] is labels
    for image, label in (("image", "label"), ("pixel_values", "labels"), ("x", "y")):
        made = {"id": names, label: labels, image: x}
        for one in (made, collections.OrderedDict(made), collections.UserDict(made)):
            out = mixer()(one)
            assert type(out) is type(one) and list(out) == list(one) and out["id"] is names
            assert torch.equal(out[image], expected) and equal(tensors(out[label]), tensors(target))
            assert one[label] is labels
    out = mixer(images=("left", "right"), labels="kind")({"left": x, "right": x, "kind": labels})
    assert torch.equal(out["left"], expected) and torch.equal(out["right"], expected)
    both = mixer(images=("left", "right"), labels="kind")
    both.inplace = True
    twice = x.clone()
    out = both({"left": twice, "right": twice, "kind": labels})
    assert out["left"] is out["right"] is twice and torch.equal(twice, expected)
    view = x.clone()
    out = both.train()({"left": view, "right": view.view(view.shape), "kind": labels})
    assert torch.equal(out["left"], out["right"]) and not torch.equal(view, x)
    once = mixer()
    once(x, labels)
    assert torch.equal(view, once(x, labels)[0])
    frozen = mixer()(types.MappingProxyType({"x": x, "y": labels}))
    assert type(frozen) is dict and torch.equal(frozen["x"], expected)
    out = mixer(images=2, labels=-3)(labels, names, x)
    assert torch.equal(out[2], expected) and out[1] is names


def test_masks_are_pasted():
    options = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "per": "sample", "seed": 4}
    x, labels = batch()
    mask = torch.arange(6 * 64).view(6, 8, 8)
    plan = BatchMix(K, **options).draw(6, (8, 8))
    expected = fm.paste_(mask.clone(), plan)
    assert not torch.equal(expected, mask)
    out = BatchMix(K, **options)({"image": x.clone(), "label": labels, "mask": mask.clone()})
    assert torch.equal(out["mask"], expected)
    out = BatchMix(K, **options, masks=(2, 3))(x.clone(), labels, mask.clone(), mask[:, None] + 0)
    assert torch.equal(out[2], expected) and torch.equal(out[3][:, 0], expected)
    out = BatchMix(K, masks=())({"image": x, "label": labels, "mask": mask})
    assert out["mask"] is mask


def test_spatial_dims_of_audio_and_video(device):
    options = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "seed": 8}
    labels = torch.arange(4, device=device)
    for shape, dims in (((4, 50), 1), ((4, 2, 3, 8, 9), 2), ((4, 2, 5, 8, 9), 3)):
        x = torch.randn(shape, device=device)
        plan = BatchMix(K, **options).to(device).draw(4, shape[-dims:])
        mixed, _ = BatchMix(K, **options, spatial_dims=dims).to(device)(x.clone(), labels)
        assert plan.spatial_dims == dims and torch.equal(mixed, fm.mix(x, plan))


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"num_classes": 0}, ValueError, "num_classes: expected an int >= 1"),
        ({"label_smoothing": 2.0}, ValueError, "label_smoothing"),
        ({"mixup_alpha": 0.0}, ValueError, "expected one of them > 0"),
        ({"pairing": "random"}, ValueError, "pairing: expected one of"),
        ({"pairing": torch.arange(3)}, ValueError, "pairing: expected one of"),
        ({"per": "row"}, ValueError, "per: expected one of"),
        ({"per": "pair", "pairing": "roll"}, ValueError, "forms a circle"),
        ({"rank": -1}, ValueError, "rank: expected 0 to"),
        ({"off_after_epoch": -1}, ValueError, "off_after_epoch: expected an epoch >= 0"),
        ({"spatial_dims": 4}, ValueError, "spatial_dims: expected 1, 2, 3 or None"),
        ({"schedule": 0.5}, TypeError, "schedule: expected a function"),
        ({"schedule": lambda e: {"alpha": 1}}, ValueError, "schedule: expected keys of"),
        ({"schedule": lambda e: {"cutmix_alpha": 1}}, ValueError, "cutmix_alpha, which is off"),
        ({"schedule": lambda e: -1.0}, ValueError, "mixup_alpha: expected a number in"),
        ({"num_classes": {"a": 0}}, ValueError, "num_classes: expected an int >= 1"),
        ({"num_classes": "five"}, TypeError, "num_classes: expected an int"),
        ({"ignore_index": 0.5}, TypeError, "ignore_index: expected an int"),
        ({"images": ()}, ValueError, "images: expected at least one"),
    ],
)
def test_bad_options(options, error, says):
    with pytest.raises(error, match=says):
        BatchMix(**{"num_classes": K, **options})


X, Y = torch.zeros(4, 3, 8, 8), torch.arange(4)


@pytest.mark.parametrize(
    ("options", "inputs", "error", "says"),
    [
        ({}, (), TypeError, "got nothing"),
        ({"labels": 1}, ([X],), ValueError, "labels: expected 1 in the batch, got 1 entries"),
        ({}, ({"image": X, "class": Y},), ValueError, r"labels: expected one of.*or labels=\(\)"),
        ({"images": "rgb"}, ({"image": X, "y": Y},), ValueError, "images: expected 'rgb'"),
        ({}, (X, Y + K), IndexError, "labels: expected class indices"),
        ({}, (X[:3], Y), ValueError, r"images\[0\]: expected a batch of 4"),
        ({}, (X.long(), Y), TypeError, "name class maps as masks"),
        ({}, (X.to("meta"), Y), ValueError, "expected it on cpu like this BatchMix"),
        ({}, (X, Y.to("meta")), ValueError, "labels: expected it on cpu like this BatchMix"),
        ({"spatial_dims": 3}, (X[:, 0].clone(), Y), ValueError, "expected 3 spatial dims"),
        ({}, (X.clone().requires_grad_(), Y), ValueError, "use inplace=False"),
        ({"cutmix_alpha": 1.0}, (X[:, 0, 0].clone(), Y), ValueError, "set spatial_dims=1"),
        ({"masks": 2, "mixup_alpha": 0.0, "cutmix_alpha": 1.0}, (X, Y, X[..., 1:].long()),
         ValueError, "its last sizes"),
    ],
)  # fmt: skip
def test_bad_batches_before_a_step_is_taken(options, inputs, error, says):
    mix = BatchMix(K, **options)
    with pytest.raises(error, match=says):
        mix(*inputs)
    assert torch.equal(mix.state, fm.plan_state(0))
