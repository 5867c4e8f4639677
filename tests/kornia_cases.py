"""Random settings of Kornia's mixes, and calls that are compared with it."""

from __future__ import annotations

import random
import warnings

import pytest
import torch

from benchmarks import installed_peers

if isinstance(theirs := installed_peers.kornia(), str):
    pytest.skip(theirs, allow_module_level=True)
try:
    from fused_mixup import kornia as ours
except ImportError as error:  # an older Kornia
    pytest.skip(str(error), allow_module_level=True)

NAMES = ours.__all__
HALF = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float32, torch.float32, torch.float64, *HALF)


def _mixup(rng, size):
    return {"lambda_val": rng.choice([None, (0.2, 0.6), (1.0, 1.0), (0.0, 0.0)])}


def _cutmix(rng, size):
    return {
        "num_mix": rng.choice([1, 1, 2, 5]),
        "cut_size": rng.choice([None, (0.1, 0.6)]),
        "beta": rng.choice([None, 0.3, 2.0]),
        "use_correct_lambda": rng.random() < 0.5,
    }


def _patch_mix(rng, size):
    return {"patch_size": rng.randint(1, min(size))}


def _mosaic(rng, size):
    sizes = [None, (rng.randint(1, 60), rng.randint(1, 60))]
    starts = [(0.3, 0.7), (0.0, 1.0), (0.0, 0.0), (0.2, 1.7), (-0.5, 1.0)]
    return {
        "mosaic_grid": rng.choice([(2, 2), (2, 2), (1, 2), (3, 2), (1, 1), (2, 3), (4, 4)]),
        "output_size": rng.choice(sizes),
        "start_ratio_range": rng.choice(starts),
        "cropping_mode": rng.choice(["slice", "slice", "slice", "resample"]),
        "min_bbox_size": rng.choice([0.0, 20.0]),
    }


def _jigsaw(rng, size):
    fits = [(r, c) for r in range(1, 6) for c in range(1, 6) if not (size[0] % r or size[1] % c)]
    grid = rng.choice(fits)
    return {"grid": grid, "ensure_perm": grid != (1, 1) and rng.random() < 0.7}


def _transplantation(rng, size):
    return {"excluded_labels": rng.choice([None, [0], [0, 1, 2]])}


_SETTINGS = {
    "RandomMixUpV2": _mixup,
    "RandomCutMixV2": _cutmix,
    "PatchMix": _patch_mix,
    "RandomMosaic": _mosaic,
    "RandomJigsaw": _jigsaw,
    "RandomTransplantation": _transplantation,
}


def setting(name, number):
    """(options, inputs) of the call with this number."""
    rng = random.Random(f"{name} {number}")
    torch.manual_seed(number)
    size = rng.randint(4, 40), rng.randint(4, 40)
    batch, channels = rng.choice([1, 2, 3, 5, 8]), rng.choice([1, 3])
    options = _SETTINGS[name](rng, size) | {"p": rng.choice([0.0, 0.3, 0.7, 1.0, 1.0])}
    x = torch.randn(batch, channels, *size).to(rng.choice(DTYPES))
    if rng.random() < 0.3:
        x = x.to(memory_format=torch.channels_last)
    elif batch == 1 and rng.random() < 0.5 and name not in ("RandomMosaic", NAMES[-1]):
        x, options["keepdim"] = x[0], rng.random() < 0.7
    inputs = [x]
    if name in ("RandomMixUpV2", "RandomCutMixV2"):
        options["same_on_batch"] = rng.random() < 0.3
        if rng.random() < 0.7:
            options["data_keys"] = ["input", "class"]
            inputs.append(torch.randint(0, 9, (batch,)))
    elif name in ("PatchMix", "RandomJigsaw"):
        options["same_on_batch"] = rng.random() < 0.3
    elif name == "RandomMosaic" and rng.random() < 0.5:
        options["data_keys"] = ["input", "bbox_xyxy"]
        corner = torch.randint(0, 20, (batch, 2, 2)).float()
        inputs.append(torch.cat((corner, corner + torch.randint(1, 20, (batch, 2, 2))), 2))
    elif name == "RandomTransplantation":
        dtype = rng.choice([torch.int64, torch.uint8, torch.int32, torch.float32])
        low = rng.choice([0, 0, -2])
        labels = torch.randint(0 if dtype == torch.uint8 else low, 4, (batch, *size))
        inputs.append(labels.to(dtype))
    return options, inputs


def make(module, name, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # use_correct_lambda=False
        return getattr(module, name)(**options)


def call(mix, inputs, seed=0, **options):
    """([results], the state of the generator afterwards) of a call on copies of the inputs."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mix(*[t.clone() for t in inputs], **options)
    return (found if isinstance(found, list) else [found]), torch.get_rng_state()


def expect_same(got, expected, blended=False):
    """Equal to the bit; half types that are blended, up to Kornia's three roundings."""
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if blended and a.dtype in HALF:
            scale = 1 + float(b.abs().max())
            a, b = a.float(), b.float()
            torch.testing.assert_close(a, b, rtol=0, atol=4 * scale * torch.finfo(got[0].dtype).eps)
        else:
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
