"""Checks that mix_rectangles and mix_patches share, and the memory of their results."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import check_plain_tensor
from ..checks import check_memory, check_writable, span
from ..codes import MAX_DIMS
from ..memory import recycled_like, recycled_tensor
from ..tracing import in_vmap

_MOVABLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
_FILLABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64, *_MOVABLE)


def check_samples(name: str, x: Tensor, dtypes: tuple[torch.dtype, ...] | None) -> None:
    """Raise unless x is a batch [B, …, H, W] that a kernel can read, of one of ``dtypes``."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor [B, …, H, W], got {type(x).__name__}")
    if not torch.compiler.is_compiling() and in_vmap():
        raise RuntimeError(
            f"{name}: expected a whole batch, got a call under torch.vmap; call it on [B, …, H, W]"
        )
    check_plain_tensor(name, x)
    check_memory(name, x)
    if dtypes is not None and x.dtype not in dtypes:
        raise TypeError(
            f"{name}: expected float16, bfloat16, float32, float64 or uint8, got {x.dtype}; class "
            "maps and ids can be moved (resample 'none' or 'nearest', no mask); else .float()"
        )
    if x.ndim < 3:
        raise ValueError(
            f"{name}: expected [B, …, H, W], got shape {list(x.shape)}; sequences [B, T] become "
            "one by .unsqueeze(1)"
        )
    if x.ndim - 1 > MAX_DIMS:
        raise ValueError(
            f"{name}: expected at most {MAX_DIMS + 1} dims, got {x.ndim}; flatten some"
        )
    if x.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name}: expected a tensor that does not require grad, as no gradient is computed; "
            "use .detach()"
        )


def check_movable(name: str, dtype: torch.dtype) -> None:
    if dtype not in _FILLABLE:
        raise TypeError(f"{name}: expected None for {dtype}, which has no such value; leave it out")


def check_result(out: Tensor, shape: torch.Size, *read: Tensor) -> None:
    """Raise unless ``out`` can take a result of ``shape`` made from the tensors ``read``."""
    x = read[0]
    if not isinstance(out, Tensor):
        raise TypeError(f"out: expected a tensor, got {type(out).__name__}")
    if (out.shape, out.dtype, out.device) != (shape, x.dtype, x.device):
        raise ValueError(
            f"out: expected {list(shape)} {x.dtype} on {x.device}, got {list(out.shape)} "
            f"{out.dtype} on {out.device}"
        )
    check_memory("out", out)
    check_writable("out", out, "detach it first")
    if torch.compiler.is_compiling() or not out.numel():
        return
    first, last = span(out)
    for t in read:
        if t.numel() and span(t)[0] <= last and first <= span(t)[1]:
            raise ValueError(
                "out: expected memory of its own, got memory that reaches into that of the "
                "samples; leave out away for a new tensor"
            )


def new_result(x: Tensor, shape: torch.Size) -> Tensor:
    """Memory for a result of ``shape`` in the memory format of x, reused on the CPU."""
    reuses = x.is_cpu and not torch.compiler.is_compiling()
    if shape == x.shape:
        return recycled_like(x) if reuses else torch.empty_like(x)
    form = torch.contiguous_format
    if not x.is_contiguous() and x.ndim in (4, 5):
        last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        form = last if x.is_contiguous(memory_format=last) else form
    device = "meta" if reuses else x.device
    result = torch.empty(shape, dtype=x.dtype, device=device, memory_format=form)
    return recycled_tensor(shape, x.dtype, result.stride()) if reuses else result
