"""Random calls of OpenMixup's mixes, and what a call leaves behind."""

# ruff: noqa: NPY002  (the legacy generator is the one that OpenMixup draws from)

from __future__ import annotations

import random
import sys
import types
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import torch

SIDES = (8, 9, 16, 31, 32, 20)


def seed_all(seed):
    np.random.seed(seed)
    random.seed(seed)
    torch.default_generator.manual_seed(seed)


def next_draws():
    """One number of each generator: equal where equally much was drawn."""
    return np.random.random(), random.random(), float(torch.rand(1))


def call(function, arguments, keywords, seed):
    """(what it returned, flat; the images that it was given; the next draws)."""
    given = arguments[0].clone()
    seed_all(seed)
    result = function(given, *arguments[1:], **keywords)
    return flat(result), given, next_draws()


def flat(result):
    if isinstance(result, (tuple, list)):
        return [value for part in result for value in flat(part)]
    return [result]


def difference(ours, theirs):
    """How two values differ, or None: type, dtype, shape and every bit."""
    if type(ours) is not type(theirs):
        return f"{type(ours).__name__}, expected {type(theirs).__name__}"
    if isinstance(ours, torch.Tensor):
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            return f"{ours.dtype} {list(ours.shape)}, not {theirs.dtype} {list(theirs.shape)}"
        return None if torch.equal(ours, theirs) else "values"
    return None if ours == theirs else f"{ours!r}, expected {theirs!r}"


# ------------------------------------------------------------------ settings


def batch(rng, square=False, views=0.2, dtypes=(torch.float32,)):
    """Images, perhaps two views of each, and labels; seeded by ``rng``."""
    h = rng.choice(SIDES)
    w = h if square or rng.random() < 0.5 else rng.choice(SIDES)
    b, generator = rng.choice([1, 2, 3, 4, 6]), seeded(rng)
    shape = (b, 2, 3, h, w) if rng.random() < views else (b, 3, h, w)
    x = torch.randn(shape, generator=generator).to(rng.choice(dtypes))
    return x, torch.randint(0, 5, (b,), generator=generator)


def seeded(rng):
    return torch.Generator().manual_seed(rng.randrange(1 << 30))


def common(rng, mask=True):
    keywords = {"alpha": rng.choice([0.2, 0.5, 1.0, 2.0])}
    if rng.random() < 0.3:
        keywords["lam"] = rng.choice([0.0, 1.0, 0.3, 0.77])
    if mask and rng.random() < 0.5:
        keywords["return_mask"] = True
    return keywords


def _mixup(rng):
    return batch(rng), common(rng, mask=False)


def _cutmix(rng):
    return batch(rng, dtypes=(torch.float32, torch.float64, torch.float16)), common(rng)


def _resizemix(rng):
    # Sides of 8 to 9 with τ 0.1 have no pixels: OpenMixup raises.
    scope = rng.choice([(0.1, 0.8), (0.3, 0.9)])
    mode = rng.choice(["nearest", "nearest", "bilinear"])
    more = {"scope": scope, "use_alpha": rng.random() < 0.5, "interpolate_mode": mode}
    return batch(rng, square=rng.random() < 0.8), common(rng) | more


def _fmix(rng):
    x, y = batch(rng)
    more = {
        "size": tuple(x.shape[-2:]) if rng.random() < 0.9 else x.shape[-1],
        "max_soft": rng.choice([0.0, 0.0, 0.2, 0.5]),
        "decay_power": rng.choice([3, 3, 1.5]),
        "reformulate": rng.random() < 0.2,
    }
    return (x, y), common(rng) | more


def _gridmix(rng):
    more = {
        "n_holes": (2, rng.choice([2, 3])),
        "hole_aspect_ratio": rng.choice([1.0, (1, 2)]),
        "cut_area_ratio": (0.5, 1),
        "cut_aspect_ratio": (0.5, 2),
    }
    return batch(rng), common(rng) | more


def _smoothmix(rng):
    n, b, generator = rng.choice([8, 16, 32]), rng.choice([1, 2, 4]), seeded(rng)
    shape = (b, 2, 3, n, n) if rng.random() < 0.2 else (b, 3, n, n)
    x = torch.randn(shape, generator=generator)
    return (x, torch.randint(0, 5, (b,), generator=generator)), common(rng)


def _tla(rng):
    patch = rng.choice([2, 4])
    x, y = batch(rng)
    h, w = (n // patch * patch for n in x.shape[-2:])
    return (x[..., :h, :w].contiguous(), y), common(rng) | {"patch_size": patch}


def _attentivemix(rng):
    n, b, generator = rng.choice([8, 9, 16, 28, 32]), rng.choice([1, 2, 4]), seeded(rng)
    g = rng.choice([3, 4, 7, 8])
    dtype = rng.choice([torch.float32, torch.float64, torch.float16])
    x = torch.randn(b, 3, n, n, generator=generator).to(dtype)
    features = torch.randn(b, 5, g, g, generator=generator)
    more = {"features": features, "top_k": rng.choice([None, 2, 6]), "beta": 8, "grid_size": 32}
    return (x, torch.randint(0, 5, (b,), generator=generator)), common(rng) | more


def _transmix(rng):
    x, y = batch(rng)
    keywords, generator = common(rng), seeded(rng)
    if "lam" in keywords or rng.random() < 0.4:  # OpenMixup takes λ with a mask alone
        mask = torch.rand(len(x), 1, *x.shape[-2:], generator=generator) < 0.5
        keywords["mask"] = mask.float()
    if rng.random() < 0.7:
        grid = rng.choice([2, 3, 4]), rng.choice([2, 4])
        tokens = grid[0] * grid[1] + 1
        keywords["attn"] = torch.rand(len(x), 2, tokens, tokens, generator=generator)
        keywords["patch_shape"] = grid
    return (x, y), keywords | {"ratio": rng.choice([0.5, 0.3])}


def _tokenmix(rng):
    b, generator = rng.choice([1, 2, 4]), seeded(rng)
    sides = rng.choice([14, 28, 32]), rng.choice([14, 20, 28])
    shape = (b, 2, 3, *sides) if rng.random() < 0.2 else (b, 3, *sides)
    more = {"mask_type": rng.choice(["block", "random"]), "minimum_tokens": rng.choice([14, 0, 5])}
    x = torch.randn(shape, generator=generator)
    attn = torch.rand(b, 2, 197, 197, generator=generator)
    return (x, torch.randint(0, 5, (b,), generator=generator), attn), common(rng) | more


def _mixpro(rng):
    n, b, generator = rng.choice([8, 12, 16, 24]), rng.choice([2, 4]), seeded(rng)
    cell, patch = rng.choice([4, 8]), rng.choice([2, 4])
    tokens = (n // patch) ** 2 + 1
    x = torch.randn(b, 3, n, n, generator=generator)
    attn = torch.rand(b, 2, tokens, tokens, generator=generator)
    # OpenMixup's soft labels want as many samples as classes.
    more = {"num_classes": b, "mask_patch_size": cell, "model_patch_size": patch}
    return (x, torch.randint(0, b, (b,), generator=generator), attn), common(rng) | more


def _smmix(rng):
    side, b, generator = rng.choice([4, 7, 14]), rng.choice([1, 2, 3, 4]), seeded(rng)
    patch = rng.choice([1, 2, 3])
    n = side * patch + (rng.choice([0, 1]) if patch > 1 else 0)
    x = torch.randn(b, 3, n, n, generator=generator)
    attn = torch.rand(b, 2, side**2 + 1, side**2 + 1, generator=generator)
    keywords = common(rng) | {"side": side}
    del keywords["alpha"]
    return (x, torch.randint(0, 5, (b,), generator=generator), attn), keywords


def _saliencymix(rng):
    return batch(rng), common(rng)


def _puzzlemix(rng):
    n, b, generator = rng.choice([16, 32]), rng.choice([1, 2, 3]), seeded(rng)
    dtype = rng.choice([torch.float32, torch.float32, torch.float16, torch.float64])
    x = torch.randn(b, 3, n, n, generator=generator).to(dtype)
    keywords = {
        "alpha": rng.choice([0.5, 1.0]),
        "features": torch.rand(b, n, n, generator=generator) ** 4,
        "block_num": rng.choice([2, 3, 4, (2, 4)]),
        "n_labels": rng.choice([2, 3, 3, 4]),
        "t_eps": rng.choice([0.01, 0.8, 10.0]),
        "t_size": -1 if n == 32 else rng.choice([-1, 2]),
        "neigh_size": rng.choice([2, 4]),
        "transport": rng.random() < 0.8,
        "t_batch_size": rng.choice([None, 32]),
    }
    if rng.random() < 0.2:
        noise = torch.randn(b, 3, n, n, generator=generator) * 0.1
        keywords |= {"noise": noise, "adv_mask1": rng.choice([0, 1]), "adv_mask2": 1.0}
    return (x, torch.randint(0, 5, (b,), generator=generator)), keywords


def _snapmix(rng):
    x, y = batch(rng, views=0)
    maps = torch.rand(len(x), *x.shape[-2:], generator=seeded(rng))
    if rng.random() < 0.2:
        maps[0] = float("nan")
    return (x, y), {"alpha": rng.choice([0.5, 1.0, 5.0]), "features": maps}


def _guidedmix(rng):
    x, y = batch(rng, views=0)
    maps = torch.rand(len(x), *x.shape[-2:], generator=seeded(rng))
    metric = rng.choice(["l2", "l1", "cosine"])
    return (x, y), common(rng) | {"features": maps, "distance_metric": metric}


def _alignmix(rng):
    b, generator = rng.choice([1, 2, 4]), seeded(rng)
    shape = b, rng.choice([5, 16]), rng.choice([2, 3, 4]), rng.choice([2, 4])
    x = torch.randn(shape, generator=generator) * 0.3
    return (x, torch.randint(0, 5, (b,), generator=generator)), {"alpha": 1.0}


SETTINGS = {
    make.__name__[1:]: make
    for make in (
        _alignmix, _attentivemix, _cutmix, _fmix, _gridmix, _guidedmix, _mixpro, _mixup, _puzzlemix,
        _resizemix, _saliencymix, _smmix, _smoothmix, _snapmix, _tla, _tokenmix, _transmix,
    )
}  # fmt: skip


def setting(name, number):
    """Positional and keyword arguments of call ``number`` of a mix."""
    return SETTINGS[name](random.Random(f"{name} {number}"))


# ------------------------------------------------------------------ OpenCV


@contextmanager
def pretended_opencv(theirs=None):
    """A ``cv2.saliency`` whose map is a channel of the image; also for the module ``theirs``."""

    class Detector:
        def computeSaliency(self, image):
            low, high = image[..., 1].min(), image[..., 1].max()
            return True, (image[..., 1] - low) / (high - low)

    saliency = types.ModuleType("cv2.saliency")
    saliency.StaticSaliencyFineGrained_create = Detector
    package = types.ModuleType("cv2")
    package.saliency = saliency
    name = "StaticSaliencyFineGrained_create"
    with ExitStack() as patches:
        for module, value in {"cv2": package, "cv2.saliency": saliency}.items():
            patches.enter_context(mock.patch.dict(sys.modules, {module: value}))
        if theirs is not None:
            patches.enter_context(mock.patch.object(theirs, name, Detector))
        yield
