"""BatchMix: labels and masks that are refused, and data held in memory that is mixed in place."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from batch_mix_cases import K

import fused_mixup as fm
from fused_mixup import BatchMix

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ refusals


X, Y = torch.zeros(4, 3, 8, 8), torch.arange(4)
HOT = F.one_hot(Y, 5)


@pytest.mark.parametrize(
    ("options", "labels", "error", "says"),
    [
        ({}, HOT, TypeError, r"\.argmax\(1\), of multi-hot ones \.float\(\)"),
        ({}, HOT.bool(), TypeError, r"multi-hot ones \.float\(\)"),
        ({}, Y.int(), TypeError, r"use \.long\(\)"),
        ({}, Y.to(torch.uint8), TypeError, r"use \.long\(\)"),
        ({}, Y > 1, TypeError, r"use \.long\(\), or \.float\(\) to blend"),
        ({}, Y[:, None], TypeError, r"use \.squeeze\(1\)$"),
        ({}, Y[:, None].int(), TypeError, r"use \.squeeze\(1\)\.long\(\)"),
        ({}, torch.zeros(4, 8, 8).long(), TypeError, "name class maps with masks="),
        ({"cutmix_alpha": 1.0}, torch.zeros(4, 5, 8, 8), TypeError, "name them with masks="),
        ({}, torch.tensor(1.0), TypeError, "got a scalar"),
        ({}, 3, TypeError, "got int"),
        ({}, ["a", "b", "c", "d"], TypeError, r"labels\[0\]: expected .* got str; make a tensor"),
        ({}, {"a": Y, "b": HOT}, TypeError, r"labels\['b'\]"),
        ({}, {"a": Y, "b": Y[:3]}, ValueError, "labels: expected a batch of 4"),
        ({"num_classes": {"a": 5}}, {"a": Y, "b": Y}, ValueError, "expected the heads of labels"),
        ({"num_classes": [5]}, (Y, Y), ValueError, "num_classes: expected the heads"),
        ({"num_classes": {"a": 5}}, Y, ValueError, "num_classes: expected a number"),
        ({"num_classes": None}, Y, ValueError, r"give BatchMix\(num_classes=K\)"),
    ],
)  # fmt: skip
def test_bad_labels_before_a_step_is_taken(options, labels, error, says):
    mix, x = BatchMix(**{"num_classes": 5, **options}), X.clone()
    with pytest.raises(error, match=says) as raised:
        mix(x, labels)
    assert torch.equal(mix.state, fm.plan_state(0)) and len(str(raised.value)) < 250
    assert "tensor(" not in str(raised.value)


def test_bad_maps_before_a_step_is_taken():
    maps = torch.full((4, 8, 8), 7)
    for options, made, error, says in (
        ({"num_classes": 5}, {"image": X, "mask": maps}, IndexError, "mask'.: .*ignore_index"),
        ({}, {"image": X, "mask": maps}, ValueError, "for the class indices in masks"),
        ({}, {"image": X, "mask": maps[:3].float()}, ValueError, "expected a batch of 4"),
        ({}, {"image": X, "mask": "all"}, TypeError, "got str"),
        ({}, {"image": X, "mask": X.to(torch.complex64)}, TypeError, "expected class maps"),
    ):
        mix = BatchMix(**options)
        with pytest.raises(error, match=says):
            mix(made)
        assert torch.equal(mix.state, fm.plan_state(0))


# ------------------------------------------------------------------ data held in memory


def warned(mix, x):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mix(x, torch.arange(len(x)) % K)
    return [str(w.message) for w in caught]


def test_a_view_of_data_held_in_memory_is_told_once():
    data = torch.rand(12, 3, 8, 8)
    for view in (data[:4], data.split(4)[1], data[2], data[:, :2], data.view(3, 4, 3, 8, 8)[1]):
        mix = BatchMix(K)
        (said,) = warned(mix, view)
        assert "inplace=False" in said and ".clone()" in said
        assert warned(mix, view) == []
    for whole in (
        data[:4].clone(),
        data,
        data.flatten(2),
        data.to(memory_format=torch.channels_last),
        data[torch.arange(4)],
        torch.stack(list(data)),
    ):
        assert warned(BatchMix(K), whole) == []
    assert warned(BatchMix(K, inplace=False), data[:4]) == []
    assert warned(BatchMix(K).eval(), data[:4]) == []
