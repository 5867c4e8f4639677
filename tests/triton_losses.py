"""Logits, targets and tolerances for the tests of the Triton losses."""

from __future__ import annotations

import torch
from torch import Tensor
from triton_place import DEVICE, HALF, INTERPRETED

TARGETS = ("host", "rows", "dense")


def logits_of(shape: tuple[int, ...], dtype: torch.dtype, layout: str = "contiguous") -> Tensor:
    """Logits [B, K, d1…], some of them equal, as they lie in memory by ``layout``."""
    torch.manual_seed(sum(shape))
    if layout in ("offset", "strided"):  # views with an offset, or with steps between elements
        wide = torch.randn(shape[0], shape[1] + 3, *shape[2:-1], 2 * shape[-1] + 1) * 4
        z = wide[:, 1 : shape[1] + 1, ..., 1 : 2 * shape[-1] : 2]
        if layout == "offset" or len(shape) == 2:
            z = (torch.randn(shape[0], shape[1] + 3, *shape[2:]) * 4)[:, 1 : shape[1] + 1]
    else:
        z = torch.randn(shape) * 4
        if layout == "channels_last":
            z = z.movedim(1, -1).contiguous().movedim(-1, 1)
        elif layout == "transposed":
            z = z.transpose(0, 1).contiguous().transpose(0, 1)
    z.copy_((z * 4).round() / 4)
    moved = torch.empty_strided(z.shape, z.stride(), dtype=dtype, device=DEVICE)
    return moved.copy_(z)


def target_of(logits: Tensor, target: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """``target, partner_labels, weight`` of the ops: dense, or labels with host or own weights."""
    batch, k, *positions = logits.shape
    if target.startswith("dense"):
        t = torch.rand(logits.shape, device=DEVICE)
        t[:, ::3] = 0
        t = t / t.sum(1, keepdim=True).clamp(min=1e-3)
        return t.to(torch.float32 if target == "dense32" else logits.dtype), None, None
    y = torch.randint(0, k, (batch, *positions), device=DEVICE)
    if target == "host":
        return y, y.roll(1, 0), torch.tensor([[0.3, 0.7]]).expand(batch, 2)
    rows = torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1], [0.25, 0.5]])
    return y, y.flip(0), rows.repeat(batch, 1)[:batch].to(DEVICE)


def class_weights(k: int, dtype: torch.dtype) -> Tensor:
    """[K] in the arithmetic type; one of them is 0."""
    w = torch.rand(k, device=DEVICE, dtype=torch.float64) + 0.5
    w[k // 2 :: 7] = 0
    return w.to(torch.float64 if dtype == torch.float64 else torch.float32)


def to_float64(values):
    """Convert arguments to float64, except labels and the weights of samples."""
    target, partner_labels, weight, *rest = values
    double = [v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for v in rest]
    target = target.double() if target.is_floating_point() else target
    return target, partner_labels, weight, *double


def close(got: Tensor, want: Tensor, scale: float = 1.0) -> None:
    """Compare with float64: float32 sums of up to 5000 terms of size ``scale``, exp to 2 ulp."""
    rtol, atol = (1e-12, 1e-12) if got.dtype == torch.float64 else (3e-6, 1e-5)
    if got.dtype in HALF:
        # One rounding; the interpreter truncates to bfloat16, which errs by a whole unit, and
        # flushes subnormal float16 to zero.
        ulp = {torch.float16: 2**-11, torch.bfloat16: 2**-7 if INTERPRETED else 2**-8}
        rtol, atol = ulp[got.dtype] * 1.01, 1e-7
        if got.dtype == torch.float16 and INTERPRETED:
            atol = 2**-14
    torch.testing.assert_close(
        got.double(), want.double(), rtol=rtol, atol=atol * scale, equal_nan=True
    )
