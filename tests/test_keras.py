"""``fused_mixup.keras`` against the Keras that is installed: the same seeds, every bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from benchmarks import installed_peers

keras = installed_peers.keras()
if isinstance(keras, str):
    pytest.skip(keras, allow_module_level=True)
import fused_mixup.keras as ours  # noqa: E402

NAMES = ("MixUp", "CutMix", "RandomErasing")
HALVES = ("float16", "bfloat16")
ROUNDS, EACH = 5, 84  # 3 · 5 · 84 = 1260 settings


def pair(name, compat=False, **options):
    """Keras' layer and ours."""
    layers = getattr(keras.layers, name), getattr(ours, name)
    return layers[0](**options), layers[1](**options, compat=compat)


def equal(a, b):
    return (
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    )


def setting(name, rng):
    """Options of a layer, and a batch."""
    b, h, w = rng.randint(1, 6), rng.choice([1, 5, 8, 30, 290]), rng.choice([1, 3, 7, 32, 60])
    c, last = rng.choice([1, 3, 4]), rng.random() < 0.6
    dtype = rng.choice(["float32", "float32", "float64", *HALVES])
    options = {"seed": rng.randint(0, 10**6)}
    options["data_format"] = "channels_last" if last else "channels_first"
    if name == "MixUp":
        options["alpha"] = rng.choice([0.2, 1.0, 1e-3, 5.0])
    elif name == "CutMix":
        options["factor"] = rng.choice([1.0, 0.0, 0.3, (0.2, 0.9), (0.5, 3.0)])
        dtype = "float32" if dtype in HALVES else dtype  # Keras cannot draw in half precision
    else:
        colors = [None, 7, 300.0, [1, 2.5, 900]] if c == 3 and last else [None, 7, 300.0]
        options["fill_value"] = rng.choice(colors)
        options["factor"] = rng.choice([1.0, 0.5, (0.9, 1)])
        options["scale"] = rng.choice([(0.02, 0.33), (0.5, 1.0), 0.4])
        options["value_range"] = rng.choice([(0, 255), (-1, 1)])
    options["dtype"] = dtype
    images = 255 * torch.rand(b, h, w, c)
    images = images if last else images.permute(0, 3, 1, 2)
    if rng.random() < 0.3:
        images = images.to(torch.uint8)
    batch = {"images": images, "labels": torch.rand(b, 5)}
    if rng.random() < 0.5 and name != "MixUp":
        batch["segmentation_masks"] = (images[..., :1] if last else images[:, :1]).to(torch.int32)
    if name != "CutMix" and rng.random() < 0.2:
        batch = {k: v[0] for k, v in batch.items()}
    return options, batch


@pytest.mark.parametrize("part", range(ROUNDS))
@pytest.mark.parametrize("name", NAMES)
def test_equals_keras(name, part):
    mixed = 0
    for n in range(part * EACH, (part + 1) * EACH):
        torch.manual_seed(n)
        options, batch = setting(name, random.Random(f"{name} {n}"))
        compat = n % 2 == 0
        theirs, layer = pair(name, compat, **options)
        want, got = theirs(dict(batch)), layer(dict(batch))
        assert want.keys() == got.keys()
        assert torch.equal(theirs.generator.state.value, layer.generator.state.value)
        rounded = name == "MixUp" and options["dtype"] in HALVES and not compat
        assert rounded or equal(want["images"], got["images"]), (n, options)
        if name != "CutMix" or compat:
            assert equal(want["labels"], got["labels"]), (n, options)
        if "segmentation_masks" in batch:
            theirs_masks, masks = want["segmentation_masks"], got["segmentation_masks"]
            if name == "CutMix" and not compat:  # Keras repeats the one channel
                axis = -1 if options["data_format"] == "channels_last" else 1
                theirs_masks = theirs_masks.narrow(axis, 0, 1)
            assert equal(theirs_masks, masks), (n, options)
        mixed += not torch.equal(got["images"].float(), batch["images"].float())
    assert mixed > EACH // 5  # else nothing was compared


def test_labels_of_cutmix_weigh_pixels():
    x = torch.arange(6.0)[:, None, None, None].expand(6, 13, 17, 1)
    y = torch.eye(6)
    strange = 0
    for seed in range(30):
        theirs, layer = pair("CutMix", seed=seed)
        out, want = layer({"images": x, "labels": y}), theirs({"images": x, "labels": y})
        seen = torch.stack([(out["images"] == k).float().mean((1, 2, 3)) for k in range(6)], 1)
        assert torch.allclose(out["labels"], seen, atol=1e-6)
        strange += not torch.allclose(want["labels"], seen, atol=1e-3)
    assert strange > 15


def test_half_precision_mixup_is_nearer_to_the_exact_values():
    x, y = torch.rand(8, 16, 16, 3).bfloat16(), torch.eye(8)
    theirs, layer = pair("MixUp", seed=2, alpha=1.0, dtype="bfloat16")
    draw = keras.layers.MixUp(seed=2, alpha=1.0).get_random_transformation(x)
    lam, p = draw["mix_weight"].double().view(-1, 1, 1, 1), draw["permutation_order"]
    exact = lam * x.double() + (1 - lam) * x[p].double()
    own = layer({"images": x, "labels": y})["images"]
    # The kernels compute in float32, so a value half-way may fall to the other side.
    assert (own == exact.bfloat16()).float().mean() > 0.999
    assert (theirs(x) == exact.bfloat16()).float().mean() < 0.9


@pytest.mark.parametrize("dtype", HALVES)
def test_cutmix_draws_in_float32_where_keras_cannot(dtype):
    x = torch.rand(4, 9, 9, 3)
    mixed = ours.CutMix(seed=1, dtype=dtype)({"images": x, "labels": torch.eye(4)})
    plain = ours.CutMix(seed=1)({"images": x, "labels": torch.eye(4)})
    assert equal(mixed["images"], plain["images"].to(getattr(torch, dtype)))
    assert torch.equal(mixed["labels"].float(), plain["labels"])
    for layer in pair("CutMix", compat=True, dtype=dtype):
        with pytest.raises(NotImplementedError):
            layer(x)


# ------------------------------------------------------------------ where Keras is wrong


def drawn(x, **options):
    draw = keras.layers.MixUp(**options).get_random_transformation(x)
    return draw["mix_weight"], draw["permutation_order"]


def test_mixup_masks_are_blended_with_the_partners_masks():
    x, masks = torch.rand(4, 6, 6, 3), torch.rand(4, 6, 6, 1)
    theirs, layer = pair("MixUp", seed=1, alpha=1.0)
    lam, p = drawn(x, seed=1, alpha=1.0)
    batch = {"images": x, "segmentation_masks": masks}
    w = lam.view(-1, 1, 1, 1)
    assert torch.equal(layer(dict(batch))["segmentation_masks"], w * masks + (1 - w) * masks[p])
    wrong = theirs(dict(batch))["segmentation_masks"]
    assert wrong.shape == (4, 6, 6, 4)
    same = ours.MixUp(seed=1, alpha=1.0, compat=True)(dict(batch))["segmentation_masks"]
    assert equal(same, wrong)
    flat = ours.MixUp(seed=1, alpha=1.0)({"images": x, "segmentation_masks": masks[..., 0]})
    assert torch.equal(flat["segmentation_masks"], (w * masks + (1 - w) * masks[p])[..., 0])


def test_mixup_joins_the_labels_of_boxes_as_it_joins_boxes():
    x, boxes, labels = torch.rand(4, 6, 6, 3), torch.rand(4, 2, 4), torch.arange(8).view(4, 2)
    options = {"seed": 1, "bounding_box_format": "rel_xyxy"}
    theirs, layer = pair("MixUp", **options)
    batch = lambda: {"images": x, "bounding_boxes": {"boxes": boxes, "labels": labels}}  # noqa: E731
    _, p = drawn(x, seed=1)
    got, want = layer(batch())["bounding_boxes"], theirs(batch())["bounding_boxes"]
    assert equal(got["boxes"], want["boxes"])
    assert torch.equal(got["labels"], torch.cat((labels, labels[p]), 1))
    assert want["labels"].shape == (8, 2)
    same = ours.MixUp(**options, compat=True)(batch())["bounding_boxes"]
    assert equal(same["labels"], want["labels"])


@pytest.mark.parametrize("name", NAMES[:2])
def test_class_indices_are_refused(name):
    batch = {"images": torch.rand(4, 6, 6, 3), "labels": torch.arange(4)}
    theirs, layer = pair(name, seed=1)
    wrong = theirs(dict(batch))["labels"]
    assert wrong.shape == (4, 4)  # one row for each sample, of all samples' indices
    with pytest.raises(TypeError, match="labels: expected one-hot or soft labels"):
        layer(dict(batch))
    assert equal(pair(name, compat=True, seed=1)[1](dict(batch))["labels"], wrong)


def test_three_values_fill_three_channels_of_channels_first():
    x = torch.rand(2, 3, 8, 8)
    options = {"fill_value": (1, 2, 3), "seed": 3, "scale": (0.5, 0.6), "factor": (1.0, 1.0)}
    theirs, layer = pair("RandomErasing", data_format="channels_first", **options)
    got = layer(x)
    last = ours.RandomErasing(**options)(x.permute(0, 2, 3, 1))
    assert torch.equal(got, last.permute(0, 3, 1, 2)) and bool((got == 3).any())
    for wrong in (theirs, pair("RandomErasing", True, data_format="channels_first", **options)[1]):
        with pytest.raises(RuntimeError):
            wrong(x)


def test_three_values_for_one_channel():
    x, options = torch.rand(2, 8, 8, 1), {"fill_value": (1, 2, 3), "seed": 3}
    theirs, layer = pair("RandomErasing", **options)
    wrong = theirs(x)
    assert wrong.shape == (2, 8, 8, 3)
    assert equal(pair("RandomErasing", True, **options)[1](x), wrong)
    with pytest.raises(RuntimeError, match="fill_value: expected a number for images of 1"):
        layer(x)


def test_an_int_alpha():
    x = torch.rand(3, 4, 4, 3)
    theirs, layer = pair("MixUp", alpha=1, seed=0)
    assert torch.equal(layer(x), keras.layers.MixUp(alpha=1.0, seed=0)(x))
    with pytest.raises(NotImplementedError):
        theirs(x)


# ------------------------------------------------------------------ refused input


def labelled(**more):
    return {"images": torch.rand(4, 6, 6, 3), **more}


REFUSED = {
    "alpha 0": ("MixUp", {"alpha": 0}, labelled()),
    "alpha below 0": ("MixUp", {"alpha": -1.0}, labelled()),
    "alpha of a word": ("MixUp", {"alpha": "x"}, labelled()),
    "factor above 1": ("CutMix", {"factor": 1.5}, labelled()),
    "three factors": ("CutMix", {"factor": (0, 1, 2)}, labelled()),
    "no factor": ("CutMix", {"factor": None}, labelled()),
    "scale": ("RandomErasing", {"scale": 2}, labelled()),
    "two values": ("RandomErasing", {"fill_value": [1, 2]}, labelled()),
    "a word as value": ("RandomErasing", {"fill_value": "x"}, labelled()),
    "three values, four channels": (
        "RandomErasing",
        {"fill_value": [1, 2, 3]},
        torch.rand(2, 6, 6, 4),
    ),
    "no images in MixUp's batch": ("MixUp", {}, torch.rand(0, 6, 6, 3)),
    "no images in CutMix's batch": ("CutMix", {}, torch.rand(0, 6, 6, 3)),
    "seed": ("MixUp", {"seed": "a"}, labelled()),
    "boxes of CutMix": (
        "CutMix",
        {"bounding_box_format": "xyxy"},
        labelled(bounding_boxes={"boxes": torch.rand(4, 2, 4), "labels": torch.ones(4, 2)}),
    ),
    "boxes without a format": (
        "MixUp",
        {},
        labelled(bounding_boxes={"boxes": torch.rand(4, 2, 4), "labels": torch.ones(4, 2)}),
    ),
    "masks of another size": (
        "CutMix",
        {},
        labelled(segmentation_masks=torch.rand(4, 12, 12, 1)),
    ),
    **{f"{name}, 2 dims": (name, {}, torch.rand(4, 4)) for name in NAMES},
    **{f"{name}, 5 dims": (name, {}, torch.rand(2, 2, 4, 4, 3)) for name in NAMES},
    **{f"{name}, a word": (name, {}, "x") for name in NAMES},
    **{f"{name}, None": (name, {}, None) for name in NAMES},
    **{f"{name}, no images": (name, {}, {"labels": torch.rand(4, 2)}) for name in NAMES},
}


@pytest.mark.usefixtures("checked_distributions")
@pytest.mark.parametrize("case", REFUSED)
def test_what_keras_refuses_is_refused_alike(case):
    name, options, data = REFUSED[case]

    def error(layers):
        given = dict(data) if isinstance(data, dict) else data
        with pytest.raises(Exception) as caught:
            getattr(layers, name)(**options)(given)
        return caught.value

    assert type(error(ours)) is type(error(keras.layers))


def test_nothing_is_drawn_before_an_error():
    for layer, data in (
        (ours.CutMix(seed=1), torch.rand(2, 2, 4, 4, 3)),
        (ours.MixUp(seed=1), torch.rand(4, 4)),
        (ours.RandomErasing(seed=1, fill_value="x"), torch.rand(2, 4, 4, 3)),
    ):
        with pytest.raises(ValueError, match="expected"):
            layer(data)
        assert layer.generator.state.value.tolist() == [1, 0]


def test_masks_of_integers_and_a_wrong_compat():
    masks = torch.zeros(4, 6, 6, 1, dtype=torch.uint8)
    with pytest.raises(TypeError, match="segmentation_masks: expected floats"):
        ours.MixUp()(labelled(segmentation_masks=masks))
    for name in NAMES:
        with pytest.raises(ValueError, match="compat: expected True or False"):
            getattr(ours, name)(compat="3.15")


def test_a_pipeline_of_tensorflow_is_refused():
    layer = ours.CutMix()
    layer.backend.set_backend("tensorflow")
    with pytest.raises(TypeError, match="got a pipeline of tensorflow"):
        layer.get_random_transformation(np.zeros((2, 4, 4, 3)))
