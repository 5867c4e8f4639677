"""Times fused_mixup.kornia against Kornia: whole calls with the same draws.

A call draws, mixes the images and pairs labels or moves masks. Ours are subclasses of Kornia's, so
without Kornia there is no case.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from .. import installed_peers
from ..registry import Case, Work
from .drop_ins import SEED_TORCH, compare, images

LABELLED = {"data_keys": ["input", "class"]}
CLASSES_OF_MASKS = 20
CELL = 28  # pixels along a side of an object in a mask
SETTINGS: dict[str, dict[str, Any]] = {
    "RandomMixUpV2": LABELLED,
    "RandomCutMixV2": LABELLED | {"use_correct_lambda": True},
    "PatchMix": {},
    "RandomMosaic": {"p": 1.0},
    "RandomJigsaw": {"p": 1.0},
    "RandomTransplantation": {"p": 1.0},
}
GOALS = {"RandomMixUpV2": "cpu kornia mixup", "RandomCutMixV2": "cpu kornia cutmix"}


def call(case: Case, device: str, name: str) -> Work:
    from fused_mixup import kornia as ours

    xs, labels = images(case, device)
    more = []
    if "data_keys" in SETTINGS[name]:
        more = [labels]
    elif name == "RandomTransplantation":
        batch, _, height, width = case.shape
        cells = batch, -(-height // CELL), -(-width // CELL)
        mask = torch.randint(CLASSES_OF_MASKS, cells, device=device)
        mask = mask.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
        more = [mask[:, :height, :width].contiguous()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, theirs = (getattr(m, name)(**SETTINGS[name]) for m in (ours, peer_module()))
    return compare("Kornia", lambda x: mine(x, *more), lambda x: theirs(x, *more), SEED_TORCH, xs)


def peer_module() -> Any:
    found = installed_peers.kornia()
    assert not isinstance(found, str), found
    return found


def cases(device: str) -> Iterator[Case]:
    if importlib.util.find_spec("kornia") is None:
        return
    shape = (64, 3, 224, 224)
    for name in SETTINGS:
        goals = (GOALS[name],) if device == "cpu" and name in GOALS else ()
        build = partial(call, name=name)
        variant = "whole call"
        yield Case(f"kornia.{name}", variant, shape, torch.float32, build, "kornia", ("Kornia",),
                   goals=goals)  # fmt: skip
