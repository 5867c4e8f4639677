"""What ``fused_mixup.openmixup`` refuses: by name, before a number is drawn or a pixel written."""

# ruff: noqa: NPY002  (the legacy generator is the one that OpenMixup draws from)

from __future__ import annotations

import inspect
import random
import re

import numpy as np
import pytest
import torch
from openmixup_cases import SETTINGS, seed_all

from fused_mixup import openmixup

MANY = torch.ones(2, 1, 5, 5)
HOSTILE = ["x", None, [1, 2, 3], float("nan"), -1, 1j, (3, 2), {}, MANY, MANY.bool(), np.ones(2)]
# What no mix reads, what no check can know beforehand, and what is read as true or false.
UNREAD = {"grid_scale", "guided_type", "t_batch_size", "kwargs"}
FLAGS = {"return_mask", "reformulate", "use_alpha", "transport"}


def states():
    kind, words, at, *_ = np.random.get_state()
    return words.tobytes(), at, random.getstate(), torch.default_generator.get_state().tolist()


def call_of(name):
    """The arguments of a valid call, by name."""
    mix = getattr(openmixup, name)
    arguments, keywords = SETTINGS[name](random.Random(3))
    bound = inspect.signature(mix).bind(*arguments, **keywords).arguments
    unread = bound.pop("kwargs", {})
    return mix, bound | unread


@pytest.mark.parametrize("name", openmixup.__all__)
def test_bad_arguments_are_named_before_anything_happens(name):
    mix, valid = call_of(name)
    if name == "saliencymix":
        valid["saliency"] = torch.ones(valid["img"].shape[-2:])
    refused = 0
    for argument in inspect.signature(mix).parameters.keys() - UNREAD - FLAGS:
        for value in HOSTILE:
            image = valid["img"].clone()
            seed_all(0)
            before = states()
            error = failure(mix, valid | {"img": image, argument: value})
            if error is None or re.search("needs (the graph cut|OpenCV)", str(error)):
                continue  # what was given may be right, and what it needs is not installed
            refused += 1
            named = str(error).split(":")[0]
            assert isinstance(error, (TypeError, ValueError, AssertionError)), error
            # Images of another shape are right where labels or maps are wrong.
            assert argument in named or (argument == "img" and named in valid), error
            assert states() == before and torch.equal(image, valid["img"]), error
    assert refused > 40


def failure(mix, call):
    try:
        mix(**call)
    except Exception as error:
        return error


X, Y = torch.zeros(2, 3, 28, 28), torch.arange(2)


@pytest.mark.parametrize(
    ("mix", "keywords", "message"),
    [
        ("mixup", {"alhpa": 0.2}, "alhpa: expected one of the keywords of mixup.*mean alpha?"),
        ("cutmix", {"returnmask": True}, "returnmask: .*did you mean return_mask?"),
        ("gridmix", {"n_hole": 3}, "n_hole: .*did you mean n_holes?"),
        ("mixpro", {"features": MANY}, "features: .*leave it out"),
        ("mixup", {"grid_size": 32}, "grid_size: expected"),
    ],
)
def test_unknown_keywords(mix, keywords, message):
    with pytest.raises(TypeError, match=message):
        getattr(openmixup, mix)(X, Y, **keywords)


def test_keywords_of_openmixups_models_are_taken():
    """Its ``mixup_classification.py`` hands them over, and its functions do not read them."""
    openmixup.mixup(X, Y, 0.2, dist_mode=False, return_mask=False, idx_shuffle_mix=None)
    features = torch.rand(2, 4, 7, 7)
    openmixup.attentivemix(X, Y, features=features, grid_size=32, beta=8)
    openmixup.tokenmix(X, Y, num_classes=None, smoothing=0.1)
    openmixup.mixpro(X, Y, mask_mix=True, num_class=None)
    openmixup.smmix(X, Y, torch.rand(2, 1, 197, 197), alpha=1.0)
    openmixup.transmix(X, Y, mix_mode="cutmix")


@pytest.mark.parametrize(
    ("mix", "keywords", "message"),
    [
        ("transmix", {"mask": torch.full((2, 1, 28, 28), 2.0)}, "mask: expected numbers in"),
        ("transmix", {"mask": torch.ones(2, 1, 7, 7)}, r"mask: expected \[N or 1, 1, 28, 28\]"),
        ("transmix", {"attn": torch.ones(2, 1, 5, 5), "patch_shape": (2, 3)}, "patch_shape: .*4 p"),
        ("transmix", {"attn": torch.ones(2, 1, 5, 1)}, "attn: expected a class token and one"),
        ("gridmix", {"n_holes": (4, 2)}, "n_holes: expected bounds in order"),
        ("gridmix", {"cut_area_ratio": (0.5, -1)}, "cut_area_ratio: expected numbers above 0"),
        ("resizemix", {"interpolate_mode": "linear"}, "interpolate_mode: expected 'nearest'"),
        ("smmix", {"attn": torch.ones(2, 1, 10, 10), "side": 3}, "min_side_ratio: .*got 0.25"),
        ("mixpro", {"num_classes": 1}, "gt_label: expected classes below num_classes=1"),
        ("mixpro", {"mask_patch_size": 24, "attn": torch.ones(2, 1, 2, 2)}, "a multiple of model"),
        ("puzzlemix", {"alpha": -1.0}, "alpha: expected a number above 0"),
        ("puzzlemix", {"block_num": 1}, "block_num: expected more than 1"),
        ("puzzlemix", {"block_num": 9}, "block_num: expected at most 28 blocks"),
        ("puzzlemix", {"t_size": 0}, "t_size: expected pixels"),
        ("puzzlemix", {"adv_mask1": 1.0}, "noise: expected a tensor like img"),
        ("puzzlemix", {"mean": torch.ones(3)}, r"mean: expected a tensor \[1, 3, 1, 1\]"),
        ("snapmix", {"gt_label": torch.eye(2)}, "gt_label: expected class indices"),
        ("alignmix", {"eps": 0.0}, "eps: expected a number above 0"),
    ],
)  # fmt: skip
def test_bad_values(mix, keywords, message):
    if mix in ("puzzlemix", "snapmix"):
        keywords = {"features": torch.ones(2, 28, 28)} | keywords
    before = states()
    with pytest.raises(ValueError, match=message):
        getattr(openmixup, mix)(**({"img": X, "gt_label": Y} | keywords))
    assert states() == before
