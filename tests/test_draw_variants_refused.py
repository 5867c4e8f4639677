"""draw_variants refuses bad arguments before anything is drawn, and says what to give instead."""

from __future__ import annotations

import pytest
import torch

import fused_mixup as fm


def refused(error, match, size=(8, 8), **options):
    options = {"mix": {"mixup": 1.0, "fmix": 1.0}, "state": fm.plan_state(1), **options}
    state = options["state"].clone()
    with pytest.raises(error, match=match):
        fm.draw_variants(4, size, **options)
    assert torch.equal(state, options["state"])


@pytest.mark.parametrize(
    ("mix", "error", "match"),
    [
        ("fmix", TypeError, "mix: expected a dict"),
        ({}, ValueError, "at least one of"),
        ({"mixip": 1.0}, ValueError, "expected names of .*'gridmix'.*got 'mixip'"),
        ({"saliencymix": 1.0}, ValueError, "need no map of an image, got 'saliencymix'; make its"),
        ({"resizemix": 1.0}, ValueError, "'resizemix', which resizes its partner"),
        ({"fmix": 0}, ValueError, "α > 0, got 0; leave the variant out"),
        ({"fmix": -1.0}, ValueError, "expected a number in"),
        ({"smoothmix": 1.0}, ValueError, "no α"),
        ({"fmix": {"dcay": 3}}, ValueError, r"expected keys of \['alpha', 'decay'\], got 'dcay'"),
        ({"fmix": {"decay": -1}}, ValueError, r"in \[0, 10\], got -1"),
        ({"gridmix": {"holes": (6, 2)}}, ValueError, "the lower one first, got 6, 2"),
        ({"gridmix": {"holes": 2.5}}, TypeError, "expected an int"),
        ({"gridmix": {"area": (1, 2, 3)}}, ValueError, "a number or two"),
        ({"cutmix": {"minmax": 3}}, TypeError, "expected two numbers"),
    ],
)
def test_bad_variants(mix, error, match):
    refused(error, match, mix=mix)


@pytest.mark.parametrize(
    ("weights", "error", "match"),
    [
        ([0.5], ValueError, "expected 2 numbers"),
        ([0.5, 0.6], ValueError, "sum to 1, got a sum of 1.1; divide by it, or set prob"),
        ([1.5, -0.5], ValueError, "probability"),
        ({"mixup": 1.0}, ValueError, "one for each of"),
        (0.5, TypeError, "a probability for each of"),
        ("ab", TypeError, "a probability for each of"),
    ],
)
def test_bad_weights(weights, error, match):
    refused(error, match, weights=weights)


def test_bad_sizes_and_settings():
    refused(ValueError, r"size: expected \(H, W\)", size=(8,))
    refused(ValueError, "each from 1 to 65,536", size=(0, 8))
    refused(ValueError, "settings: expected 21 adjacent numbers", settings=fm.plan_settings())
    refused(ValueError, "prob: expected a probability", prob=1.5)
    refused(ValueError, "forms a circle", pairing="roll", per="pair")
