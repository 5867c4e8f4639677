"""How the patches of a batch are rearranged: :class:`PatchPlan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import floats, integers
from ..frozen import Frozen, versions
from ..tracing import has_host_values
from .checks import check_int32
from .rectangles import same
from .rows import copy_packed, to_device

_FIELDS = ("index", "sample", "mask", "partner", "partner_index", "weight")


class PatchPlan(Frozen):
    """Which patch of which sample each patch of a batch of B shows, and how two of them blend.

    ``T(x)[i, j] = x[sample_ij, index_ij]`` for patch j of a grid, zeros where ``index_ij < 0``;
    with a mask ``out = m · T(x) + (1 - m) · T'(x)``, T' of ``partner`` and ``partner_index``.

    Equivalent to (one grid of patches, no mask)::

        patches = x.unflatten(-1, (gw, -1)).unflatten(-3, (gh, -1))  # [B, …, gh, h, gw, w]
        patches = patches.movedim((-4, -2), (1, 2)).flatten(1, 2)  # [B, gh · gw, …, h, w]
        taken = patches[sample.flatten(1), index.flatten(1).clamp(min=0)]
        taken[index.flatten(1) < 0] = 0

    Args:
        index: integers [B, gh, gw]: a patch of a gh × gw grid, counted row by row; below 0 for
            zeros. None: each patch stays in its place.
        sample: integers [B], or [B, gh, gw] for each patch: the sample that is shown. None: the
            sample itself.
        mask: floats in [0, 1], [B, mh, mw]: the weight m of T on a grid of its own, which need not
            be that of the patches; each cell is a block of equal pixels. None: T alone.
        partner: as ``sample``, of what the mask blends with. Needed with a mask.
        partner_index: as ``index``, for the partner.
        weight: floats [B, K], label weights. None: with a mask ``(mean(m), 1 - mean(m))`` for the
            sample and its partner. Without one, 1 for the sample, or, where ``sample`` has a
            value for each patch, the share of each of the B samples (K = B), of the patches that
            are not zeros.

    Attributes:
        index, partner_index: int32 [B, gh, gw], or None.
        sample, partner: int32 [B] or [B, gh, gw], or None.
        mask: float32 [B, mh, mw], or None.
        weight: float32 [B, K].

    Raises:
        TypeError: a tensor of another dtype.
        ValueError: shapes that do not fit each other, a mask without a partner, mask values outside
            [0, 1] or NaN.
        IndexError: a sample outside [0, B), an index outside the grid.
        Values are checked where they live on the CPU, and again after a write to a tensor.

    Notes:
        Immutable; ``torch.save`` takes it, and ``torch.load(weights_only=True)`` gives it back.

    Source: Kim et al., Puzzle Mix, 2020, arXiv 2009.06962; Kim et al., Co-Mixup, 2021,
    arXiv 2102.03065.
    """

    __module__ = __package__.rpartition(".")[0]

    index: Tensor | None
    sample: Tensor | None
    mask: Tensor | None
    partner: Tensor | None
    partner_index: Tensor | None
    weight: Tensor
    _versions: tuple[float, ...] | None

    def __init__(
        self,
        index: Tensor | Sequence[Any] | None = None,  # [B, gh, gw]
        sample: Tensor | Sequence[Any] | None = None,  # [B] or [B, gh, gw]
        mask: Tensor | Sequence[Any] | None = None,  # [B, mh, mw]
        partner: Tensor | Sequence[Any] | None = None,  # [B] or [B, gh, gw]
        partner_index: Tensor | Sequence[Any] | None = None,  # [B, gh, gw]
        weight: Tensor | Sequence[Any] | None = None,  # [B, K]
    ) -> None:
        given = {
            "index": _int32("index", index),
            "sample": _int32("sample", sample),
            "mask": None if mask is None else floats("mask", mask).float().contiguous(),
            "partner": _int32("partner", partner),
            "partner_index": _int32("partner_index", partner_index),
        }
        _check_shapes(given)
        self._fill(**given)
        self._look()
        weight = self._weights() if weight is None else floats("weight", weight).float()
        if weight.ndim != 2 or len(weight) != self.batch_size:
            raise ValueError(
                f"weight: expected shape [{self.batch_size}, K], got {list(weight.shape)}"
            )
        self._fill(weight=weight.contiguous())

    def _tensors(self) -> list[Tensor | None]:
        return [getattr(self, name) for name in _FIELDS[:5]]

    def _first(self) -> Tensor:
        return next(t for t in self._tensors() if t is not None)

    # ------------------------------------------------------------ what the host knows

    def _look(self) -> None:
        """Check the values on the host."""
        batch = self.batch_size
        for sample_name, index_name in (("sample", "index"), ("partner", "partner_index")):
            sample, index = getattr(self, sample_name), getattr(self, index_name)
            _check_values(sample_name, sample, batch, 0)
            if index is not None:
                _check_values(index_name, index, index.shape[1] * index.shape[2], -(2**31))
        m = self.mask
        if m is not None and has_host_values(m) and not bool(((m >= 0) & (m <= 1)).all()):
            bad = m[~((m >= 0) & (m <= 1))]
            raise ValueError(
                f"mask: expected values in [0, 1], got {float(bad[0])}; use .clamp(0, 1), or "
                "sigmoid for logits"
            )
        self._fill(_versions=versions(*self._tensors()))

    def check_fit(self, name: str, size: Sequence[int]) -> None:
        """Raise ValueError where a grid of the plan does not divide ``size`` of tensor ``name``."""
        for field in _FIELDS[:5]:
            t = getattr(self, field)
            if t is None or t.ndim != 3:
                continue
            if any(n % cells for n, cells in zip(size, t.shape[1:], strict=True)):
                raise ValueError(
                    f"{field}: expected a grid that divides the {list(size)} of {name}, got "
                    f"{list(t.shape[1:])}; crop or resize {name}, or take another grid"
                )
        if self._versions != versions(*self._tensors()):
            self._look()

    def _weights(self) -> Tensor:
        batch, sample = self.batch_size, self.sample
        if self.mask is not None:
            mean = self.mask.flatten(1).double().mean(1)
            return torch.stack((mean, 1 - mean), 1).float()
        if sample is None or sample.ndim == 1:
            return torch.ones((batch, 1), device=self.device)
        shown = torch.ones_like(sample) if self.index is None else (self.index >= 0).int()
        counts = torch.zeros((batch, batch), dtype=torch.int32, device=self.device)
        counts.scatter_add_(1, sample.flatten(1).long(), shown.flatten(1))
        return counts / counts.sum(1, keepdim=True).clamp(min=1)

    # ------------------------------------------------------------ what it says

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return self._first().shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self._first().device

    @property
    def label_sources(self) -> Tensor:
        """int32 [B, K]: the sample whose label has weight ``weight[i, k]``."""
        batch, count = self.weight.shape
        every = torch.arange(batch, dtype=torch.int32, device=self.device)
        if self.mask is None and self.sample is not None and self.sample.ndim == 3:
            return every.expand(batch, batch)
        sides = [self.sample, self.partner][:count]
        for side in sides:
            if side is not None and side.ndim == 3:
                raise ValueError(
                    "label_sources: expected one sample and one partner for each sample, got some "
                    "for each patch; give labels and weights of your own"
                )
        return torch.stack([every if s is None else s for s in sides], 1)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> PatchPlan:
        """The same plan on ``device``. From the host this is one copy of one (pinned) buffer."""
        device = torch.device(device)
        there = {name: getattr(self, name) for name in _FIELDS}
        tensors = [t for t in there.values() if t is not None]
        if all(t.device == device for t in tensors):
            return self
        if device.type == "cpu" or self.device.type != "cpu":
            moved = [to_device(t, device) for t in tensors]
        else:
            moved = copy_packed(tensors, device, non_blocking)
        new = iter(moved)
        plan = object.__new__(PatchPlan)
        plan._fill(**{name: None if t is None else next(new) for name, t in there.items()})
        plan._fill(_versions=versions(*plan._tensors()))
        return plan

    def __reduce__(self) -> tuple[Any, ...]:
        return PatchPlan, tuple(getattr(self, name) for name in _FIELDS)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PatchPlan):
            return NotImplemented
        return all(same(getattr(self, name), getattr(other, name)) for name in _FIELDS)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = (
            f"{name}={list(t.shape)}" for name in _FIELDS if (t := getattr(self, name)) is not None
        )
        return f"PatchPlan({', '.join(fields)}, device={str(self.device)!r})"


torch.serialization.add_safe_globals([PatchPlan])


def _int32(name: str, value: Tensor | Sequence[Any] | None) -> Tensor | None:
    if value is None:
        return None
    t = integers(name, value)
    check_int32(name, t)
    return t.to(torch.int32).contiguous()


def _check_shapes(given: dict[str, Tensor | None]) -> None:
    tensors = {name: t for name, t in given.items() if t is not None}
    if not tensors:
        raise ValueError("index: expected an index, a sample or a mask, got none of them")
    if (given["mask"] is None) != (given["partner"] is None):
        raise ValueError("partner: expected it with a mask, which blends with it, and only there")
    if given["mask"] is None and given["partner_index"] is not None:
        raise ValueError("partner_index: expected None without a mask, which blends with it")
    first, like = next(iter(tensors.items()))
    for name, t in tensors.items():
        per_sample = name in ("sample", "partner") and t.ndim == 1
        if not per_sample and (t.ndim != 3 or 0 in t.shape[1:]):
            also = "[B] or " if name in ("sample", "partner") else ""
            raise ValueError(
                f"{name}: expected shape {also}[B, rows, columns], got {list(t.shape)}; "
                "a map [B, G] becomes one by .view(B, rows, columns)"
            )
        if len(t) != len(like):
            raise ValueError(f"{name}: expected {len(like)} rows as in {first}, got {len(t)}")
        if t.device != like.device:
            raise ValueError(f"{name}: expected it on {like.device} like {first}, got {t.device}")
    for name, other in (("sample", "index"), ("partner", "partner_index")):
        a, b = given[name], given[other]
        if a is not None and b is not None and a.ndim == 3 and a.shape != b.shape:
            raise ValueError(
                f"{name}: expected [B] or the shape of {other}, {list(b.shape)}, got "
                f"{list(a.shape)}"
            )


def _check_values(name: str, t: Tensor | None, count: int, least: int) -> None:
    if t is None or not has_host_values(t) or not t.numel():
        return
    low, high = (int(v) for v in torch.aminmax(t))
    if low < least or high >= count:
        got = low if low < least else high
        raise IndexError(f"{name}: expected indices in [{max(least, 0)}, {count}), got {got}")
