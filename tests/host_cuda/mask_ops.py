"""The ops of masks of the CUDA backend on CPU tensors, through the host harness."""

from __future__ import annotations

import ctypes

import torch

from .lib import check, library
from .ops import DTYPES, INT, POINTER, address, int_array, row_or_rows

MAP_TYPES = {torch.bool: 0, torch.uint8: 0, torch.float16: 1, torch.bfloat16: 2, torch.float32: 3}


class HostMask(ctypes.Structure):
    """The struct HostMask of driver_masks.cpp."""

    _fields_ = [("code", POINTER), ("code_stride", INT)]
    _fields_ += [("threshold", POINTER), ("threshold_stride", INT)]
    _fields_ += [("rows", POINTER), ("rows_stride", INT)]
    _fields_ += [("columns", POINTER), ("columns_stride", INT), ("rank", INT)]
    _fields_ += [("map", POINTER), ("map_stride", INT), ("map_type", INT)]
    _fields_ += [(n, INT) for n in ("map_height", "map_width", "interpolation", "height", "width")]


class HostMasked(ctypes.Structure):
    """The struct HostMasked of driver_masks.cpp."""

    _fields_ = [("form", INT), ("dtype", INT), ("dst", POINTER), ("src", POINTER)]
    _fields_ += [(n, INT) for n in ("batch", "dst_batch_stride", "src_batch_stride", "ndim")]
    _fields_ += [(n, POINTER) for n in ("sizes", "dst_strides", "src_strides", "other")]
    _fields_ += [("others", INT), ("other_batch_stride", INT), ("other_strides", POINTER)]
    _fields_ += [("clean", POINTER), ("spatial", INT), ("pairing", INT)]
    _fields_ += [(n, POINTER) for n in ("partner", "sources", "offsets")]
    _fields_ += [(n, POINTER) for n in ("blend", "box", "blend_row", "box_row")]
    _fields_ += [("mask", HostMask)]


def host_mask(height, width, code, threshold, rows, columns, map, interpolation):
    h = HostMask(height=height, width=width, map_height=1, map_width=1, map_type=3)
    h.interpolation = interpolation
    if code is None:
        return h
    fields = {"code": code, "threshold": threshold, "rows": rows, "columns": columns, "map": map}
    for name, t in fields.items():
        if t is None:
            continue
        assert t.numel() == 0 or t[0].is_contiguous()
        setattr(h, name, address(t))
        setattr(h, f"{name}_stride", t.stride(0) if t.shape[0] > 1 else 0)
    if rows is not None:
        h.rank = rows.shape[1]
    if map is not None:
        h.map_type, h.map_height, h.map_width = MAP_TYPES[map.dtype], *map.shape[1:]
    return h


def _mix(form, dst, src, plan, mask, other=None, clean=None, sources=None, offsets=None):
    if dst.numel() == 0:
        return
    partner, blend, box, pairing = plan
    h = HostMasked(form=form, dtype=DTYPES.index(dst.dtype), dst=address(dst), src=address(src))
    h.batch, h.ndim = dst.shape[0], dst.ndim - 1
    h.dst_batch_stride, h.src_batch_stride = dst.stride(0), src.stride(0)
    keep = [int_array(v[1:]) for v in (dst.shape, dst.stride(), src.stride())]
    h.sizes, h.dst_strides, h.src_strides = (ctypes.addressof(k) for k in keep)
    if other is not None:
        keep.append(int_array(other.stride()[1:]))
        h.other, h.other_strides = address(other), ctypes.addressof(keep[-1])
        h.others, h.other_batch_stride = other.shape[0], other.stride(0)
    h.clean = address(clean)
    h.spatial, h.pairing = box.shape[1] // 2, pairing
    h.partner, h.sources, h.offsets = address(partner), address(sources), address(offsets)
    blend_row, blend_rows = row_or_rows(blend)
    h.blend_row, h.blend = address(blend_row), address(blend_rows)
    box_row, box_rows = row_or_rows(box) if h.spatial else (None, None)
    h.box_row, h.box = address(box_row), address(box_rows)
    h.mask = host_mask(*(dst.shape[-2:] if mask[0] is not None else (1, 1)), *mask)
    check(library().host_mix_masked(ctypes.byref(h)))


def mix_masked(x, partner, blend, box, pairing, *mask):
    out = torch.empty_like(x)
    _mix(1, out, x, (partner, blend, box, pairing), mask)
    return out


def mix_masked_(x, partner, blend, box, pairing, *mask):
    _mix(0, x, x, (partner, blend, box, pairing), mask)


def mix_masked_out(x, other, partner, blend, box, pairing, *mask_clean_out):
    *mask, clean, out = mask_clean_out
    batch = len(x)
    parts = (out[:batch], out[batch:]) if clean else (None, out)
    _mix(1, parts[1], x, (partner, blend, box, pairing), mask, other, parts[0])


def mix_masked_backward(grad, partner, sources, offsets, blend, box, pairing, *mask):
    out = torch.empty_like(grad)
    plan = (partner, blend, box, pairing)
    _mix(2, out, grad, plan, mask, sources=sources, offsets=offsets)
    return out


def mask_mean(code, threshold, rows, columns, map, interpolation, height, width):
    out = torch.full((len(code),), 7.0)
    h = host_mask(height, width, code, threshold, rows, columns, map, interpolation)
    call = library().host_mask_mean
    check(call(ctypes.byref(h), ctypes.c_int64(len(code)), POINTER(address(out))))
    return out
