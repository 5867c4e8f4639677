"""Valid arguments of public functions, which ``hostile.py`` spoils: functions that mix."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fused_mixup as fm

B, C, H, W, K = 4, 3, 5, 6, 6
Calls = dict[str, tuple[Callable[..., Any], Callable[[random.Random], dict[str, Any]]]]


def images() -> Tensor:
    return torch.rand(B, C, H, W)


def plan(draw: random.Random) -> fm.MixPlan:
    way = draw.randrange(4)
    if way == 0:
        return fm.MixPlan.uniform(B, draw.choice(("flip", "roll", "self")), 0.3)
    if way == 1:
        return fm.MixPlan.uniform(B, "flip", 0.3, [1, 1, 3, 4])
    partner = torch.tensor([2, 0, 0, 1])
    if way == 2:
        return fm.MixPlan.per_sample(torch.rand(B), partner, [[1, 1, 3, 4]] * B, [True, False] * 2)
    return fm.MixPlan.per_sample(torch.rand(B), partner)


def paste_plan(draw: random.Random) -> fm.MixPlan:
    pairing = draw.choice(("flip", "roll", torch.tensor([2, 0, 0, 1])))
    return fm.MixPlan.per_sample(torch.rand(B), pairing, [[1, 1, 3, 4]] * B, [True] * B)


def labels() -> Tensor:
    return torch.randint(0, K, (B,))


def target(draw: random.Random) -> Any:
    mixed = fm.MixedTarget.from_labels(labels(), plan(draw), K, 0.1)
    return draw.choice((mixed, mixed.dense()))


def state() -> Tensor:
    return fm.plan_state(3)


def box_rows() -> list:
    return [[1, 1, 3, 4]] * B


def model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(C * H * W, K))


def logits(draw: random.Random) -> Tensor:
    return torch.randn(B, K).requires_grad_(draw.random() < 0.5)


MIXES: Calls = {
    "mix_": (fm.mix_, lambda d: {"x": images(), "plan": plan(d)}),
    "mix": (fm.mix, lambda d: {"x": images(), "plan": plan(d), "out": images()}),
    "mix, other": (
        fm.mix,
        lambda d: {"x": images(), "plan": plan(d), "other": images(), "clean": True},
    ),
    "mix_, other": (fm.mix_, lambda d: {"x": images(), "plan": plan(d), "other": images()}),
    "paste_": (fm.paste_, lambda d: {"x": images(), "plan": paste_plan(d)}),
    "mix_labels": (fm.mix_labels, lambda d: {"values": torch.rand(B, 2), "plan": plan(d)}),
    "mix_boxes": (
        fm.mix_boxes,
        lambda d: {
            "boxes": torch.rand(B, 2, 4).cumsum(-1),
            "labels": torch.ones(B, 2).long(),
            "plan": plan(d),
            "size": [H, W],
            "format": "xyxy",
            "min_visible": 0.1,
            "count": torch.tensor([2, 0, 1, 2]),
        },
    ),
    "mix_boxes, lists": (
        fm.mix_boxes,
        lambda d: {
            "boxes": [torch.rand(n, 4).cumsum(-1) for n in (2, 0, 1, 3)],
            "labels": [torch.ones(n).long() for n in (2, 0, 1, 3)],
            "plan": plan(d),
            "size": [H, W],
        },
    ),
    "mix_keypoints": (
        fm.mix_keypoints,
        lambda d: {"points": torch.rand(B, 2, 3, 3), "plan": plan(d), "size": [H, W]},
    ),
    "mix_normalize": (
        fm.mix_normalize,
        lambda d: {
            "images": (255 * images()).byte(),
            "plan": plan(d),
            "mean": [1.0, 2, 3],
            "std": [1.0, 2, 3],
            "flip": torch.tensor([True, False] * 2),
            "erase": fm.random_erasing(B, [H, W], state=state(), prob=1.0),
            "out": images(),
        },
    ),
    "mix_normalize, list": (
        fm.mix_normalize,
        lambda d: {
            "images": list((255 * images()).byte()),
            "plan": plan(d),
            "mean": 0.5,
            "std": 0.2,
        },
    ),
    "mix_patches": (
        fm.mix_patches,
        lambda d: {
            "x": images()[..., :4, :],
            "plan": fm.PatchPlan([[[1], [0]]] * B),
            "out": images()[..., :4, :],
        },
    ),
    "PatchPlan": (
        fm.PatchPlan,
        lambda d: {
            "index": torch.zeros(B, 2, 2).long(),
            "sample": torch.zeros(B).long(),
            "mask": torch.rand(B, 2, 2),
            "partner": [3, 2, 1, 0],
            "weight": None,
        },
    ),
    "mix_rectangles": (
        fm.mix_rectangles,
        lambda d: {
            "x": images(),
            "plan": fm.resize_into(B, (H, W), (1, 1, 3, 4)),
            "other": None,
            "out": images(),
        },
    ),
    "RectanglePlan": (
        fm.RectanglePlan,
        lambda d: {
            "source": [[1, 0]] * B,
            "source_box": [[[0, 0, H, W]] * 2] * B,
            "box": [[[0, 0, 2, 2]] * 2] * B,
            "weight": None,
            "resample": "bilinear",
            "scale": None,
            "fill": None,
            "size": [H, W],
        },
    ),
    "resize_into": (
        fm.resize_into,
        lambda d: {
            "batch_size": B,
            "size": [H, W],
            "box": torch.tensor(box_rows()),
            "partner": [1, 0, 3, 2],
            "resample": "bilinear",
            "tau": 0.4,
        },
    ),
    "ricap_plan": (
        fm.ricap_plan,
        lambda d: {
            "size": [H, W],
            "boundary": [[2, 3]] * B,
            "source": [[0, 1, 2, 3]] * B,
            "start": [[[0, 0]] * 4] * B,
        },
    ),
    "mosaic_plan": (
        fm.mosaic_plan,
        lambda d: {
            "size": [H, W],
            "centre": [[2, 3]] * B,
            "source": [[0, 1, 2, 3]] * B,
            "fill": 114.0,
        },
    ),
    "shifted_cutmix": (
        fm.shifted_cutmix,
        lambda d: {
            "batch_size": B,
            "size": [H, W],
            "box": box_rows(),
            "start": [[0, 0]] * B,
            "partner": "roll",
        },
    ),
    "mix_samples": (
        fm.mix_samples,
        lambda d: {
            "samples": d.choice((list(images()), list(images().numpy()))),
            "plan": plan(d),
            "out": images(),
        },
    ),
    "mix_targets": (
        fm.mix_targets,
        lambda d: {
            "labels": labels(),
            "plan": plan(d),
            "num_classes": K,
            "label_smoothing": 0.1,
            "dtype": torch.float32,
        },
    ),
    "MixedTarget.from_labels": (
        fm.MixedTarget.from_labels,
        lambda d: {
            "labels": labels(),
            "plan": plan(d),
            "num_classes": K,
            "label_smoothing": 0.1,
            "ignore_index": -100,
        },
    ),
    "MixedTarget.of_labels": (
        fm.MixedTarget.of_labels,
        lambda d: {
            "labels": torch.randint(0, K, (B, 3)),
            "weight": torch.full((B, 3), 1 / 3),
            "num_classes": K,
        },
    ),
    "MixedTarget": (
        fm.MixedTarget,
        lambda d: {
            "labels": labels(),
            "partner_labels": labels(),
            "weight": torch.rand(B, 2),
            "num_classes": K,
            "label_smoothing": 0.1,
        },
    ),
    "mixed_accuracy": (
        fm.mixed_accuracy,
        lambda d: {"logits": logits(d), "target": target(d), "topk": [1, 5]},
    ),
    "mixed_criterion": (
        fm.mixed_criterion,
        lambda d: {
            "criterion": torch.nn.CrossEntropyLoss(reduction="none"),
            "output": logits(d),
            "target": fm.MixedTarget.from_labels(labels(), plan(d), K),
        },
    ),
}
