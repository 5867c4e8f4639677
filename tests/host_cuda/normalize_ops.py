"""mix_normalize of the CUDA backend on CPU tensors, through the host harness."""

from __future__ import annotations

import ctypes

import torch

from .lib import check, library
from .ops import DTYPES, INT, POINTER, address, row_or_rows


class HostNormalize(ctypes.Structure):
    """The struct HostNormalize of driver_normalize.cpp."""

    _fields_ = [("input", INT), ("output", INT), ("dst", POINTER), ("src", POINTER)]
    _fields_ += [(n, INT) for n in ("batch", "channels", "height", "width")]
    _fields_ += [("dst_stride", 4 * INT), ("src_stride", 4 * INT), ("pairing", INT)]
    _fields_ += [(n, POINTER) for n in ("partner", "blend", "blend_row")]
    _fields_ += [("spatial", INT), ("box", POINTER), ("box_row", POINTER), ("flip", POINTER)]
    _fields_ += [("first", INT), ("erased", INT), ("erase_box", POINTER), ("erase_value", POINTER)]
    _fields_ += [("value_stride", 3 * INT), ("erase_noise", POINTER)]
    _fields_ += [("mean", POINTER), ("std", POINTER)]


def mix_normalize(
    images, partner, blend, box, pairing, mean, std, flip,
    erase_box, erase_value, erase_noise, first, out,
):  # fmt: skip
    x = images[0] if images[0].ndim == 4 else torch.stack(images)
    batch, channels, height, width = out.shape
    h = HostNormalize(batch=batch, channels=channels, height=height, width=width)
    h.input, h.output = DTYPES.index(x.dtype), DTYPES.index(out.dtype)
    h.dst, h.src, h.pairing, h.first = address(out), address(x), pairing, first
    h.dst_stride, h.src_stride = (4 * INT)(*out.stride()), (4 * INT)(*x.stride())
    h.partner, h.flip = address(partner), address(flip)
    blend_row, blend_rows = row_or_rows(blend)
    h.blend_row, h.blend = address(blend_row), address(blend_rows)
    h.spatial = box.shape[1] // 2
    box_row, box_rows = row_or_rows(box) if h.spatial else (None, None)
    h.box_row, h.box = address(box_row), address(box_rows)
    if erase_box is not None:
        erase_box = erase_box.contiguous()
        h.erased, h.erase_box = erase_box.shape[1], address(erase_box)
        h.erase_value, h.erase_noise = address(erase_value), address(erase_noise)
    if erase_value is not None:
        steps = zip(erase_value.shape, erase_value.stride(), strict=True)
        h.value_stride = (3 * INT)(*(0 if size == 1 else step for size, step in steps))
    constants = [(ctypes.c_double * max(channels, 1))(*values) for values in (mean, std)]
    h.mean, h.std = map(ctypes.addressof, constants)
    check(library().host_mix_normalize(ctypes.byref(h)))
