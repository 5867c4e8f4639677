"""The tensors of a plan, moved, compared, printed, shown, and mapped to other sizes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..arguments import integer_tuple, is_host_row
from ..frozen import Frozen
from .checks import Facts, check_stops
from .rows import copy_packed, format_rows, map_rows, to_device, widen

if TYPE_CHECKING:
    from typing_extensions import Self


class PlanRows(Frozen):
    """The methods of :class:`fused_mixup.MixPlan` that give another plan, or text."""

    weight: Tensor  # [B, 2]
    blend: Tensor  # [B, 2]
    box: Tensor  # [B, 2·D]
    pairing: str
    partner: Any  # [B]
    _partner: Tensor | None  # [B], None where the pairing is a rule
    mask: Any  # a MixMask, or None
    pool: int | None

    @property
    def _facts(self) -> Facts:
        raise NotImplementedError

    def _replace(
        self, partner: Tensor | None, weight: Tensor, blend: Tensor, box: Tensor, facts: Facts
    ) -> Self:
        """The plan with other tensors, whose values have been checked."""
        raise NotImplementedError

    def with_mask(self, mask: Any) -> Self:
        raise NotImplementedError

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return self.weight.shape[0]

    @property
    def spatial_dims(self) -> int:
        """D, the number of spatial dims of the boxes (0 without boxes)."""
        return self.box.shape[1] // 2

    @property
    def device(self) -> torch.device:
        """Where the tensors live; a uniform plan by rule is on the CPU and serves any device."""
        return (self.weight if self._partner is None else self._partner).device

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        """The same plan on ``device``. From the host this is one copy of one (pinned) buffer."""
        device = torch.device(device)
        rows = (self.blend, self.weight, self.box)  # widen dtype first: aligned
        tensors = rows if self._partner is None else (*rows, self._partner)
        near = self.mask is None or self.mask.device == device
        if near and all(t.device == device for t in tensors):
            return self
        if device.type == "cpu" or any(t.device.type != "cpu" for t in tensors):
            moved = [to_device(t, device) for t in tensors]
        else:
            moved = copy_packed(tensors, device, non_blocking)
        blend, weight, box, *partner = moved
        plan = self._replace(partner[0] if partner else None, weight, blend, box, self._facts)
        return plan if self.mask is None else plan.with_mask(self.mask.to(device, non_blocking))

    def for_labels(self) -> Self:
        """The plan by which labels are blended: ``weight`` in the place of ``blend``, no boxes."""
        facts = Facts(self._facts.is_permutation, False, ())
        blend = map_rows(widen, self.weight)
        plan = self._replace(self._partner, self.weight, blend, self.box[:, :0], facts)
        return plan if self.mask is None else plan.with_mask(None)

    def resize(
        self, size: Sequence[int], new_size: Sequence[int], *, correct_lam: bool = True
    ) -> Self:
        """The plan for entries of ``new_size`` that show what entries of ``size`` show.

        Each bound of a box goes to the nearest whole pixel: ``floor(bound · n'/n + 1/2)``. The
        weights of a row with a box become the shares that are really pasted at the new size.

        Equivalent to (two dims, a row with a box)::

            h, w = size
            scale = torch.tensor([new_h / h, new_w / w] * 2)
            box = torch.floor(plan.box * scale + 0.5)
            inside = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / (new_h * new_w)
            weight = torch.stack((1 - inside, inside), 1)

        Args:
            size: the D spatial sizes in which the boxes lie, e.g. ``(H, W)``.
            new_size: the D spatial sizes of the entry.
            correct_lam: False keeps the weights.

        Returns:
            A plan of the same rows; itself where the sizes are equal, or without boxes.

        Raises:
            TypeError, ValueError: sizes that are not D ints above 0, or a box outside ``size``.
        """
        if self.mask is not None:
            plan = self.with_mask(None).resize(size, new_size, correct_lam=correct_lam)
            return plan.with_mask(self.mask.resize(new_size))
        d = self.spatial_dims
        size, new_size = integer_tuple("size", size), integer_tuple("new_size", new_size)
        if d == 0 or size == new_size:
            return self
        for name, sizes in (("size", size), ("new_size", new_size)):
            if len(sizes) != d or min(sizes) < 1:
                raise ValueError(f"{name}: expected {d} sizes above 0, got {list(sizes)}")
        if not torch.compiler.is_compiling():
            check_stops(self._facts.box_stop, "size", size)
        one_row = is_host_row(self.weight) and is_host_row(self.blend) and is_host_row(self.box)
        rows = slice(1) if one_row else slice(None)  # one row stays one row
        weight, blend, old = self.weight[rows], self.blend[rows], self.box[rows]
        scale = tuple(zip(size, new_size, strict=True))
        bounds = [
            (2 * new * old[:, k].long() + n) // (2 * n) for k, (n, new) in enumerate(scale * 2)
        ]
        box = torch.stack(bounds, 1)
        if correct_lam:
            cut = (old[:, d:] > old[:, :d]).all(1)
            inside = (box[:, d:] - box[:, :d]).prod(1) / math.prod(new_size)
            own, other = blend.unbind(1)
            share = torch.stack((own * (1 - inside), other * (1 - inside) + inside), 1)
            weight = torch.where(cut[:, None], share.float(), weight)
        known = self._facts.box_stop  # () where the boxes live on a device
        stops = [(2 * new * s + n) // (2 * n) for s, (n, new) in zip(known, scale, strict=False)]
        facts = Facts(self._facts.is_permutation, self._facts.blends, tuple(stops))
        size = (self.batch_size, -1)
        weight, box = weight.expand(size), box.to(torch.int32).expand(size)
        return self._replace(self._partner, weight, self.blend, box, facts)

    def cuts_maps(self, labels: Tensor) -> bool:
        """Whether labels [B, …] are maps to paste in; ValueError where the plan does not fit."""
        d = self.spatial_dims if self.mask is None else 2
        if d == 0 or labels.ndim - 1 < d:
            return False
        if self.mask is not None:
            self.mask.check("labels", labels)
        if not torch.compiler.is_compiling():
            check_stops(self._facts.box_stop, "labels", labels.shape[labels.ndim - d :])
        return True

    def over_whole(self, size: int) -> Self:
        """The plan whose boxes have one more dim, the last, all ``size`` of which they cover."""
        one_row = is_host_row(self.box)
        box = self.box[:1] if one_row else self.box
        d = self.spatial_dims
        low, high = torch.zeros_like(box[:, :1]), torch.full_like(box[:, :1], size)
        wider = torch.cat((box[:, :d], low, box[:, d:], high), 1).expand(self.batch_size, -1)
        known = self._facts
        stops = (*known.box_stop, size) if any(known.box_stop) else known.box_stop
        facts = Facts(known.is_permutation, known.blends, stops)
        return self._replace(self._partner, self.weight, self.blend, wider, facts)

    def show(self, x: Any, target: Any = None, **options: Any) -> Any:
        """A figure of the batch ``x`` that this plan mixed, with its labels and weights.

        ``plan.show(x, target)`` at the end of a notebook's cell shows it. It needs Pillow.

        Equivalent to::

            fused_mixup.preview.show(plan, x, target, **options)

        Args:
            x: [B, C, H, W] or [B, H, W], mixed; floats or uint8, on any device. Or the dict that
                :class:`BatchMix` returned.
            target: a :class:`MixedTarget`, or dense [B, K]; None for none.
            options: as in :func:`fused_mixup.preview.show`, ``mixed=False`` for a batch that is yet
                to be mixed.

        Returns:
            A ``PIL.Image``.

        Raises:
            ImportError: without Pillow.
            TypeError, ValueError: a batch that is no images, or of another size than the plan's.
        """
        # By name, as importing this package must not import the preview.
        preview = importlib.import_module("..preview", __package__)
        return preview.show(self, x, target, **options)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PlanRows):
            return NotImplemented
        same = self.mask == other.mask and self.pool == other.pool
        return same and all(
            torch.equal(getattr(self, name).cpu(), getattr(other, name).cpu())
            for name in ("partner", "weight", "blend", "box")
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        head = (
            f"MixPlan(batch_size={self.batch_size}, pairing={self.pairing!r}, "
            f"spatial_dims={self.spatial_dims}, device={str(self.device)!r}"
            + (f", mask={self.mask!r}" if self.mask is not None else "")
            + (f", pool={self.pool}" if self.pool is not None else "")
            + ")"
        )
        return "\n".join([head, *format_rows(self.partner, self.weight, self.blend, self.box)])
