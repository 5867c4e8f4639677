"""Masks of a batch: :class:`MixMask`, one number in [0, 1] for each pixel of each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..arguments import integer_tuple, kind
from ..codes import (
    INTERPOLATIONS,
    MASK_FORM,
    MASK_FUNCTION,
    MASK_INVERT,
    MASK_RANK,
    MASK_SCALE,
    MASK_SEPARABLE,
    MASK_STORED,
)
from ..plan.mask import PlanMask
from ..reference.masks import dense_mask
from ..schemas import MaskArguments
from ..tracing import has_host_values

_FIELDS = "code", "threshold", "rows", "columns", "map"
_MAP_DTYPES = (torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32)


class MixMask(PlanMask):
    """The share m in [0, 1] that each pixel of a sample keeps; its partner has 1 - m.

    Most masks come from :mod:`fused_mixup.masks`. A mask covers the last two dims [H, W] of a batch
    and is shared by the dims between. It is kept as few numbers, and kernels compute it where they
    need it, in one of two forms::

        s[y, x] = Σ_k rows[k, y] · columns[k, x]        a separable mask, k < R <= 4
        s = interpolate(map, (H, W))                    a stored one

    followed by ``m = s``, ``s > threshold``, ``s mod 2`` or ``sigmoid(s)``, and perhaps by
    ``1 - m``. Samples may differ in all of it, and those with code 0 have no mask.

    Attributes:
        code: int32 [B], form + function + MASK_INVERT (``codes.py``).
        threshold: float32 [B].
        rows, columns: float32 [B, R, H] and [B, R, W], or None where no mask is separable.
        map: [B, h, w], bool, uint8 (0 and 1), float16, bfloat16 or float32, or None where no mask
            is stored.
        interpolation: ``"nearest"`` or ``"bilinear"``, of the map to [H, W] (align_corners False).

    Rows of all tensors may be one row, expanded.

    Raises:
        TypeError: a field that is no tensor of the dtype above.
        ValueError: shapes that do not fit, devices that differ, a map whose values are NaN or
            become masks outside [0, 1] (looked at on the CPU alone).

    Source: mixes.md lists the papers by variant; the form itself is ours.
    """

    __module__ = __package__  # the module in a saved mask

    code: Tensor
    threshold: Tensor
    rows: Tensor | None
    columns: Tensor | None
    map: Tensor | None
    interpolation: str

    def __init__(
        self,
        code: Tensor,  # [B]
        threshold: Tensor,  # [B]
        rows: Tensor | None = None,  # [B, R, H]
        columns: Tensor | None = None,  # [B, R, W]
        map: Tensor | None = None,  # [B, h, w]
        interpolation: str = "nearest",
    ) -> None:
        if interpolation not in INTERPOLATIONS:
            expected = " or ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation: expected {expected}, got {kind(interpolation)}")
        fields = dict(zip(_FIELDS, (code, threshold, rows, columns, map), strict=True))
        _check_layout(fields)
        values = {name: _adjacent(t) for name, t in fields.items()}
        self._fill(**values, interpolation=interpolation)
        if has_host_values(code) and not torch.compiler.is_compiling():
            _check_values(self)

    @property
    def arguments(self) -> MaskArguments:
        """The mask as the ops take it."""
        number = INTERPOLATIONS[self.interpolation]
        tables = self.rows, self.columns, self.map
        return MaskArguments(self.code, self.threshold, *tables, number)

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) for which the rows and columns were made; None for a map, which fits any size."""
        if self.rows is None or self.columns is None:
            return None
        return self.rows.shape[2], self.columns.shape[2]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> MixMask:
        """The same mask on ``device``; one row, expanded, is sent as one row."""
        device = torch.device(device)
        if self.device == device:
            return self
        return self._map(lambda t: _move(t, device, non_blocking))

    def _map(self, change: Callable[[Tensor], Tensor]) -> MixMask:
        """The mask of changed tensors, whose values have been checked."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        mask = object.__new__(MixMask)
        mask._fill(**{name: None if t is None else change(t) for name, t in fields.items()})
        mask._fill(interpolation=self.interpolation)
        return mask

    def dense(self, size: Sequence[int] | None = None) -> Tensor:
        """float32 [B, 1, H, W]: m at each pixel, as the kernels compute it (1 without a mask)."""
        return dense_mask(self.arguments, *self._size_or(size))[:, None]

    def mean(self, size: Sequence[int] | None = None) -> Tensor:
        """float32 [B]: the mean of m over (H, W), the label weight of each sample.

        Equivalent to (up to the last bit)::

            mask.dense(size).mean((1, 2, 3))
        """
        *mask, interpolation = self.arguments
        return ops.mask_mean(*mask, interpolation, *self._size_or(size))

    def _size_or(self, size: Sequence[int] | None) -> tuple[int, int]:
        own = self.size
        if size is None:
            if own is None:
                raise ValueError("size: expected (H, W), as a stored mask fits any, got None")
            return own
        height, width = _two_sizes(size)
        if own is not None and (height, width) != own:
            raise ValueError(
                f"size: expected {list(own)}, for which this mask was made, got "
                f"{[height, width]}; use .resize"
            )
        return height, width

    def resize(self, size: Sequence[int]) -> MixMask:
        """The mask for entries of another ``size``; a separable one is taken at nearest pixels."""
        if self.size in (None, _two_sizes(size)):
            return self
        row = self._one_row()
        code = torch.where(row.code == 0, 0, torch.full_like(row.code, MASK_STORED))
        stored = MixMask(code, row.threshold, map=dense_mask(row.arguments, *self._size_or(None)))
        return stored if row is self else stored.expand(self.batch_size)

    def _one_row(self) -> MixMask:
        """The mask of the first sample where all samples share it, else the mask itself."""
        fields = [getattr(self, name) for name in _FIELDS]
        shared = self.batch_size > 1 and all(t is None or t.stride(0) == 0 for t in fields)
        return self.take(slice(1)) if shared else self

    def take(self, rows: slice | Tensor) -> MixMask:
        return self._map(lambda t: t[rows])

    def expand(self, batch_size: int) -> MixMask:
        """One mask (B = 1) for all samples of a batch; no memory is copied."""
        if self.batch_size == batch_size:
            return self
        if self.batch_size != 1:
            raise ValueError(f"batch_size: expected {self.batch_size}, got {batch_size}")
        return self._map(lambda t: t.expand(batch_size, *t.shape[1:]))

    def check(self, name: str, x: Tensor) -> None:
        """Raise ValueError unless this mask fits a tensor x [B, …, H, W] of this ``name``."""
        if self.device != x.device:
            raise ValueError(
                f"plan: expected its mask on {x.device} as {name}, got {self.device}; use "
                f"plan.to({str(x.device)!r})"
            )
        if x.ndim < 3:
            raise ValueError(
                f"{name}: expected [B, …, H, W], as the plan has a mask, got shape {list(x.shape)};"
                f" view a signal as {name}.unsqueeze(-2)"
            )
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            raise ValueError(
                f"{name}: expected images of {list(self.size)}, for which the plan's mask was "
                f"made, got shape {list(x.shape)}; use plan.resize, or draw a mask for this size"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return MixMask, (*(getattr(self, name) for name in _FIELDS), self.interpolation)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MixMask):
            return NotImplemented
        if self.interpolation != other.interpolation:
            return False
        pairs = [(getattr(self, name), getattr(other, name)) for name in _FIELDS]
        return all(
            a is b or (a is not None and b is not None and torch.equal(a.cpu(), b.cpu()))
            for a, b in pairs
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        form = f"size={list(self.size)}" if self.size else ""
        if self.map is not None:
            form += (", " if form else "") + f"map={list(self.map.shape[1:])}"
        return (
            f"MixMask(batch_size={self.batch_size}, {form}, interpolation="
            f"{self.interpolation!r}, device={str(self.device)!r})"
        )


def _two_sizes(size: Sequence[int]) -> tuple[int, int]:
    sizes = integer_tuple("size", size)
    if len(sizes) != 2 or min(sizes) < 0:
        raise ValueError(f"size: expected (H, W), got {list(sizes)}")
    return sizes[0], sizes[1]


def known_mask(code: Tensor, threshold: Tensor, rows: Tensor, columns: Tensor) -> MixMask:
    """A separable mask of checked tensors, without a look at their values."""
    mask = object.__new__(MixMask)
    mask._fill(code=code, threshold=threshold, rows=rows, columns=columns, map=None)
    mask._fill(interpolation="nearest")
    return mask


def _adjacent(t: Tensor | None) -> Tensor | None:
    """t with rows that are runs of memory; one row, expanded, stays one."""
    if t is None or t[:1].is_contiguous():
        return t
    return t[:1].contiguous().expand_as(t) if t.stride(0) == 0 else t.contiguous()


def _move(t: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
    if t.stride(0) or not len(t):
        return t.to(device, non_blocking=non_blocking)
    return t[:1].to(device, non_blocking=non_blocking).expand_as(t)


def _check_layout(fields: dict[str, Tensor | None]) -> None:
    dtypes = {"code": torch.int32, "threshold": torch.float32}
    ndims = {"code": 1, "threshold": 1}
    first = fields["code"]
    for name, t in fields.items():
        if t is None and name not in dtypes:
            continue
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {kind(t)}")
        allowed = _MAP_DTYPES if name == "map" else (dtypes.get(name, torch.float32),)
        if t.dtype not in allowed:
            expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
            raise TypeError(f"{name}: expected {expected}, got {t.dtype}; use .to({allowed[-1]})")
        if t.ndim != ndims.get(name, 3):
            raise ValueError(
                f"{name}: expected {ndims.get(name, 3)} dims, got shape {list(t.shape)}"
            )
        assert first is not None
        if t.shape[0] != first.shape[0]:
            raise ValueError(f"{name}: expected {len(first)} rows as in code, got {t.shape[0]}")
        if t.device != first.device:
            raise ValueError(f"{name}: expected {first.device} as code, got {t.device}")
        if t.requires_grad:
            raise ValueError(
                f"{name}: expected a tensor that does not require grad, as no gradient reaches "
                "it; use .detach()"
            )
    rows, columns, stored = fields["rows"], fields["columns"], fields["map"]
    if (rows is None) != (columns is None):
        raise ValueError("rows, columns: expected both or neither, got one")
    ranks = [t.shape[1] for t in (rows, columns) if t is not None]
    if ranks and (ranks[0] != ranks[1] or not 1 <= ranks[0] <= MASK_RANK):
        raise ValueError(
            f"rows, columns: expected [B, R, H] and [B, R, W] with R from 1 to {MASK_RANK}, "
            f"got R {ranks[0]} and {ranks[1]}"
        )
    if stored is not None and not 1 <= min(stored.shape[1:]) <= max(stored.shape[1:]) < MASK_SCALE:
        raise ValueError(
            f"map: expected [B, h, w], sides from 1 to {MASK_SCALE - 1:,}, got shape "
            f"{list(stored.shape)}; interpolate it to the images' size"
        )


def _check_values(mask: MixMask) -> None:
    row = mask._one_row()
    if not row.batch_size:
        return
    form, function = row.code & MASK_FORM, row.code & MASK_FUNCTION
    known = (form < MASK_FORM) & (row.code >= 0) & (row.code < 2 * MASK_INVERT)
    for name, code, fields in (
        ("rows", MASK_SEPARABLE, (row.rows, row.columns)),
        ("map", MASK_STORED, (row.map,)),
    ):
        uses = form == code
        if bool(uses.any()) and fields[0] is None:
            raise ValueError(f"{name}: expected a tensor, as the code of a sample says, got None")
        for t in fields:
            if t is None or not bool(uses.any()) or t.dtype == torch.bool:
                continue
            low, high = (v.item() for v in torch.aminmax(t[uses] if len(t) > 1 else t))
            plain = bool(((function == 0) & uses).any())
            if low != low:
                raise ValueError(f"{name}: expected numbers, got NaN; use .nan_to_num()")
            outside = name == "map" and not (low >= 0 and high <= 1)
            is_bytes = t.dtype == torch.uint8
            if outside and (plain or is_bytes):
                remedy = "divide bytes by 255" if is_bytes else "clamp it, or give a function"
                raise ValueError(
                    f"{name}: expected numbers in [0, 1], got {low:.4g} to {high:.4g}; {remedy}"
                )
    if not bool(known.all()):
        raise ValueError("code: expected form + function + MASK_INVERT, got another number")


torch.serialization.add_safe_globals([MixMask])
