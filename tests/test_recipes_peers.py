"""Recipes against real timm and torchvision: what they draw from, mix, and learn with."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from peers import timm, v2
from test_recipes import batch, same_batches

from fused_mixup import BatchMix, MixedTarget, MixPlan, mix_
from fused_mixup.recipes import RECIPES, Recipe
from fused_mixup.recipes.table import TIMM_DEFAULTS


def test_timm_names_mean_what_they_mean_in_timm():
    args = {
        "mixup": 0.3, "cutmix": 0.6, "cutmix_minmax": [0.2, 0.7], "mixup_prob": 0.9,
        "mixup_switch_prob": 0.4, "mixup_mode": "elem", "smoothing": 0.2,
    }  # fmt: skip
    # As timm's train.py hands them on.
    theirs = timm.data.Mixup(
        mixup_alpha=args["mixup"],
        cutmix_alpha=args["cutmix"],
        cutmix_minmax=args["cutmix_minmax"],
        prob=args["mixup_prob"],
        switch_prob=args["mixup_switch_prob"],
        mode=args["mixup_mode"],
        label_smoothing=args["smoothing"],
        num_classes=10,
    )
    mode = {"batch": "batch", "pair": "pair", "elem": "sample"}[theirs.mode]
    ours = BatchMix(
        10, mixup_alpha=theirs.mixup_alpha, cutmix_alpha=theirs.cutmix_alpha, per=mode,
        cutmix_minmax=theirs.cutmix_minmax, prob=theirs.mix_prob, switch_prob=theirs.switch_prob,
        label_smoothing=theirs.label_smoothing, correct_lam=theirs.correct_lam, pairing="flip",
    )  # fmt: skip
    # CutMix's α is 1 in timm where bounds are given; then no λ is drawn here at all.
    assert theirs.cutmix_alpha == 1.0
    same_batches(BatchMix.from_recipe(args, 10), ours)


def test_defaults_are_those_of_timm():
    theirs = timm.data.Mixup(num_classes=10)
    ours = Recipe({"mixup": theirs.mixup_alpha}, 10).settings
    assert ours["label_smoothing"] == theirs.label_smoothing
    assert ours["prob"] == theirs.mix_prob and ours["switch_prob"] == theirs.switch_prob
    assert ours["cutmix_alpha"] == theirs.cutmix_alpha and ours["per"] == theirs.mode


def timm_steps(recipe, plan, x, labels, logits):
    """Images, targets and loss by a plan, as a recipe's training takes them."""
    target = MixedTarget.from_labels(labels, plan, 10, recipe.mix.label_smoothing)
    return mix_(x.clone(), plan), target, recipe.criterion(logits, target)


@pytest.mark.parametrize("name", ["timm", "rsb-a2"])
def test_images_targets_and_loss_are_those_of_timm(name):
    recipe = Recipe(name, 10)
    x, labels = batch()
    logits, lam = torch.randn(8, 10), 0.3
    plan = MixPlan.uniform(8, recipe.settings["pairing"], lam)
    images, target, loss = timm_steps(recipe, plan, x, labels, logits)
    torch.testing.assert_close(images, lam * x + (1 - lam) * x.flip(0))
    smoothing = {**TIMM_DEFAULTS, **RECIPES[name]}["smoothing"]
    dense = timm.data.mixup.mixup_target(labels, 10, lam, smoothing)
    torch.testing.assert_close(target.dense(), dense)
    threshold = RECIPES[name].get("bce_target_thresh")
    bce = recipe.loss == "bce"
    theirs = timm.loss.BinaryCrossEntropy(target_threshold=threshold) if bce else None
    theirs = theirs or timm.loss.SoftTargetCrossEntropy()
    torch.testing.assert_close(loss, theirs(logits, dense))


def test_images_targets_and_loss_are_those_of_torchvision():
    recipe = Recipe("torchvision", 10)
    theirs = v2.MixUp(alpha=RECIPES["torchvision"]["mixup"], num_classes=10)
    x, labels = batch()
    logits = torch.randn(8, 10)
    expected, dense = theirs(x, labels)
    lam = float(dense[0, 0])  # label 0 is the sample's own, and not its partner's
    plan = MixPlan.uniform(8, recipe.settings["pairing"], lam)
    images, _, loss = timm_steps(recipe, plan, x, labels, logits)
    torch.testing.assert_close(images, expected)
    # Its reference training smooths in the loss, the recipe in the targets.
    torch.testing.assert_close(loss, F.cross_entropy(logits, dense, label_smoothing=0.1))
