"""The kernel of draw_variants in csrc/cuda, run on the host (tests/host_cuda), to the bit."""

from __future__ import annotations

import random

import pytest
import torch
from host_cuda import build, variant_ops
from variant_cases import KINDS, one_variant, variant_case

from fused_mixup.codes import BATCH, PAIR, SAMPLE, VERSION_WORD

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


def test_every_bit_of_the_reference():
    variant_ops.check_variant_cases(40, seed=2)


@pytest.mark.parametrize("per", [BATCH, PAIR, SAMPLE])
def test_all_variants_in_one_batch(per):
    rng = random.Random(per)
    for batch in (0, 1, 40):
        variant_ops.check_variants(variant_case(rng, list(KINDS), batch, (9, 20), per))


def test_images_whose_rows_do_not_fit_shared_memory():
    """Waves of 1024 rows and coefficients of 128 frequencies do."""
    for size in ((1030, 5), (150, 300), (1, 40)):
        variant_ops.check_variants(one_variant("fmix", 1, size))


def test_a_state_of_another_version():
    args = one_variant("gmix", 3, (6, 5))
    args[0][VERSION_WORD] = 1
    state = args[0].clone()
    _, weight, blend, box, code, *_ = variant_ops.draw_variants(*args)
    assert weight.isnan().all() and blend.isnan().all()
    assert not code.any() and not box.any() and torch.equal(args[0], state)
