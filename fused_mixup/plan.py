"""How a batch is mixed: :class:`MixPlan`.

A plan holds four small tensors, one row per sample. Every backend applies the same rule to the
original values of the batch:

    out[i, ..., p] = x[partner_i, ..., p]                              where p lies in box_i
                     blend_i0 * x[i, ..., p] + blend_i1 * x[partner_i, ..., p]      elsewhere

A weight of exactly 0 drops its term, so a partner that is not used never brings in a NaN.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .plan_checks import (
    PAIRINGS,
    Facts,
    check_corners,
    check_int32,
    check_lam,
    check_layout,
    check_values,
    floats,
    integers,
    is_host_row,
    is_permutation,
    partner_indices,
)
from .plan_rows import copy_packed, host_rows, pairing_of


@dataclass(frozen=True, eq=False, repr=False)
class MixPlan:
    """How every sample of a batch of B is mixed, as four small tensors.

    Most plans come from :meth:`uniform`, :meth:`per_sample` or :meth:`identity`. A plan can be
    printed, compared, pickled, moved with :meth:`to`, and applied again to anything with the same
    batch size: images, masks, soundtracks, labels of several heads.

    Attributes:
        partner: int32 [B], index of the sample that is mixed into sample i.
        weight: float32 [B, 2], label weights of the sample itself and of its partner.
        blend: float64 [B, 2], value weights of the two outside the box.
        box: int32 [B, 2·D], half-open box pasted from the partner: D starts, then D stops; D is
            1, 2 or 3, or 0 where no row has a box.
        pairing: ``"flip"`` (partner B-1-i), ``"roll"`` (i-1), ``"self"``, or ``"tensor"``. For the
            rules, kernels work the partner out and never read the tensor.

    The rows of a plan made by :meth:`uniform` are one row, expanded, on the CPU. Kernels take
    it as plain arguments, so such a plan serves a batch on any device without a copy.

    Raises:
        TypeError: a field that is not a tensor of the dtype above.
        ValueError: a shape that does not fit, or a box that is reversed or negative.
        IndexError: a partner outside [0, B).
        Values are checked where they live on the CPU.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    partner: Tensor
    weight: Tensor
    blend: Tensor
    box: Tensor
    pairing: str = "tensor"
    _facts: Facts = field(init=False)
    _portable: bool = field(init=False)

    def __post_init__(self) -> None:
        check_layout(self)
        for name in ("partner", "weight", "blend", "box"):
            t = getattr(self, name)
            # Kernels step from row to row; inside a row, elements are adjacent.
            if t.shape[-1] > 1 and t.stride(-1) != 1:
                object.__setattr__(self, name, t.contiguous())
        self._know(check_values(self))

    def _know(self, facts: Facts) -> None:
        one_row = is_host_row(self.weight) and is_host_row(self.blend) and is_host_row(self.box)
        self.__dict__.update(_facts=facts, _portable=one_row and self.pairing != "tensor")

    @staticmethod
    def _of(tensors: Sequence[Tensor | None], pairing: str, facts: Facts) -> MixPlan:
        """A plan of rows known to be right: checking them costs as much as mixing a small batch.

        ``tensors``: partner (None where ``pairing`` is a rule), weight, blend, box.
        """
        plan = object.__new__(MixPlan)
        partner, weight, blend, box = tensors
        plan.__dict__.update(weight=weight, blend=blend, box=box, pairing=pairing)
        if partner is not None:  # a rule's is worked out where somebody asks for it
            plan.__dict__["partner"] = partner
        plan._know(facts)
        return plan

    def __getattr__(self, name: str) -> Tensor:
        # What is missing: the partners of a rule, which kernels never read. They are not kept: made
        # in a mode of PyTorch's (fake, functional, inference), they are of use in that mode alone.
        if name != "partner" or self.pairing == "tensor":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return partner_indices(self.rule, self.batch_size, self.weight.device)

    # ---------------------------------------------------------------- making one

    @staticmethod
    def identity(batch_size: int) -> MixPlan:
        """The plan that leaves each of the ``batch_size`` samples as it is."""
        return MixPlan.uniform(batch_size, "self", 1.0)

    @staticmethod
    def uniform(
        batch_size: int,
        partner: str | Tensor = "flip",
        lam: float = 1.0,
        box: Sequence[int] | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> MixPlan:
        """One λ, and one box or none, for the whole batch.

        Without a box this is MixUp: ``lam * x[i] + (1 - lam) * x[partner_i]``. With one it is
        CutMix: the box is pasted, values outside stay, ``lam`` weighs the labels only.

        Args:
            batch_size: B, at least 0.
            partner: ``"flip"`` (B-1-i), ``"roll"`` (i-1), ``"self"``, or integers [B].
            lam: weight of the sample itself, in [0, 1].
            box: D starts, then D stops, as :func:`cutmix_box` returns them.
            device: where a partner tensor goes; by default it stays where it is.

        Returns:
            A plan of one row; see the class on which devices it serves.

        Raises:
            TypeError, ValueError, IndexError: an argument that is not as described.

        Source: arXiv 1710.09412 (MixUp), arXiv 1905.04899 (CutMix).
        """
        lam = check_lam(lam)
        corners = () if box is None else check_corners(box)
        # A rule's plan serves every device from the host; only a partner tensor is moved.
        pairing, batch_size, index = pairing_of(batch_size, partner, device)
        weight = lam, 1.0 - lam
        rows = host_rows(batch_size, weight, weight if box is None else (1.0, 0.0), corners)
        d = len(corners) // 2
        empty = not all(map(operator.lt, corners[:d], corners[d:]))
        facts = Facts(
            is_permutation=True if index is None else is_permutation(pairing, index),
            blends=box is None and lam != 1.0,
            box_stop=(0,) * d if empty else corners[d:],
        )
        return MixPlan._of((index, *rows), pairing, facts)

    @staticmethod
    def per_sample(
        lam: Tensor | Sequence[float],
        partner: str | Tensor = "flip",
        box: Tensor | Sequence[Sequence[int]] | None = None,
        cut: Tensor | Sequence[bool] | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> MixPlan:
        """A λ, and perhaps a box, for each sample.

        A row that is cut keeps its values outside the box and ``lam`` weighs its labels only;
        the other rows are blended.

        Args:
            lam: [B] floats in [0, 1]; 1-λ is taken in their dtype (float32 at least).
            partner: as in :meth:`uniform`.
            box: integers [B, 2·D]; an empty box (start == stop) for a row that has none.
            cut: bools [B], which rows are CutMix; by default those with a box that is not empty. A
                cut row with an empty box keeps its values, and its ``lam`` weighs its labels.
            device: where the plan goes, in one copy; by default it stays where ``lam`` is.

        Returns:
            A plan with a row for each sample.

        Raises:
            TypeError, ValueError, IndexError: an argument that is not as described. Values are
                checked where they live on the CPU.

        Source: arXiv 1710.09412 (MixUp), arXiv 1905.04899 (CutMix).
        """
        lam = floats("lam", lam)
        if lam.ndim != 1:
            raise ValueError(f"lam: expected shape [B], got {list(lam.shape)}")
        if lam.dtype in (torch.float16, torch.bfloat16):
            lam = lam.float()  # in half precision λ and 1-λ would not sum to one
        if lam.device.type == "cpu" and not bool(((lam >= 0) & (lam <= 1)).all()):
            raise ValueError(f"lam: expected numbers in [0, 1], got {lam.tolist()}")
        batch_size = lam.shape[0]
        weight = torch.stack((lam, 1 - lam), 1)
        if box is None:
            boxes = torch.empty((batch_size, 0), dtype=torch.int32, device=lam.device)
            has_box = torch.zeros(batch_size, dtype=torch.bool, device=lam.device)
        else:
            boxes = integers("box", box).to(lam.device)
            check_int32("box", boxes)
            boxes = boxes.to(torch.int32)
            if boxes.numel() == 0 and batch_size == 0:
                boxes = boxes.view(0, boxes.shape[-1] if boxes.ndim == 2 else 0)
            if boxes.ndim != 2 or boxes.shape[0] != batch_size:
                raise ValueError(
                    f"box: expected shape [{batch_size}, 2·D] (one row for each λ), "
                    f"got {list(boxes.shape)}"
                )
            d = boxes.shape[1] // 2
            has_box = (boxes[:, d:] > boxes[:, :d]).all(1)
        is_cut = has_box if cut is None else torch.as_tensor(cut, device=lam.device)
        if is_cut.shape != (batch_size,) or (batch_size and is_cut.dtype != torch.bool):
            raise ValueError(
                f"cut: expected bools of shape [{batch_size}], got {is_cut.dtype} "
                f"{list(is_cut.shape)}"
            )
        if cut is not None and box is None:
            raise ValueError("cut: expected box beside it: a row that is cut needs one")
        is_cut = is_cut.bool()
        own, other = weight.double().unbind(1)
        blend = torch.stack((own.where(~is_cut, 1.0), other.where(~is_cut, 0.0)), 1)
        # A box on a row that is not cut would still be pasted: empty it.
        boxes = torch.where(is_cut[:, None], boxes, 0)
        pairing, _, index = pairing_of(batch_size, partner, lam.device)
        if index is None:
            index = partner_indices(PAIRINGS[pairing], batch_size, lam.device)
        plan = MixPlan(index, weight.float(), blend, boxes, pairing)
        return plan if device is None else plan.to(device)

    # ---------------------------------------------------------------- asking it

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return self.weight.shape[0]

    @property
    def spatial_dims(self) -> int:
        """D, the number of spatial dims of its boxes (0 where it has none)."""
        return self.box.shape[1] // 2

    @property
    def device(self) -> torch.device:
        """Where its tensors live; a uniform plan by rule is on the CPU and serves any device."""
        return self.partner.device if self.pairing == "tensor" else self.weight.device

    @property
    def is_permutation(self) -> bool | None:
        """Whether each sample is the partner of exactly one; None where only a device knows."""
        return self._facts.is_permutation

    @property
    def inverse_partner(self) -> Tensor:
        """int32 [B]: the sample whose partner is i. ValueError where that is not one for each i.

        For a partner tensor made on a device nothing is read back: it must be a permutation.
        """
        if self.is_permutation is False:
            raise ValueError(
                "inverse_partner: this pairing is no permutation (some sample is the partner of "
                "several), so it has no inverse"
            )
        return torch.argsort(self.partner).to(torch.int32)

    @property
    def rule(self) -> int:
        """The pairing as the kernels' integer code."""
        return PAIRINGS[self.pairing]

    @property
    def partner_or_none(self) -> Tensor | None:
        """The partner tensor where the kernels need it, None where a rule gives it."""
        return self.partner if self.pairing == "tensor" else None

    @property
    def blends(self) -> bool:
        """Whether some row is known to blend values; False where only a device knows."""
        return self._facts.blends

    def serves(self, device: torch.device) -> bool:
        """Whether the kernels can apply this plan to a batch on ``device`` as it is."""
        if self._portable:
            return True
        if self.pairing == "tensor" and self.partner.device != device:
            return False
        rows = (self.weight, self.blend, self.box)
        return all(t.device == device or is_host_row(t) for t in rows)

    def check_boxes(self, name: str, spatial: Sequence[int]) -> None:
        """ValueError where a box is known to leave the ``spatial`` sizes of tensor ``name``."""
        stops = self._facts.box_stop
        if any(stop > size for stop, size in zip(stops, spatial, strict=False)):
            raise ValueError(
                f"plan: expected boxes inside the last {len(stops)} dims of {name}, "
                f"{list(spatial)}, got stops up to {list(stops)}; draw boxes for this size"
            )

    # ---------------------------------------------------------------- moving, comparing, printing

    def to(self, device: torch.device | str, non_blocking: bool = True) -> MixPlan:
        """The same plan on ``device``. From the host this is one copy of one (pinned) buffer."""
        device = torch.device(device)
        tensors = (self.blend, self.weight, self.partner, self.box)  # widest dtype first: aligned
        if all(t.device == device for t in tensors):
            return self
        if device.type == "cpu" or any(t.device.type != "cpu" for t in tensors):
            moved = [t.to(device) for t in tensors]
        else:
            moved = copy_packed(tensors, device, non_blocking)
        blend, weight, partner, box = moved
        return MixPlan._of((partner, weight, blend, box), self.pairing, self._facts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MixPlan):
            return NotImplemented
        return all(
            torch.equal(getattr(self, name).cpu(), getattr(other, name).cpu())
            for name in ("partner", "weight", "blend", "box")
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        head = f"MixPlan(batch_size={self.batch_size}, pairing={self.pairing!r}, "
        head += f"spatial_dims={self.spatial_dims}, device={str(self.device)!r})"
        if any(t.device.type != "cpu" for t in (self.partner, self.weight, self.box)):
            return head
        shown = min(self.batch_size, 8)
        partner = self.partner[:shown].tolist()
        rows = [
            f"  {i}: partner {partner[i]}, weight ({w[0]:.4g}, {w[1]:.4g}), "
            f"blend ({b[0]:.4g}, {b[1]:.4g}), box {self.box[i].tolist() or 'none'}"
            for i, (w, b) in enumerate(
                zip(self.weight[:shown].tolist(), self.blend[:shown].tolist(), strict=True)
            )
        ]
        if shown < self.batch_size:
            rows.append(f"  … {self.batch_size - shown} more")
        return "\n".join([head, *rows])
