"""The named recipes, in the argument names of timm's train.py, each with its source."""

from __future__ import annotations

from typing import Any

# What timm's train.py has where an argument is left out. Alone it mixes nothing. timm reverses the
# batch.
TIMM_DEFAULTS: dict[str, Any] = {
    "mixup": 0.0, "cutmix": 0.0, "cutmix_minmax": None, "mixup_prob": 1.0,
    "mixup_switch_prob": 0.5, "mixup_mode": "batch", "mixup_off_epoch": 0, "smoothing": 0.1,
    "bce_loss": False, "bce_target_thresh": None, "bce_sum": False, "pairing": "flip",
}  # fmt: skip

# What is not said is as in TIMM_DEFAULTS.
RECIPES: dict[str, dict[str, Any]] = {
    # The settings of DeiT and of what followed it in timm.
    "timm": {"mixup": 0.8, "cutmix": 1.0},
    # The defaults of main.py of facebookresearch/deit; Touvron et al., 2021, arXiv 2012.12877.
    "deit": {"mixup": 0.8, "cutmix": 1.0},
    # references/classification of torchvision, for its IMAGENET1K_V2 weights.
    "torchvision": {"mixup": 0.2, "cutmix": 1.0, "pairing": "roll"},
    # Procedure A2 of ResNet strikes back: Wightman et al., 2021, arXiv 2110.00476. The threshold
    # is that of timm's command lines for it.
    "rsb-a2": {
        "mixup": 0.1, "cutmix": 1.0, "smoothing": 0.0, "bce_loss": True, "bce_target_thresh": 0.2,
    },
    # The default of facebookresearch/mixup-cifar10, and what ImageNet was trained with.
    "mixup-paper": {"mixup": 1.0, "smoothing": 0.0, "pairing": "shuffle"},
    "mixup-paper-imagenet": {"mixup": 0.2, "smoothing": 0.0, "pairing": "shuffle"},
    # The command lines of clovaai/CutMix-PyTorch for CIFAR and for ImageNet.
    "cutmix-paper": {"cutmix": 1.0, "mixup_prob": 0.5, "smoothing": 0.0, "pairing": "shuffle"},
    "cutmix-paper-imagenet": {"cutmix": 1.0, "smoothing": 0.0, "pairing": "shuffle"},
}  # fmt: skip
"""The recipes by name, in the argument names of timm's train.py: docs/recipes.md has a table."""
