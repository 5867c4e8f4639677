"""What ``fused_mixup.kornia`` refuses, with Kornia's types of errors; a Kornia that is missing."""

from __future__ import annotations

import importlib
import sys
import types

import pytest
import torch

X, LABELS = torch.rand(4, 3, 8, 8), torch.arange(4)
LABELLED = {"data_keys": ["input", "class"]}

# class, options, inputs, what the message names
REFUSED = {
    "bytes": ("RandomMixUpV2", {}, [X.byte()], "input: expected float16"),
    "complex": ("RandomCutMixV2", {}, [X.cfloat()], "input: expected float16"),
    "five dims": ("RandomMixUpV2", {}, [X[None]], r"input: expected \[H, W\]"),
    "one dim": ("PatchMix", {}, [X[0, 0, 0]], r"input: expected \[H, W\]"),
    "a list": ("RandomMixUpV2", {}, [[1.0, 2.0]], "input: expected a tensor"),
    "too few labels": ("RandomMixUpV2", LABELLED, [X, LABELS[:3]], r"class indices \[4\]"),
    "one-hot labels": ("RandomMixUpV2", LABELLED, [X, torch.eye(4)], r"\.argmax\(-1\)"),
    "too many labels": ("RandomCutMixV2", LABELLED, [X, torch.arange(5)], r"class indices \[4\]"),
    "a mask": ("RandomMixUpV2", {"data_keys": ["input", "mask"]}, [X, X], "got 'mask'"),
    "boxes": ("RandomCutMixV2", {"data_keys": ["input", "bbox"]}, [X, X], "got 'bbox'"),
    "classes": ("RandomMosaic", LABELLED, [X, LABELS], "got 'label'"),
    "keypoints": ("RandomJigsaw", {"data_keys": ["input", "keypoints"]}, [X, X], "got 'keypoints'"),
    "large patches": ("PatchMix", {"patch_size": 9}, [X], "patch_size"),
    "indivisible": ("RandomJigsaw", {"grid": (3, 3)}, [X], "divisible"),
    "no mask": ("RandomTransplantation", {}, [X], "needs a mask"),
    "byte images": (
        "RandomTransplantation",
        {"p": 1.0},
        [X.byte(), X[:, 0]],
        "input: expected",
    ),
    "other masks": ("RandomTransplantation", {}, [X, X[:, 0, 1:]], "dimensions"),
}
# class, options, what the message names
REFUSED_OPTIONS = {
    "lambda": ("RandomMixUpV2", {"lambda_val": (0.0, 1.5)}, "lambda_val"),
    "cut size": ("RandomCutMixV2", {"cut_size": (1.0, 1.0)}, "cut_size"),
    "no mix": ("RandomCutMixV2", {"num_mix": 0}, "num_mix"),
    "beta": ("RandomCutMixV2", {"beta": -1.0}, ""),
    "padding": ("RandomMosaic", {"padding_mode": "none"}, "padding_mode"),
    "one patch": ("RandomJigsaw", {"grid": (1, 1)}, "ensure_perm"),
    "labels": ("RandomTransplantation", {"excluded_labels": [[1]]}, "excluded_labels"),
    "unknown key": ("RandomMixUpV2", {"data_keys": ["inputs"]}, ""),
}


def failure(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        return error
    return None


@pytest.fixture
def cases():
    import kornia_cases

    return kornia_cases


@pytest.mark.parametrize("case", REFUSED)
def test_inputs(cases, case):
    name, options, inputs, named = REFUSED[case]
    options = {"use_correct_lambda": True} | options if name == "RandomCutMixV2" else options
    errors = [
        failure(cases.make(module, name, **options), *inputs)
        for module in (cases.ours, cases.theirs)
    ]
    assert type(errors[0]) is type(errors[1]), errors
    with pytest.raises(type(errors[1]), match=named):
        raise errors[0]


@pytest.mark.usefixtures("checked_distributions")
@pytest.mark.parametrize("case", REFUSED_OPTIONS)
def test_options(cases, case):
    name, options, named = REFUSED_OPTIONS[case]
    errors = [failure(getattr(m, name), **options) for m in (cases.ours, cases.theirs)]
    assert type(errors[0]) is type(errors[1]) is not type(None), errors
    assert named in str(errors[0])


@pytest.mark.parametrize("name", ["RandomMixUpV2", "RandomCutMixV2", "PatchMix", "RandomJigsaw"])
def test_parameters_of_another_batch(cases, name):
    options = {"patch_size": 4} if name == "PatchMix" else {"p": 1.0}
    errors = []
    for module in (cases.ours, cases.theirs):
        mix = cases.make(module, name, **options)
        mix(X[:3])
        errors.append(failure(mix, X, params=dict(mix._params)))
    assert type(errors[0]) is type(errors[1]) is not type(None), errors
    with pytest.raises(type(errors[0]), match="params: expected those of 4 images, got those of 3"):
        raise errors[0]


def test_inputs_that_no_key_names(cases):
    """Kornia drops them, and mixed images keep unmixed labels."""
    dropped = cases.make(cases.theirs, "RandomMixUpV2")(X, LABELS)
    assert dropped.shape == X.shape  # no labels
    with pytest.raises(ValueError, match=r'name each input, as in data_keys=\["input", "class"\]'):
        cases.make(cases.ours, "RandomMixUpV2")(X, LABELS)
    with pytest.raises(ValueError, match="expected 2 as in data_keys"):
        cases.make(cases.ours, "RandomMixUpV2", **LABELLED)(X)


@pytest.fixture
def fresh(monkeypatch):
    """fused_mixup.kornia as if it had not been imported."""
    for name in [n for n in sys.modules if n.split(".")[:2] == ["fused_mixup", "kornia"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("fused_mixup.kornia", raising=False)
    return monkeypatch


def test_without_kornia(fresh):
    fresh.setitem(sys.modules, "kornia", None)
    with pytest.raises(ImportError, match=r"fused_mixup.kornia: expected Kornia, .* pip install"):
        importlib.import_module("fused_mixup.kornia")


def test_with_an_older_kornia(fresh):
    old = types.ModuleType("kornia")
    old.__version__ = "0.8.2"
    fresh.setitem(sys.modules, "kornia", old)
    for name in ("augmentation", "constants"):
        module = types.ModuleType(f"kornia.{name}")
        module.DataKey = None
        setattr(old, name, module)
        fresh.setitem(sys.modules, f"kornia.{name}", module)
    with pytest.raises(ImportError, match=r"expected Kornia 0.9 or newer, got 0\.8\.2"):
        importlib.import_module("fused_mixup.kornia")
