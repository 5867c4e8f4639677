"""Valid calls of every public function, module and raw op, which ``hostile.py`` then spoils."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from smoke import names_written, op_inputs, schema_of
from torch import Tensor

import fused_mixup as fm
from fused_mixup import ops
from fused_mixup.schemas import CHOSEN, NAMESPACE

B, C, H, W, K = 4, 3, 5, 6, 6


@dataclass
class Call:
    """A function, its arguments by name, and those that it may write."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    written: tuple[str, ...] = ()
    backend: str | None = None
    positional: bool = False
    spoiled: list[str] = field(default_factory=list)

    def run(self) -> Any:
        if self.positional:
            return self.function(*self.arguments.values())
        return self.function(**self.arguments)


def copied(value: Any) -> Any:
    """A copy in memory of its own, as hostile calls may write it."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (list, tuple)):
        return type(value)(map(copied, value))
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return value


# ------------------------------------------------------------------ raw ops

_calls = op_inputs()


def raw_ops() -> dict[str, Callable[[random.Random], Call]]:
    def make(name: str, draw: random.Random) -> Call:
        arguments = draw.choice(_calls[name])
        space = draw.choice((NAMESPACE, NAMESPACE, CHOSEN))
        backend = draw.choice(("native", "reference")) if space == CHOSEN else None
        ordered = {a.name: copied(arguments.get(a.name)) for a in schema_of(name).arguments}
        op = getattr(getattr(torch.ops, space), name)
        called = f"{space}::{name}" + (f" ({backend})" if backend else "")
        return Call(called, op, ordered, tuple(names_written(name)), backend, True)

    return {name: lambda draw, name=name: make(name, draw) for name in ops.SCHEMAS}


# ------------------------------------------------------------------ public functions


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


PUBLIC: dict[str, tuple[Callable[..., Any], Callable[[random.Random], dict[str, Any]]]] = {
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
    "soft_target_cross_entropy": (
        fm.soft_target_cross_entropy,
        lambda d: {
            "logits": logits(d),
            "target": target(d),
            "weight": torch.rand(K),
            "ignore_index": -100,
            "reduction": "mean",
            "label_smoothing": 0.1,
            "focal_gamma": d.choice((0.0, 1.5)),
            "z_loss": 0.1,
            "validate": d.random() < 0.5,
        },
    ),
    "soft_target_binary_cross_entropy": (
        fm.soft_target_binary_cross_entropy,
        lambda d: {
            "logits": logits(d),
            "target": target(d),
            "weight": torch.rand(K),
            "pos_weight": torch.rand(K),
            "target_threshold": d.choice((None, 0.2)),
            "focal_gamma": 1.5,
            "reduction": "none",
            "validate": d.random() < 0.5,
        },
    ),
    "decoupled_mixup_cross_entropy": (
        fm.decoupled_mixup_cross_entropy,
        lambda d: {
            "logits": logits(d),
            "target": fm.MixedTarget.from_labels(labels(), plan(d), K),
            "eta": 0.1,
            "weight": torch.rand(K),
            "ignore_index": 1,
            "label_smoothing": 0.1,
        },
    ),
    "linear_soft_target_cross_entropy": (
        fm.linear_soft_target_cross_entropy,
        lambda d: {
            "features": torch.randn(B, 7),
            "weight": torch.randn(K, 7),
            "bias": torch.randn(K),
            "target": target(d),
            "class_weight": torch.rand(K),
            "chunk_rows": 2,
        },
    ),
    "SoftTargetCrossEntropy": (
        lambda logits, target, **options: fm.SoftTargetCrossEntropy(**options)(logits, target),
        lambda d: {
            "logits": logits(d),
            "target": target(d),
            "weight": torch.rand(K),
            "ignore_index": -100,
            "label_smoothing": 0.1,
            "head_weights": None,
        },
    ),
    "SoftTargetBinaryCrossEntropy": (
        lambda logits, target, **options: fm.SoftTargetBinaryCrossEntropy(**options)(
            logits, target
        ),
        lambda d: {
            "logits": logits(d),
            "target": target(d),
            "weight": torch.rand(K),
            "pos_weight": torch.rand(K),
            "focal_gamma": 0.5,
        },
    ),
    "draw_plan": (
        fm.draw_plan,
        lambda d: {
            "batch_size": B,
            "spatial": [H, W],
            "state": state(),
            "mixup_alpha": 0.8,
            "cutmix_alpha": 1.0,
            "switch_prob": 0.5,
            "prob": 0.9,
            "per": "sample",
            "pairing": torch.tensor([2, 0, 0, 1]),
            "cutmix_minmax": [0.2, 0.8],
        },
    ),
    "draw_plan, classes": (
        fm.draw_plan,
        lambda d: {
            "batch_size": B,
            "spatial": [H, W],
            "state": state(),
            "pairing": "cross_class",
            "labels": labels(),
            "settings": fm.plan_settings(mixup_alpha=0.8),
        },
    ),
    "draw_variants": (
        fm.draw_variants,
        lambda d: {
            "batch_size": B,
            "size": [H, W],
            "state": state(),
            "mix": {"fmix": {}, "gridmix": {}},
            "weights": [0.5, 0.5],
            "prob": 0.9,
            "per": "sample",
            "pairing": "shuffle",
        },
    ),
    "draw_resizemix": (
        fm.draw_resizemix,
        lambda d: {
            "batch_size": B,
            "size": [H, W],
            "state": state(),
            "scale": [0.1, 0.8],
            "alpha": 1.0,
        },
    ),
    "random_erasing": (
        fm.random_erasing,
        lambda d: {
            "batch_size": B,
            "spatial": [H, W],
            "state": state(),
            "prob": 0.9,
            "area": [0.02, 0.3],
            "aspect": [0.3, 3.3],
            "mode": d.choice(("const", "rand", "pixel")),
            "value": 0.0,
            "max_count": 2,
            "channels": 3,
            "clean": 0,
        },
    ),
    "Erasing": (
        fm.Erasing,
        lambda d: {
            "box": torch.tensor([[[0, 0, 2, 2]]] * B),
            "value": torch.rand(B, 1, C),
            "noise": None,
        },
    ),
    "erasing_settings": (
        fm.erasing_settings,
        lambda d: {"prob": 0.25, "area": [0.1, 0.2], "aspect": [0.3, 3.0]},
    ),
    "plan_settings": (
        fm.plan_settings,
        lambda d: {
            "mixup_alpha": 0.8,
            "cutmix_alpha": 1.0,
            "switch_prob": 0.5,
            "cutmix_minmax": [0.1, 0.9],
        },
    ),
    "variant_settings": (
        fm.variant_settings,
        lambda d: {
            "mix": {"fmix": {}, "cutmix": {"alpha": 1.0}},
            "weights": [0.3, 0.7],
            "prob": 0.5,
        },
    ),
    "plan_state": (fm.plan_state, lambda d: {"seed": 3, "rank": 1, "worker": 2}),
    "cutmix_box": (fm.cutmix_box, lambda d: {"spatial": [H, W], "lam": 0.3, "center": [2, 3]}),
    "MixPlan.identity": (fm.MixPlan.identity, lambda d: {"batch_size": B}),
    "MixPlan.uniform": (
        fm.MixPlan.uniform,
        lambda d: {
            "batch_size": B,
            "partner": torch.tensor([2, 0, 0, 1]),
            "lam": 0.3,
            "box": [1, 1, 3, 4],
        },
    ),
    "MixPlan.per_sample": (
        fm.MixPlan.per_sample,
        lambda d: {
            "lam": torch.rand(B),
            "partner": torch.tensor([2, 0, 0, 1]),
            "box": box_rows(),
            "cut": [True, False, True, True],
        },
    ),
    "MixPlan": (
        fm.MixPlan,
        lambda d: {
            "partner": torch.tensor([2, 0, 0, 1], dtype=torch.int32),
            "weight": torch.rand(B, 2),
            "blend": torch.rand(B, 2).double(),
            "box": torch.tensor(box_rows(), dtype=torch.int32),
        },
    ),
    "BatchMix": (
        lambda batch, **options: fm.BatchMix(**options)(batch),
        lambda d: {
            "batch": (images(), labels()),
            "num_classes": K,
            "mixup_alpha": 0.8,
            "cutmix_alpha": 1.0,
            "per": "sample",
            "seed": 3,
            "inplace": False,
        },
    ),
    "BatchMix, dict": (
        lambda batch, **options: fm.BatchMix(**options)(batch),
        lambda d: {
            "batch": {"image": images(), "label": labels(), "mask": torch.ones(B, H, W).long()},
            "num_classes": K,
            "cutmix_alpha": 1.0,
            "mixup_alpha": 0.0,
            "images": "image",
            "labels": "label",
            "masks": "mask",
            "inplace": False,
        },
    ),
    "BatchMix.collate": (
        lambda samples, **options: fm.BatchMix(**options).collate(samples),
        lambda d: {"samples": [(x, i % K) for i, x in enumerate(images())], "num_classes": K},
    ),
    "ManifoldMixup": (
        lambda x, y, **options: fm.ManifoldMixup(model(), ["1"], **options)(x, y),
        lambda d: {"x": images(), "y": labels(), "alpha": 1.0, "num_classes": K, "seed": 1},
    ),
    "Prefetcher": (
        lambda loader, **options: list(fm.Prefetcher(loader, "cpu", **options)),
        lambda d: {
            "loader": [((255 * images()).byte(), labels())],
            "mean": 0.5,
            "std": 0.2,
            "mix": fm.BatchMix(K),
            "flip": 0.5,
            "order": "after",
        },
    ),
}

# BatchMix: where another ``inplace`` says so.
WRITES = {"mix_": ("x",), "mix_, other": ("x",), "paste_": ("x",)}
WRITES |= {"BatchMix": ("batch",), "BatchMix, dict": ("batch",)}


def public_calls() -> dict[str, Callable[[random.Random], Call]]:
    def make(name: str, draw: random.Random) -> Call:
        function, arguments = PUBLIC[name]
        written = (*WRITES.get(name, ()), "out", "state")
        return Call(f"fm.{name}", function, arguments(draw), written)

    return {name: lambda draw, name=name: make(name, draw) for name in PUBLIC}


def public_names_left_out() -> set[str]:
    """Public names that no call here belongs to."""
    named = {name.partition(",")[0].partition(".")[0] for name in PUBLIC}
    return set(copy.copy(fm.__all__)) - named - {"backend"}
