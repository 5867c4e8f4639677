"""Checks of a MixPlan when it is made, and the facts that the host then knows of its values."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import integer, integer_tuple, is_host_row, kind
from ..codes import PAIRINGS
from ..tracing import has_host_values


@dataclass(frozen=True)
class Facts:
    """What the host knows of a plan's values, so that no device value is ever read back."""

    is_permutation: bool | None  # None where the partners live on a device
    blends: bool  # some row is known to have blend != (1, 0)
    box_stop: tuple[int, ...]  # the largest stop per spatial dim over the rows with a box


def check_lam(lam: float) -> float:
    on_device = isinstance(lam, Tensor) and lam.device.type != "cpu"
    one_number = not isinstance(lam, Tensor) or lam.numel() == 1
    if on_device or not one_number or not hasattr(lam, "__float__"):
        raise TypeError(
            f"lam: expected one number on the host, got {kind(lam)}; for values that live on a "
            "device, or one for each sample, use MixPlan.per_sample"
        )
    lam = float(lam)
    if not 0.0 <= lam <= 1.0:
        raise ValueError(f"lam: expected a number in [0, 1], got {lam}")
    return lam


def check_int32(name: str, t: Tensor) -> None:
    """Raise ValueError where a cast to int32 would wrap a value around."""
    if has_host_values(t) and t.numel() and t.dtype == torch.int64:
        low, high = (int(v) for v in torch.aminmax(t))
        if low < -(2**31) or high >= 2**31:
            raise ValueError(f"{name}: expected values of 32 bits, got {low} to {high}")


def check_partner_values(partner: Tensor, count: int) -> None:
    """Raise IndexError unless the partners are among ``count`` samples."""
    if has_host_values(partner) and partner.numel():
        low, high = (int(v) for v in torch.aminmax(partner))
        if low < 0 or high >= count:
            raise IndexError(
                f"partner: expected indices in [0, {count}), got {low if low < 0 else high}"
            )


def check_pool(pool: int | None, pairing: str, batch_size: int) -> int | None:
    """How many samples partners are taken from, where they are not those of the batch."""
    if pool is None:
        return None
    pool = integer("pool", pool)
    if pool < (batch_size if pairing != "tensor" else min(batch_size, 1)):
        raise ValueError(
            f"pool: expected at least {batch_size} samples to take partners from, got {pool}"
        )
    return pool


def check_no_pool(pool: int | None, remedy: str = "use mix(x, plan, other=…)") -> None:
    """Raise ValueError for a plan whose partners are those of another tensor."""
    if pool is not None:
        raise ValueError(
            f"plan: expected partners among the batch, got a plan with pool={pool}; {remedy}"
        )


def check_rule(pairing: str, partner: Tensor, expected: Tensor) -> None:
    """Raise ValueError for a partner tensor on the host that is not what the rule says."""
    check_partner_values(partner, partner.shape[0])
    wrong = (partner != expected).nonzero()
    if len(wrong):
        raise ValueError(
            f"partner: expected what pairing {pairing!r} says, got another partner for sample "
            f"{int(wrong[0])}; use pairing='tensor'"
        )


def is_permutation(partner: Tensor | None) -> bool | None:
    """True for a pairing by rule (no tensor); None where values cannot be read."""
    if partner is None:
        return True
    if not has_host_values(partner):
        return None
    # Of a copy: bincount writes out of bounds where another thread raises a number meanwhile.
    counts = torch.bincount(partner.clone(), minlength=partner.shape[0])
    return len(counts) == len(partner) and bool(counts.le(1).all())


def check_corners(box: Sequence[int]) -> tuple[int, ...]:
    """The corners of a box as ints; raises unless they are a box."""
    corners = integer_tuple("box", box)
    if len(corners) not in (2, 4, 6):
        raise ValueError(
            f"box: expected D starts, then D stops, with D 1, 2 or 3, got {len(corners)} numbers"
        )
    if min(corners) < -(2**31) or max(corners) >= 2**31:
        raise ValueError(f"box: expected values of 32 bits, got {list(corners)}")
    d = len(corners) // 2
    if min(corners) < 0 or not all(map(operator.le, corners[:d], corners[d:])):
        raise ValueError(
            "box: expected 0 <= start <= stop in each dim (starts, then stops), got "
            f"{list(corners)}"
        )
    return corners


def check_stops(stops: Sequence[int], name: str, spatial: Sequence[int]) -> None:
    """Raise ValueError where boxes with these stops leave the ``spatial`` sizes of ``name``."""
    if any(stop > size for stop, size in zip(stops, spatial, strict=False)):
        raise ValueError(
            f"plan: expected boxes inside the last {len(stops)} dims of {name}, "
            f"{list(spatial)}, got stops up to {list(stops)}; draw boxes for this size"
        )


_LAYOUT = {
    "partner": (torch.int32, 1),
    "weight": (torch.float32, 2),
    "blend": (torch.float64, 2),
    "box": (torch.int32, 2),
}


def check_layout(
    partner: Tensor | None, weight: Tensor, blend: Tensor, box: Tensor, pairing: str
) -> None:
    if not isinstance(pairing, str) or pairing not in PAIRINGS:
        raise ValueError(f"pairing: expected one of {sorted(PAIRINGS)}, got {kind(pairing)}")
    fields = {"partner": partner, "weight": weight, "blend": blend, "box": box}
    if partner is None and pairing != "tensor":
        del fields["partner"]
    first, batch_size = next(iter(fields)), None
    for name, t in fields.items():
        dtype, ndim = _LAYOUT[name]
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: expected a {dtype} tensor, got {type(t).__name__}")
        if t.requires_grad:
            raise ValueError(
                f"{name}: expected a tensor that does not require grad, as no gradient reaches "
                "it; use .detach()"
            )
        if t.dtype != dtype and not _is_narrow_blend(name, t):
            raise TypeError(f"{name}: expected dtype {dtype}, got {t.dtype}; use .to({dtype})")
        if t.ndim != ndim:
            raise ValueError(f"{name}: expected {ndim} dims, got shape {list(t.shape)}")
        batch_size = t.shape[0] if batch_size is None else batch_size
        if t.shape[0] != batch_size:
            raise ValueError(f"{name}: expected {batch_size} rows as in {first}, got {t.shape[0]}")
        if name in ("weight", "blend") and t.shape[1] != 2:
            raise ValueError(f"{name}: expected shape [B, 2], got {list(t.shape)}")
    if box.shape[1] not in (0, 2, 4, 6):
        raise ValueError(
            f"box: expected [B, 2·D] with D 1, 2 or 3 (starts, then stops), "
            f"got shape {list(box.shape)}"
        )


def _is_narrow_blend(name: str, t: Tensor) -> bool:
    """Whether t is a float32 blend on a device without our kernels, which may have no float64."""
    return name == "blend" and t.dtype == torch.float32 and t.device.type not in ("cpu", "cuda")


def check_values(
    partner: Tensor | None,  # [B], or None where the pairing is a rule
    weight: Tensor,  # [B, 2]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
    pool: int | None = None,
) -> Facts:
    """Check the tensors on the host; values on a device stay unknown."""
    if torch.compiler.is_compiling():
        return Facts(is_permutation(partner), False, ())
    for name, t in (("weight", weight), ("blend", blend)):
        if has_host_values(t) and not bool(_rows(t).isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, got infinity or NaN")
    if partner is not None:
        check_partner_values(partner, len(weight) if pool is None else pool)
    blends = False
    if has_host_values(blend):
        own, other = _rows(blend).unbind(1)
        blends = bool(((own != 1) | (other != 0)).any())
    stops = _check_box(_rows(box)) if has_host_values(box) else ()
    return Facts(is_permutation(partner), blends, stops)


def _rows(t: Tensor) -> Tensor:
    """The rows of t to check: the first where all are one row, expanded."""
    return t[:1] if is_host_row(t) else t


def _check_box(box: Tensor) -> tuple[int, ...]:
    """The largest stops of the boxes that are not empty."""
    d = box.shape[1] // 2
    start, stop = box[:, :d], box[:, d:]
    bad = (start < 0) | (stop < start)
    if bool(bad.any()):
        row = int(bad.any(1).nonzero()[0])
        raise ValueError(
            f"box: expected 0 <= start <= stop in each dim (starts, then stops), "
            f"got {box[row].tolist()} in row {row}"
        )
    used = stop[(stop > start).all(1)]
    return tuple(used.amax(0).tolist()) if used.numel() else (0,) * d
