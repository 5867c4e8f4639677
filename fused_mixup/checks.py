"""Checks of the public ops' arguments; errors say what was expected, what came, and the remedy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .arguments import kind
from .codes import MAX_DIMS
from .dtypes import BLENDABLE, FLOATING
from .plan.checks import check_no_pool
from .plan.mix_plan import MixPlan


def check_batch(
    name: str, x: Tensor, plan: MixPlan, dtypes: tuple[torch.dtype, ...] | None
) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor [B, …], got {type(x).__name__}")
    check_memory(name, x)
    if dtypes is not None:
        _check_dtype(name, x, dtypes)
    check_plan(name, x, plan)
    spatial = plan.spatial_dims
    if x.ndim < 1 + spatial:
        raise ValueError(
            f"{name}: expected at least {1 + spatial} dims, as the plan's boxes have "
            f"{spatial}, got shape {list(x.shape)}"
        )
    if x.ndim - 1 > MAX_DIMS:
        raise ValueError(
            f"{name}: expected at most {MAX_DIMS + 1} dims, got {x.ndim}; flatten some"
        )
    if spatial and not torch.compiler.is_compiling():
        plan.check_boxes(name, x.shape[x.ndim - spatial :])
    if plan.mask is not None:
        plan.mask.check(name, x)


def check_no_mask(plan: MixPlan, remedy: str) -> None:
    if plan.mask is not None:
        raise ValueError(f"plan: expected one without a mask, got one with a mask; {remedy}")
    check_no_pool(plan.pool)


def _check_dtype(name: str, x: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if x.dtype not in dtypes:
        remedy = "convert it with .float()"
        if x.dtype == torch.bool:
            remedy = "paste_ moves masks of any dtype; to blend them use .float()"
        elif x.dtype in (torch.int32, torch.int64):  # the dtypes of ids
            remedy = "mix embeddings, not ids; paste_ class maps; measured values: .float()"
        raise TypeError(
            f"{name}: expected float16, bfloat16, float32, float64 or uint8, got {x.dtype}; "
            f"{remedy}"
        )


def check_float_labels(values: Tensor) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"values: expected a floating tensor [B, …], got {kind(values)}")
    if values.dtype not in FLOATING:
        raise TypeError(
            f"values: expected floating labels [B, …], got {values.dtype}; multi-hot ones: "
            ".float(); class indices: MixedTarget.from_labels"
        )


def check_memory(name: str, x: Tensor) -> None:
    if x.is_nested:
        raise TypeError(
            f"{name}: expected samples of one size, got a nested tensor; pad it with "
            "torch.nested.to_padded_tensor"
        )
    if x.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got {x.layout}; use .to_dense()")
    if torch.compiler.is_compiling():
        return
    if x.is_neg() or x.is_conj():
        raise ValueError(
            f"{name}: expected values as they lie in memory, got a lazy negative or conjugate "
            "view; use .resolve_neg() or .resolve_conj()"
        )


def check_samples(samples: Sequence[Any], name: str = "samples") -> list[Tensor]:
    """The samples as tensors in their own memory; raises unless a kernel can take them together."""
    if isinstance(samples, Tensor) or not isinstance(samples, Sequence):
        raise TypeError(
            f"{name}: expected a list of tensors or NumPy arrays, one for each sample, got "
            f"{type(samples).__name__}; a batch that is one tensor goes to mix(x, plan)"
        )
    tensors = _alike_arrays(samples, name)
    if tensors is not None:
        return tensors
    each = enumerate(samples)
    tensors = [s if isinstance(s, Tensor) else as_array(f"{name}[{i}]", s) for i, s in each]
    if not tensors:
        raise ValueError(f"{name}: expected at least one, got an empty list")
    first = tensors[0]
    shape, dtype = first.shape, first.dtype
    _check_dtype(name, first, BLENDABLE)
    compiling = torch.compiler.is_compiling()
    for i, s in enumerate(tensors):
        alike = s.shape == shape and s.dtype == dtype and s.layout == torch.strided and s.is_cpu
        if not alike or s.requires_grad or (not compiling and s.is_neg()):
            _refuse_sample(name, i, s, first)
    return tensors


def _alike_arrays(samples: Sequence[Any], name: str) -> list[Tensor] | None:
    """A loader's arrays, checked together: one by one, checking takes as long as mixing."""
    numpy = sys.modules.get("numpy")
    if numpy is None or {type(s) for s in samples} != {numpy.ndarray}:
        return None
    alike = len({s.shape for s in samples}) == len({s.dtype for s in samples}) == 1
    if not alike or {s.flags.writeable for s in samples} != {True}:
        return None
    try:
        tensors = [*map(torch.from_numpy, samples)]
    except (TypeError, ValueError):
        return None
    _check_dtype(name, tensors[0], BLENDABLE)
    return tensors


def _refuse_sample(samples: str, i: int, s: Tensor, first: Tensor) -> None:
    name = f"{samples}[{i}]"
    check_memory(name, s)
    if s.dtype != first.dtype:
        raise TypeError(
            f"{name}: expected {first.dtype} as in {samples}[0], got {s.dtype}; convert it with "
            f".to({first.dtype})"
        )
    if s.shape != first.shape:
        raise ValueError(
            f"{name}: expected shape {list(first.shape)} as in {samples}[0], got {list(s.shape)}; "
            "resize or crop samples to one size first"
        )
    if s.requires_grad:
        raise ValueError(
            f"{name}: expected a tensor that does not require grad, as no gradient reaches it; "
            "detach it, or use mix(torch.stack(samples), plan), which is differentiable"
        )
    raise ValueError(
        f"{name}: expected it on the CPU, got {s.device}; make one tensor of all with torch.stack, "
        "or collate on the CPU and move the batch"
    )


def as_array(name: str, sample: Any) -> Tensor:
    """A NumPy array as a tensor on the same memory. Nothing is written there."""
    numpy = sys.modules.get("numpy")  # without it there can be no array
    if numpy is None or not isinstance(sample, numpy.ndarray):
        raise TypeError(
            f"{name}: expected a tensor or a NumPy array, got {type(sample).__name__}; for a "
            "PIL image end the transform with torchvision's PILToTensor or timm's ToNumpy, which "
            "give uint8 [C, H, W]"
        )
    if not sample.flags.writeable:
        # PyTorch has no read-only tensors, and warns.
        sample = numpy.asarray(_Writable(sample))
    try:
        return torch.from_numpy(sample)
    except ValueError:  # negative strides, which tensors cannot have
        return torch.from_numpy(sample.copy())
    except TypeError:
        raise TypeError(f"{name}: expected a dtype that PyTorch has, got {sample.dtype}") from None


class _Writable:
    """An array through NumPy's array interface, without its read-only flag."""

    def __init__(self, array: Any) -> None:
        self.array = array  # keeps the memory alive
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def check_samples_out(samples: list[Tensor], out: Tensor) -> None:
    first = samples[0]
    if not isinstance(out, Tensor):
        raise TypeError(f"out: expected a tensor, got {type(out).__name__}")
    fits = out.ndim == first.ndim + 1 and out.shape[1:] == first.shape
    fits = fits and out.shape[0] <= len(samples)
    if not fits or (out.dtype, out.device) != (first.dtype, first.device):
        raise ValueError(
            f"out: expected {[len(samples), *first.shape]} (or fewer rows) {first.dtype} on "
            f"{first.device} like samples, got {list(out.shape)} {out.dtype} on {out.device}"
        )
    check_writable("out", out, "detach it first")
    if torch.compiler.is_compiling() or out.numel() == 0:
        return
    out_first, out_last = span(out)
    for i, (begin, end) in enumerate(map(span, samples)):
        if begin <= out_last and out_first <= end:
            raise ValueError(
                f"out: expected memory of its own, got memory that reaches into that of "
                f"samples[{i}]; leave out away for a new tensor"
            )


def check_plan(name: str, x: Tensor, plan: MixPlan) -> None:
    if not isinstance(plan, MixPlan):
        raise TypeError(f"plan: expected a MixPlan, got {type(plan).__name__}")
    if x.ndim < 1 or x.shape[0] != plan.batch_size:
        raise ValueError(
            f"{name}: expected shape [{plan.batch_size}, …] as in plan, got {list(x.shape)}; "
            "draw a plan for this batch size"
        )
    if not plan.serves(x.device):
        raise ValueError(
            f"plan: expected it on {x.device} like {name}, got {plan.device}; "
            f"use plan.to({str(x.device)!r})"
        )


def check_writable(name: str, x: Tensor, remedy: str) -> None:
    compiling = torch.compiler.is_compiling()
    if not compiling and x.is_inference() and not torch.is_inference_mode_enabled():
        raise ValueError(
            f"{name}: expected a normal tensor, got one made in inference mode, which may not be "
            "written outside it; use .clone()"
        )
    if x.requires_grad:
        raise ValueError(
            f"{name}: expected a tensor that does not require grad, as it is written in place; "
            f"{remedy}"
        )
    if not x.is_contiguous() and may_overlap(x):
        raise ValueError(
            f"{name}: expected each element in memory of its own, got a view of strides "
            f"{list(x.stride())}, which may be expanded or overlapping; use .clone()"
        )


def may_overlap(x: Tensor) -> bool:
    """Whether two indices may reach one element: a stride lies within the span of smaller dims."""
    if x.numel() == 0:
        return False
    reach = 0
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def shares_elements(a: Tensor, b: Tensor) -> bool:
    """Whether some element may lie in both; False where that cannot be known."""
    if torch.compiler.is_compiling() or a.is_meta or not a.numel() or not b.numel():
        return False
    (begin, end), (other_begin, other_end) = span(a), span(b)
    if begin > other_end or other_begin > end:
        return False
    if a.stride() != b.stride() or a.element_size() != b.element_size():
        return True
    # Slices of one tensor: they meet if they do along every dim.
    low, high = (a, b) if begin <= other_begin else (b, a)
    steps, odd = divmod(abs(begin - other_begin), a.element_size())
    for stride, size in sorted(zip(low.stride(), low.shape, strict=True), reverse=True):
        if stride:
            apart, steps = divmod(steps, stride)
            if apart >= size:
                return False
    return steps == 0 and odd == 0 and high.numel() > 0


def check_out(x: Tensor, out: Tensor) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"out: expected a tensor, got {type(out).__name__}")
    if (out.shape, out.dtype, out.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            f"out: expected {list(x.shape)} {x.dtype} on {x.device} like x, "
            f"got {list(out.shape)} {out.dtype} on {out.device}"
        )
    if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
        raise ValueError("out: expected no gradients of x or out; call mix(x, plan) without out")
    check_writable("out", out, "detach it first")
    if torch.compiler.is_compiling() or x.numel() == 0:
        return
    first, last = span(x)
    out_first, out_last = span(out)
    if first <= out_last and out_first <= last:
        raise ValueError(
            "out: expected memory of its own, got memory that reaches into that of x; use mix_(x)"
        )


def span(x: Tensor) -> tuple[int, int]:
    """The first and last byte that x can reach."""
    reach = sum(s * (n - 1) for s, n in zip(x.stride(), x.shape, strict=True))
    return x.data_ptr(), x.data_ptr() + (reach + 1) * x.element_size() - 1
