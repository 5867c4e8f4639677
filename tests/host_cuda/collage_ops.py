"""mix_rectangles and mix_patches of the CUDA backend on CPU tensors, through the host harness."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .lib import check, library
from .ops import DTYPES, INT, POINTER, address, int_array


class HostImages(ctypes.Structure):
    """The struct HostImages of driver_collage.cpp."""

    _fields_ = [("ndim", INT)]
    _fields_ += [(n, POINTER) for n in ("sizes", "dst_strides", "src_strides", "other_strides")]


class HostRectangles(ctypes.Structure):
    """The struct HostRectangles of driver_collage.cpp."""

    _fields_ = [("images", HostImages), ("dtype", INT), ("element_size", INT)]
    _fields_ += [(n, POINTER) for n in ("dst", "own", "other")]
    _fields_ += [(n, INT) for n in ("batch", "samples", "height", "width", "count", "resample")]
    _fields_ += [(n, POINTER) for n in ("source", "source_box", "box", "scale", "fill")]


class HostSide(ctypes.Structure):
    """The struct HostSide of driver_collage.cpp."""

    _fields_ = [("sample", POINTER), ("index", POINTER)]
    _fields_ += [(n, INT) for n in ("each", "rows", "columns")]


class HostPatches(ctypes.Structure):
    """The struct HostPatches of driver_collage.cpp."""

    _fields_ = [("images", HostImages), ("dtype", INT), ("element_size", INT)]
    _fields_ += [("dst", POINTER), ("src", POINTER), ("batch", INT)]
    _fields_ += [("own", HostSide), ("other", HostSide), ("mask", POINTER)]
    _fields_ += [("mask_rows", INT), ("mask_columns", INT)]


def _images(out: Tensor, *tensors: Tensor) -> tuple[HostImages, list]:
    keep = [int_array(v) for v in (out.shape, out.stride(), *(t.stride() for t in tensors))]
    return HostImages(out.ndim, *map(ctypes.addressof, keep)), keep


def _dtype(t: Tensor, blends: bool) -> int:
    return DTYPES.index(t.dtype) if blends else 0


def mix_rectangles(x, other, source, source_box, box, scale, resample, fill, out):
    if out.numel() == 0:
        return
    images = x if other is None else other
    shape, _keep = _images(out, x, images)
    element = None if fill is None else torch.tensor([fill], dtype=x.dtype)
    h = HostRectangles(shape, _dtype(x, resample >= 2), x.element_size())
    h.dst, h.own, h.other = map(address, (out, x, images))
    h.batch, h.samples, h.height, h.width = len(x), len(images), *x.shape[-2:]
    h.count, h.resample = source.shape[1], resample
    h.source, h.source_box, h.box = map(address, (source, source_box, box))
    h.scale, h.fill = address(scale), address(element)
    check(library().host_mix_rectangles(ctypes.byref(h)))


def _side(sample: Tensor | None, index: Tensor | None) -> HostSide:
    each = sample is not None and sample.ndim == 3
    grid = index if index is not None else sample if each else None
    rows, columns = (1, 1) if grid is None else grid.shape[1:]
    return HostSide(address(sample), address(index), each, rows, columns)


def mix_patches(x, sample, index, partner, partner_index, mask, out):
    if out.numel() == 0:
        return
    shape, _keep = _images(out, x)
    h = HostPatches(shape, _dtype(x, mask is not None), x.element_size())
    h.dst, h.src, h.batch = address(out), address(x), len(x)
    h.own, h.other = _side(sample, index), _side(partner, partner_index)
    h.mask = address(mask)
    h.mask_rows, h.mask_columns = (1, 1) if mask is None else mask.shape[1:]
    check(library().host_mix_patches(ctypes.byref(h)))
