"""Valid arguments of losses, plans and modules, which ``hostile.py`` spoils."""

from __future__ import annotations

import torch
from hostile_inputs import (
    B,
    C,
    Calls,
    H,
    K,
    W,
    box_rows,
    images,
    labels,
    logits,
    model,
    plan,
    state,
    target,
)

import fused_mixup as fm

LOSSES: Calls = {
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
