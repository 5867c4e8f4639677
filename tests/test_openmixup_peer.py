"""``fused_mixup.openmixup`` with ``compat`` against the OpenMixup that is installed: every bit."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from functools import cache

import pytest
import torch
from openmixup_cases import SETTINGS, call, difference, pretended_opencv, setting

from benchmarks import installed_openmixup
from fused_mixup import openmixup
from fused_mixup.saliency import spectral_residual

if (reason := installed_openmixup.reason_missing()) is not None:
    pytest.skip(reason, allow_module_level=True)
MANY, FEW = 300, 4
SLOW = {"fmix", "guidedmix"}  # files that import SciPy and torchvision, for seconds


def their_version():
    return "0.2.9" if installed_openmixup.version() == "0.2.9" else True


def compare(name, numbers):
    """Compare calls by those numbers; how many of them OpenMixup could serve."""
    if name == "puzzlemix" and importlib.util.find_spec("gco") is None:
        pytest.skip("gco is not installed; pip install gco-wrapper")
    if (name, installed_openmixup.version()) == ("snapmix", "0.2.9"):
        pytest.skip("snapmix of OpenMixup 0.2.9 needs NumPy before 1.24")
    theirs = installed_openmixup.mix(name)
    if theirs is None:
        pytest.skip(f"OpenMixup {installed_openmixup.version()} has no {name} that imports")
    module = installed_openmixup.load_file(name)
    if name == "puzzlemix" and not hasattr(module.cost_matrix, "cache_info"):
        module.cost_matrix = cache(module.cost_matrix)  # made anew, it takes most of the time
    with pretended_opencv(module) if name == "saliencymix" else nullcontext():
        return sum(compare_call(name, theirs, number) for number in numbers)


def compare_call(name, theirs, number):
    arguments, keywords = setting(name, number)
    ours = getattr(openmixup, name)
    compat = keywords | {"compat": their_version()}
    try:
        expected, their_images, their_draws = call(theirs, arguments, keywords, number)
    except (RuntimeError, AssertionError, ValueError):  # sizes that it cannot mix
        if name != "gridmix":
            call(ours, arguments, compat, number)
        return False
    got, our_images, our_draws = call(ours, arguments, compat, number)
    assert len(got) == len(expected)
    differences = [difference(*pair) for pair in zip(got, expected, strict=True)]
    assert not any(differences), f"call {number} of {name}: {differences}"
    assert our_draws == their_draws, f"call {number} of {name}: other draws"
    assert difference(our_images, their_images) is None, f"call {number} of {name}: images given"
    assert (got[0] is our_images) == (expected[0] is their_images)
    return True


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - SLOW))
def test_a_few_calls(name):
    assert compare(name, range(FEW)) > 0


@pytest.mark.proof
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_many_calls(name):
    """At least 300 calls that OpenMixup serves."""
    served, number = 0, 0
    while served < MANY:
        served += compare(name, [number])
        number += 1
    assert number < 3 * MANY  # most settings are ones that it serves


@pytest.mark.proof
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 3, 40, 24), (1, 3, 200, 150)])
def test_spectral_residual(shape):
    if installed_openmixup.mix("guidedmix") is None:
        pytest.skip(f"OpenMixup {installed_openmixup.version()} has no guidedmix that imports")
    theirs = installed_openmixup.load_file("guidedmix").SpectralResidual(device="cpu")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = theirs.transform_spectral_residual(x.clone())
    torch.testing.assert_close(spectral_residual(x), expected, rtol=1e-4, atol=1e-7)
