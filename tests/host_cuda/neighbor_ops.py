"""draw_neighbors of the host harness, and its comparison with the reference, to the bit."""

from __future__ import annotations

import ctypes
import random

import torch
from neighbor_cases import neighbor_case, neighbor_cases

from fused_mixup import reference
from fused_mixup.codes import GAUSSIAN

from . import lib
from .batches import ORDERS
from .lib import check, library
from .ops import address, int_array

POINTER, INT = ctypes.c_void_p, ctypes.c_int64


class HostNeighbors(ctypes.Structure):
    """The struct HostNeighbors of driver_plan.cpp."""

    _fields_ = [(n, POINTER) for n in ("state", "settings", "setting_args")]
    _fields_ += [("wide", INT), ("labels", POINTER), ("pool", POINTER)]
    _fields_ += [(n, POINTER) for n in ("label_stride", "pool_stride")]
    _fields_ += [(n, INT) for n in ("batch", "count", "dims", "kernel", "most_blocks")]
    _fields_ += [("partner", POINTER)]


def draw_neighbors(
    state, settings, labels, pool, kernel, settings_on_device=False, most_blocks=4096
):
    others = labels if pool is None else pool
    strides = int_array(labels.stride()), int_array(others.stride())
    h = HostNeighbors(state=address(state), labels=address(labels), pool=address(pool))
    if settings_on_device:
        h.settings = address(settings)
    else:
        h.setting_args = address(settings)
    h.wide = int(labels.dtype == torch.float64)
    h.label_stride, h.pool_stride = map(ctypes.addressof, strides)
    h.batch, h.count, h.dims = len(labels), len(others), labels.shape[1]
    h.kernel, h.most_blocks = kernel, most_blocks
    partner = torch.full((len(labels),), -7, dtype=torch.int32)
    h.partner = address(partner)
    check(library().host_draw_neighbors(ctypes.byref(h)))
    return partner


def check_neighbors(args, order=0, **options):
    lib.set_order(order)
    state, *rest = args
    expected_state = state.clone()
    expected = reference.draw_neighbors(expected_state, *rest)
    got = draw_neighbors(state, *rest, **options)
    assert torch.equal(got, expected), (got != expected).nonzero()[:4].tolist()
    assert torch.equal(state, expected_state)


def check_neighbor_cases(count, seed) -> int:
    for k, args in enumerate(neighbor_cases(count, seed)):
        # Few blocks walk over all samples; the last of several steps the state.
        options = {"settings_on_device": bool(k & 1), "most_blocks": (4096, 1, 2)[k % 3]}
        check_neighbors(args, ORDERS[k % len(ORDERS)], **options)
    return count


def barrier_case():
    """Several warps, which all need the state that one thread reads, and several blocks."""
    return neighbor_case(random.Random(3), 20, None, GAUSSIAN)
