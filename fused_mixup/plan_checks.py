"""What a MixPlan is checked for when it is made, and what the host then knows of its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .plan import MixPlan

# How the kernels find the partner of sample i in a batch of B.
TENSOR, FLIP, ROLL, SELF = range(4)  # partner[i], B-1-i, (i-1) mod B, i
PAIRINGS = {"tensor": TENSOR, "flip": FLIP, "roll": ROLL, "self": SELF}


@dataclass(frozen=True)
class Facts:
    """What the host knows of a plan's values, so that no device value is ever read back."""

    is_permutation: bool | None  # None where the partners live on a device
    blends: bool  # some row has blend != (1, 0)
    box_stop: tuple[int, ...]  # the largest stop per spatial dim over the rows with a box


def is_host_row(t: Tensor) -> bool:
    """True for a tensor whose rows are one row on the CPU, which kernels take as arguments."""
    return t.device.type == "cpu" and (t.shape[0] <= 1 or t.stride(0) == 0)


def check_lam(lam: float) -> float:
    if isinstance(lam, Tensor) or not isinstance(lam, (int, float)):
        if not hasattr(lam, "__float__") or (isinstance(lam, Tensor) and lam.device.type != "cpu"):
            raise TypeError(
                f"lam: expected a number on the host, got {type(lam).__name__}; for values that "
                "live on a device use MixPlan.per_sample"
            )
        lam = float(lam)
    if not 0.0 <= lam <= 1.0:
        raise ValueError(f"lam: expected a number in [0, 1], got {lam}")
    return float(lam)


def integers(name: str, value: Tensor | Sequence) -> Tensor:
    t = torch.as_tensor(value)
    if t.numel() and (t.is_floating_point() or t.is_complex() or t.dtype == torch.bool):
        raise TypeError(f"{name}: expected integers, got {t.dtype}")
    return t


def check_partner_values(partner: Tensor, batch_size: int) -> None:
    if partner.device.type == "cpu" and partner.numel():
        low, high = (int(v) for v in torch.aminmax(partner))
        if low < 0 or high >= batch_size:
            raise IndexError(
                f"partner: expected indices in [0, {batch_size}), got {low if low < 0 else high}"
            )


def is_permutation(pairing: str, partner: Tensor) -> bool | None:
    if pairing != "tensor":
        return True
    if partner.device.type != "cpu":
        return None
    return bool(torch.bincount(partner, minlength=partner.shape[0]).le(1).all())


def check_corners(box: Sequence[int]) -> list[int]:
    """The corners of a box as ints, if they are a box."""
    corners = [int(v) for v in box]
    if list(box) != corners:
        raise TypeError(f"box: expected ints, got {list(box)}")
    d = len(corners) // 2
    if len(corners) not in (2, 4, 6):
        raise ValueError(
            f"box: expected D starts, then D stops, with D 1, 2 or 3, got {len(corners)} numbers"
        )
    if any(not 0 <= a <= b for a, b in zip(corners[:d], corners[d:], strict=True)):
        raise ValueError(
            f"box: expected 0 <= start <= stop in each dim (starts, then stops), got {corners}"
        )
    return corners


_LAYOUT = {
    "partner": (torch.int32, 1),
    "weight": (torch.float32, 2),
    "blend": (torch.float64, 2),
    "box": (torch.int32, 2),
}


def check_layout(plan: MixPlan) -> None:
    for name, (dtype, ndim) in _LAYOUT.items():
        t = getattr(plan, name)
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: expected a {dtype} tensor, got {type(t).__name__}")
        if t.dtype != dtype:
            raise TypeError(f"{name}: expected dtype {dtype}, got {t.dtype}; use .to({dtype})")
        if t.ndim != ndim:
            raise ValueError(f"{name}: expected {ndim} dims, got shape {list(t.shape)}")
        if t.shape[0] != plan.partner.shape[0]:
            raise ValueError(
                f"{name}: expected {plan.partner.shape[0]} rows as in partner, got {t.shape[0]}"
            )
    for name in ("weight", "blend"):
        if getattr(plan, name).shape[1] != 2:
            got = list(getattr(plan, name).shape)
            raise ValueError(f"{name}: expected shape [B, 2], got {got}")
    if plan.box.shape[1] not in (0, 2, 4, 6):
        raise ValueError(
            f"box: expected [B, 2·D] with D 1, 2 or 3 (starts, then stops), "
            f"got shape {list(plan.box.shape)}"
        )
    if plan.pairing not in PAIRINGS:
        raise ValueError(f"pairing: expected one of {sorted(PAIRINGS)}, got {plan.pairing!r}")


def check_values(plan: MixPlan) -> Facts | None:
    """Check what lives on the host; the facts, or None where some of it lives on a device."""
    if any(getattr(plan, name).device.type != "cpu" for name in _LAYOUT):
        return None
    if torch.compiler.is_compiling():
        return None
    batch_size = plan.batch_size
    if plan.pairing == "tensor":
        check_partner_values(plan.partner, batch_size)
    permutation = is_permutation(plan.pairing, plan.partner)
    # One expanded row stands for all.
    blend = plan.blend[:1] if is_host_row(plan.blend) else plan.blend
    if not bool(blend.isfinite().all() & plan.weight.isfinite().all()):
        raise ValueError("weight, blend: expected finite numbers, got infinity or NaN")
    blends = bool((blend != torch.tensor([1.0, 0.0], dtype=torch.float64)).any())
    box = plan.box[:1] if is_host_row(plan.box) else plan.box
    d = plan.spatial_dims
    start, stop = box[:, :d], box[:, d:]
    bad = (start < 0) | (stop < start)
    if bool(bad.any()):
        row = int(bad.any(1).nonzero()[0])
        raise ValueError(
            f"box: expected 0 <= start <= stop in each dim (starts, then stops), "
            f"got {box[row].tolist()} in row {row}"
        )
    used = stop[(stop > start).all(1)]
    box_stop = tuple(used.amax(0).tolist()) if used.numel() else (0,) * d
    return Facts(permutation, blends, box_stop)
