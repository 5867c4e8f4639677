"""draw_variants of the host harness, and its comparison with the reference, to the bit."""

from __future__ import annotations

import ctypes

import torch
from variant_cases import assert_same_variants, one_variant, resizes, variant_cases

from fused_mixup import reference
from fused_mixup.codes import BATCH

from . import lib
from .batches import ORDERS
from .lib import check, library
from .ops import address, int_array

POINTER, INT = ctypes.c_void_p, ctypes.c_int64


class HostVariants(ctypes.Structure):
    """The struct HostVariants of driver_variants.cpp."""

    _fields_ = [(n, POINTER) for n in ("state", "settings", "setting_args", "labels", "given")]
    _fields_ += [(n, POINTER) for n in ("sample", "kinds")]
    _fields_ += [(n, INT) for n in ("count", "batch", "height", "width", "rank", "per", "pairing")]
    _fields_ += [(n, INT) for n in ("correct_lam", "symmetric")]
    _fields_ += [(n, POINTER) for n in ("partner", "weight", "blend", "box", "code")]
    _fields_ += [(n, POINTER) for n in ("threshold", "rows", "columns", "resize_box")]


def draw_variants(
    state, settings, labels, partner, kinds, batch_size, height, width, rank, per, pairing,
    correct_lam, symmetric, samples, settings_on_device=False,
):  # fmt: skip
    keep = int_array(kinds)
    h = HostVariants(state=address(state), labels=address(labels), given=address(partner))
    h.sample = address(samples)
    if settings_on_device:
        h.settings = address(settings)
    else:
        h.setting_args = address(settings)
    h.kinds, h.count, h.batch = ctypes.addressof(keep), len(kinds), batch_size
    h.height, h.width, h.rank, h.per, h.pairing = height, width, rank, per, pairing
    h.correct_lam, h.symmetric = correct_lam, symmetric
    units = 1 if per == BATCH else batch_size
    drawn = (
        torch.full((batch_size,), -7, dtype=torch.int32),
        torch.full((batch_size, 2), 7.0),
        torch.full((batch_size, 2), 7.0, dtype=torch.float64),
        torch.full((batch_size, 4), -7, dtype=torch.int32),
        torch.full((batch_size,), -7, dtype=torch.int32),
        torch.full((units,), 7.0),
        torch.full((units, rank, height), 7.0),
        torch.full((units, rank, width), 7.0),
        torch.full((batch_size if resizes(kinds) else 0, 4), -7, dtype=torch.int32),
    )
    *others, resize_box = drawn
    h.partner, h.weight, h.blend, h.box, h.code, h.threshold, h.rows, h.columns = map(
        address, others
    )
    h.resize_box = address(resize_box) if resizes(kinds) else None
    check(library().host_draw_variants(ctypes.byref(h)))
    return drawn


def check_variants(args, order=0, settings_on_device=False):
    lib.set_order(order)
    state, *rest = args
    expected_state = state.clone()
    expected = reference.draw_variants(expected_state, *rest)
    assert_same_variants(draw_variants(state, *rest, settings_on_device), expected)
    assert torch.equal(state, expected_state)


def check_variant_cases(count, seed, **options) -> int:
    for k, args in enumerate(variant_cases(count, seed, **options)):
        check_variants(args, ORDERS[k % len(ORDERS)], settings_on_device=bool(k & 1))
    return count


def barrier_cases():
    """Cases that need each barrier of the kernel: frequencies of two chunks, a bell of a batch."""
    yield one_variant("fmix", 1, (130, 256))
    yield one_variant("gmix", 40, (70, 40), per=BATCH)
