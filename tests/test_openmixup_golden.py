"""Golden draws, masks and results of OpenMixup 0.2.10, for machines that do not have it."""

# ruff: noqa: NPY002  (the legacy generator is the one that OpenMixup draws from)

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
import torch
from openmixup_cases import call, pretended_opencv, seed_all, setting

from fused_mixup import openmixup
from fused_mixup.openmixup import fmix, gridmix, tokenmix
from fused_mixup.openmixup.draws import draw_cut_box, draw_scale


def digest(mask):
    return hashlib.md5(np.ascontiguousarray(mask, np.uint8).tobytes()).hexdigest()[:8]


def shown(mix, sides, **keywords):
    """The mask of a mix, and λ: the images are 1, 2 and 3, and the mask is returned as well."""
    x = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1).expand(3, 1, *sides).contiguous()
    (out, mask), (_, _, lam) = mix(x.clone(), torch.arange(3), return_mask=True, **keywords)
    assert out.shape == x.shape
    return mask[0, 0].numpy(), lam


@pytest.mark.parametrize("compat", [False, True])
def test_golden_fmix(compat):
    for seed, size, lam, ones, md5, after in [
        (0, (32, 32), 0.4491252645, 460, "330cd8db", (0.3970136668, 0.7579544029)),
        (1, (24, 40), 0.0003781649, 0, "e2b1e53f", (0.2428915750, 0.8474337369)),
    ]:
        seed_all(seed)
        mask, drawn = shown(fmix, size, size=size, compat=compat)
        assert round(float(drawn), 10) == lam and type(drawn) is np.float64
        assert int(mask.sum()) == ones and digest(mask) == md5
        assert (round(np.random.random(), 10), round(random.random(), 10)) == after


def test_golden_gridmix():
    seed_all(0)
    mask, lam = shown(
        gridmix, (32, 32), alpha=1.0, n_holes=(2, 6), cut_area_ratio=(0.5, 1),
        cut_aspect_ratio=(0.5, 2), compat=True,
    )  # fmt: skip
    assert int(mask.sum()) == 330 and digest(mask) == "8e4c179b"
    assert round(np.random.random(), 10) == 0.7991585642
    assert lam.dtype == torch.float32 and float(lam) == np.float32(1 - np.float32(330 / 1024))


@pytest.mark.parametrize(("seed", "block", "cells", "after"), [
    (0, "745678a5", "54a206a4", 0.4426933591),
    (1, "51de346c", "b8d408d8", 0.7431466604),
])  # fmt: skip
def test_golden_tokenmix(seed, block, cells, after):
    seed_all(seed)
    mask, _ = draws_of_tokenmix("block")
    assert mask.sum() == 112 and digest(mask) == block
    mask, _ = draws_of_tokenmix("random")
    assert mask.sum() == 112 and digest(mask) == cells
    assert round(random.random(), 10) == after


def draws_of_tokenmix(mask_type):
    x = torch.zeros(2, 1, 14, 14)
    (_, mask), target = tokenmix(x, torch.arange(2), lam=0.5, mask_type=mask_type, return_mask=True)
    return mask[0, 0].numpy(), target


def test_golden_resizemix():
    seed_all(0)
    tau = draw_scale((0.1, 0.8), 1.0, None, False, True)
    assert tau == 0.48416945274912737
    assert draw_cut_box((32, 32), tau) == (14, 0, 28, 7)


# Images and next draws of OpenMixup 0.2.10 itself, for the first three settings. Images hold whole
# numbers, whose mixes do not depend on the instruction set.
RECORDED = {
    "attentivemix": "1af3f8a8 c3ebb81a 757fb27b",
    "cutmix": "a84407af 9c72ad27 fbe52c10",
    "fmix": "8d17efd3 3be6198e cdab684b",
    "gridmix": "82585a4e 65258e1b 1e0db16b",
    "mixpro": "887a41d6 f46561f4 92e69ac8",
    "mixup": "ab17b1a9 7c167fb2 6667983d",
    "resizemix": "43f1eae9 03f75fa6 02f60be4",
    "saliencymix": "e5935039 ee0fb3eb 1c74affe",
    "smmix": "0de804b2 0c16eede 3548a7bb",
    "tla": "22e6f70e acef302f dcf18d14",
    "tokenmix": "fcad23cf 1803e97b 46f3c126",
    "transmix": "bd22ef25 52f58c07 82c57849",
}


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_results_recorded_from_openmixup(name):
    with pretended_opencv():
        assert [recorded(getattr(openmixup, name), name, k, compat=True) for k in range(3)] == (
            RECORDED[name].split()
        )


def recorded(function, name, number, **compat):
    arguments, keywords = setting(name, number)
    x = (torch.arange(arguments[0].numel()) % 251).view(arguments[0].shape).float()
    returned, given, draws = call(function, (x, *arguments[1:]), keywords | compat, number)
    out = hashlib.md5(returned[0].contiguous().numpy().tobytes())
    out.update(repr([round(float(draw), 6) for draw in draws]).encode())
    return out.hexdigest()[:8]
