"""The ops of the CUDA backend on CPU tensors, through the host harness: same names and arguments.

This module does for CPU tensors what the bindings do for CUDA ones. One row for all (stride 0, or
B <= 1) goes as plain arguments, other rows as "device" pointers.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .lib import check, library

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8]
SHARED_LIMIT = 232448  # an H100 gives a block this much shared memory
POINTER, INT, DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class HostMix(ctypes.Structure):
    """The struct HostMix of driver_mix.cpp."""

    _fields_ = [(n, INT) for n in ("form", "dtype", "element_size")]
    _fields_ += [("dst", POINTER), ("src", POINTER)]
    _fields_ += [(n, INT) for n in ("batch", "dst_batch_stride", "src_batch_stride", "ndim")]
    _fields_ += [(n, POINTER) for n in ("sizes", "dst_strides", "src_strides")]
    _fields_ += [("spatial", INT), ("pairing", INT)]
    _fields_ += [(n, POINTER) for n in ("partner", "sources", "offsets")]
    _fields_ += [(n, POINTER) for n in ("blend", "box", "blend_row", "box_row")]
    _fields_ += [("shared_limit", INT), ("ring_blocks", INT), ("wide", INT)]


class HostPlan(ctypes.Structure):
    """The struct HostPlan of driver_plan.cpp."""

    _fields_ = [(n, POINTER) for n in ("state", "settings", "setting_args", "labels", "given")]
    _fields_ += [("sample", POINTER), ("batch", INT), ("sizes", POINTER)]
    _fields_ += [(n, INT) for n in ("spatial", "per", "pairing", "correct_lam", "symmetric")]
    _fields_ += [(n, POINTER) for n in ("partner", "weight", "blend", "box")]


class HostErasing(ctypes.Structure):
    """The struct HostErasing of driver_plan.cpp."""

    _fields_ = [(n, POINTER) for n in ("state", "settings", "setting_args", "fill")]
    _fields_ += [(n, INT) for n in ("filled", "batch", "height", "width", "max_count")]
    _fields_ += [(n, INT) for n in ("channels", "mode", "clean")]
    _fields_ += [(n, POINTER) for n in ("box", "value", "noise")]


class HostBoxes(ctypes.Structure):
    """The struct HostBoxes of driver_mix.cpp."""

    _fields_ = [("dtype", INT), ("boxes", POINTER), ("batch", INT), ("most", INT)]
    _fields_ += [("given", POINTER), ("given_wide", INT), ("pairing", INT)]
    _fields_ += [(n, POINTER) for n in ("partner", "blend", "blend_row", "box", "box_row")]
    _fields_ += [("min_visible", DOUBLE)]
    _fields_ += [(n, POINTER) for n in ("out", "source", "weight", "count")]


def address(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def row_or_rows(t: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """(the one row, None) or (None, all rows)."""
    if t.shape[0] <= 1 or t.stride(0) == 0:
        return (t[0].contiguous() if t.shape[0] else None), None
    return None, t.contiguous()


def int_array(values) -> ctypes.Array:
    return (ctypes.c_int64 * max(len(values), 1))(*values)


def _mix(
    form, dst, src, partner, sources, offsets, blend, box, pairing, shared_limit, ring_blocks=0,
    wide=False,
):  # fmt: skip
    if dst.numel() == 0:
        return
    h = HostMix(form=form, element_size=dst.element_size())
    h.dtype = DTYPES.index(dst.dtype) if form != 3 else 0
    h.dst, h.src = address(dst), address(src)
    h.batch, h.ndim = dst.shape[0], dst.ndim - 1
    h.dst_batch_stride, h.src_batch_stride = dst.stride(0), src.stride(0)
    keep = [int_array(v[1:]) for v in (dst.shape, dst.stride(), src.stride())]
    h.sizes, h.dst_strides, h.src_strides = (ctypes.addressof(k) for k in keep)
    h.spatial, h.pairing = box.shape[1] // 2, pairing
    h.partner, h.sources, h.offsets = address(partner), address(sources), address(offsets)
    if blend is not None:
        blend_row, blend_rows = row_or_rows(blend)
        h.blend_row, h.blend = address(blend_row), address(blend_rows)
    if box.shape[1]:
        box_row, box_rows = row_or_rows(box)
        h.box_row, h.box = address(box_row), address(box_rows)
    h.shared_limit, h.ring_blocks, h.wide = shared_limit, ring_blocks, wide
    check(library().host_mix(ctypes.byref(h)))


def mix_(x, partner, blend, box, pairing, shared_limit=SHARED_LIMIT, ring_blocks=0, wide=False):
    _mix(0, x, x, partner, None, None, blend, box, pairing, shared_limit, ring_blocks, wide)


def mix_out(x, partner, blend, box, pairing, out, wide=False):
    _mix(1, out, x, partner, None, None, blend, box, pairing, SHARED_LIMIT, wide=wide)


def mix(x, partner, blend, box, pairing, wide=False):
    out = torch.empty_like(x)
    mix_out(x, partner, blend, box, pairing, out, wide)
    return out


def mix_backward(grad, partner, sources, offsets, blend, box, pairing, wide=False):
    out = torch.empty_like(grad)
    _mix(2, out, grad, partner, sources, offsets, blend, box, pairing, SHARED_LIMIT, wide=wide)
    return out


def paste_(x, partner, box, pairing, shared_limit=SHARED_LIMIT, ring_blocks=0):
    _mix(3, x, x, partner, None, None, None, box, pairing, shared_limit, ring_blocks)


def ring_shape(batch, vectors, spatial, blocks, shared_limit=SHARED_LIMIT):
    """(bytes of a piece, stages) of mix_ring.cuh, or zeros."""
    out = (ctypes.c_int64 * 2)()
    given = (batch, vectors, spatial, shared_limit, blocks)
    library().host_ring_shape(*map(INT, given), out)
    return tuple(out)


def mix_targets(labels, partner, weight, pairing, num_classes, label_smoothing, dtype):
    labels = labels.contiguous()
    out = torch.empty((labels.shape[0], num_classes, *labels.shape[1:]), dtype=dtype)
    if out.numel() == 0:
        return out
    row, rows = row_or_rows(weight)
    ints = [ctypes.c_int64(v) for v in (labels.shape[0], num_classes, labels[0].numel(), pairing)]
    pointers = [POINTER(address(t)) for t in (out, labels, partner, rows, row)]
    check(
        library().host_mix_targets(
            ctypes.c_int64(DTYPES.index(dtype)), *pointers[:2], *ints, *pointers[2:],
            ctypes.c_double(label_smoothing),
        )
    )  # fmt: skip
    return out


def mix_boxes(boxes, count, partner, blend, box, pairing, min_visible):
    boxes = boxes.contiguous()
    batch, most = boxes.shape[:2]
    h = HostBoxes(dtype=DTYPES.index(boxes.dtype), batch=batch, most=most, pairing=pairing)
    h.boxes, h.given, h.partner = address(boxes), address(count), address(partner)
    h.given_wide = count is not None and count.dtype == torch.int64
    h.min_visible = min_visible
    blend_row, blend_rows = row_or_rows(blend)
    h.blend_row, h.blend = address(blend_row), address(blend_rows)
    if box.shape[1]:
        box_row, box_rows = row_or_rows(box)
        h.box_row, h.box = address(box_row), address(box_rows)
    made = (
        torch.full((batch, 2 * most, 4), 7, dtype=boxes.dtype),
        torch.full((batch, 2 * most), -7, dtype=torch.int32),
        torch.full((batch, 2 * most), 7.0),
        torch.full((batch,), -7, dtype=torch.int32),
    )
    h.out, h.source, h.weight, h.count = map(address, made)
    check(library().host_mix_boxes(ctypes.byref(h)))
    return made


def draw_plan(
    state, settings, labels, partner, batch_size, spatial, per, pairing, correct_lam, symmetric,
    samples, settings_on_device=False,
):  # fmt: skip
    keep = int_array(spatial)
    h = HostPlan(
        state=address(state), labels=address(labels), given=address(partner), batch=batch_size
    )
    h.sample = address(samples)
    if settings_on_device:
        h.settings = address(settings)
    else:
        h.setting_args = address(settings)
    h.sizes, h.spatial = ctypes.addressof(keep), len(spatial)
    h.per, h.pairing = per, pairing
    h.correct_lam, h.symmetric = correct_lam, symmetric
    drawn = (
        torch.full((batch_size,), -7, dtype=torch.int32),
        torch.full((batch_size, 2), 7.0),
        torch.full((batch_size, 2), 7.0, dtype=torch.float64),
        torch.full((batch_size, 2 * len(spatial)), -7, dtype=torch.int32),
    )
    h.partner, h.weight, h.blend, h.box = map(address, drawn)
    check(library().host_draw_plan(ctypes.byref(h)))
    return drawn


def draw_erasing(
    state, settings, fill, batch_size, height, width, max_count, channels, erase_mode, clean,
    settings_on_device=False,
):  # fmt: skip
    given = torch.tensor(fill, dtype=torch.float32)
    h = HostErasing(state=address(state), fill=address(given), filled=len(fill), batch=batch_size)
    if settings_on_device:
        h.settings = address(settings)
    else:
        h.setting_args = address(settings)
    h.height, h.width, h.max_count, h.channels = height, width, max_count, channels
    h.mode, h.clean = erase_mode, clean
    colors = (batch_size, max_count, channels)
    drawn = (
        torch.full((batch_size, max_count, 4), -7, dtype=torch.int32),
        torch.full({0: (1, 1, len(fill)), 1: colors, 2: (0,)}[erase_mode], 7.0),
        torch.full((batch_size if erase_mode == 2 else 0,), -7),
    )
    h.box, h.value, h.noise = map(address, drawn)
    check(library().host_draw_erasing(ctypes.byref(h)))
    return drawn
