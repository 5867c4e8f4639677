"""How a batch is mixed: :class:`MixPlan`.

A plan holds four small tensors, one row per sample. Every backend applies the same rule to the
original values of the batch:

    out[i, ..., p] = x[partner_i, ..., p]                              where p lies in box_i
                     m_i(p) * x[i, ..., p] + (1 - m_i(p)) * x[partner_i, ..., p]    with a mask
                     blend_i0 * x[i, ..., p] + blend_i1 * x[partner_i, ..., p]      elsewhere

A weight of exactly 0 drops its term, so a partner that is not used never brings in a NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import is_host_row
from ..codes import PAIRINGS
from ..frozen import versions
from ..reference.pairing import partner_indices
from ..tracing import has_host_values
from .checks import Facts, check_layout, check_pool, check_rule, check_stops, check_values
from .mask import PlanMask, check_mask
from .plan_rows import PlanRows
from .tensors import pairing_of, rows_per_sample, uniform_rows


class MixPlan(PlanRows):
    """How every sample of a batch of B is mixed, as four small tensors.

    Most plans come from :meth:`uniform`, :meth:`per_sample` or :meth:`identity`. A plan can be
    printed, compared, pickled, moved with :meth:`to`, and applied again to anything with the same
    batch size: images, masks, soundtracks, labels of several heads.

    Attributes:
        partner: int32 [B], index of the sample that is mixed into sample i. None may be given
            where ``pairing`` is a rule.
        weight: float32 [B, 2], label weights of the sample itself and of its partner.
        blend: float64 [B, 2], value weights of the two outside the box (float32 on a device that
            has no float64).
        box: int32 [B, 2·D], half-open box pasted from the partner: D starts, then D stops; D is
            1, 2 or 3, or 0 where no row has a box.
        pairing: ``"flip"`` (partner B-1-i), ``"roll"`` (i-1), ``"self"``, or ``"tensor"``. For a
            rule, kernels compute the partner, and no partner tensor is kept.
        mask: a :class:`fused_mixup.masks.MixMask` of B samples or of one for all, by which values
            are mixed outside the box in place of ``blend``; None for none.
        pool: how many samples there are to take partners from, where they are those of another
            tensor (``mix(x, plan, other=bank)``); None for the batch itself.

    The rows of a plan made by :meth:`uniform` are one row, expanded, on the CPU. Kernels take
    it by value, so such a plan serves a batch on any device without a copy.

    Raises:
        TypeError: a field that is not a tensor of the dtype above.
        ValueError: a shape that does not fit, or a box that is reversed or negative.
        IndexError: a partner outside [0, B).
        Values are checked where they live on the CPU, and again after a write to one of the
        tensors.

    Notes:
        Immutable, and no dataclass: code that casts or shards the tensors of a batch meets a leaf,
        so weights keep their dtype. ``torch.save`` takes it, and ``torch.load`` gives it back with
        ``weights_only=True``.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    __module__ = __package__  # the module in a saved plan

    _seen: Facts
    _versions: tuple[float, ...] | None
    _portable: bool
    mask: PlanMask | None
    pool: int | None

    def __init__(
        self,
        partner: Tensor | None,  # [B]
        weight: Tensor,  # [B, 2]
        blend: Tensor,  # [B, 2]
        box: Tensor,  # [B, 2·D]
        pairing: str = "tensor",
        mask: PlanMask | None = None,
        pool: int | None = None,
    ) -> None:
        check_layout(partner, weight, blend, box, pairing)
        mask, pool = check_mask(mask, box), check_pool(pool, pairing, len(weight))
        if partner is not None and pairing != "tensor":
            if has_host_values(partner):  # else the rule is taken on trust
                check_rule(pairing, partner, partner_indices(PAIRINGS[pairing], len(weight)))
            partner = None
        # Kernels step from row to row; inside a row, elements are adjacent.
        weight, blend, box = (
            t.contiguous() if t.shape[1] > 1 and t.stride(1) != 1 else t
            for t in (weight, blend, box)
        )
        partner = None if partner is None else partner.contiguous()
        self._fill(_partner=partner, weight=weight, blend=blend, box=box, pairing=pairing)
        self._fill(mask=mask, pool=pool)
        self._set_facts(check_values(partner, weight, blend, box, pool))

    def _set_facts(self, facts: Facts) -> None:
        one_row = is_host_row(self.weight) and is_host_row(self.blend) and is_host_row(self.box)
        self._fill(
            _seen=facts,
            _versions=versions(self._partner, self.weight, self.blend, self.box),
            _portable=one_row and self.pairing != "tensor" and self.mask is None,
        )

    @property
    def _facts(self) -> Facts:
        """What the host knows of the values, checked again after a write to them."""
        if self._versions != versions(self._partner, self.weight, self.blend, self.box):
            values = self._partner, self.weight, self.blend, self.box
            self._set_facts(check_values(*values, self.pool))
        return self._seen

    def _replace(
        self, partner: Tensor | None, weight: Tensor, blend: Tensor, box: Tensor, facts: Facts
    ) -> MixPlan:
        tensors = partner, weight, blend, box
        return known_plan(tensors, self.pairing, facts, self.mask, self.pool)

    def __reduce__(self) -> tuple[Any, ...]:
        rows = self._partner, self.weight, self.blend, self.box, self.pairing
        more = self.mask, self.pool
        return MixPlan, rows if more == (None, None) else (*rows, *more)

    def with_mask(self, mask: PlanMask | None) -> MixPlan:
        """The plan that mixes by ``mask``; labels keep their weights (see :meth:`with_weight`)."""
        tensors = self._partner, self.weight, self.blend, self.box
        mask = check_mask(mask, self.box)
        return known_plan(tensors, self.pairing, self._facts, mask, self.pool)

    def with_weight(self, weight: Tensor) -> MixPlan:
        """The plan with other label weights, float32 [B, 2] or those of the samples alone, [B].

        ``plan.with_weight(plan.mask.mean(size))`` weighs labels by what is seen.
        """
        if isinstance(weight, Tensor) and weight.ndim == 1:
            weight = torch.stack((weight, 1 - weight), 1)
        if isinstance(weight, Tensor) and weight.shape[:1] != (self.batch_size,):
            raise ValueError(
                f"weight: expected shape [{self.batch_size}] or [{self.batch_size}, 2] as in the "
                f"plan, got {list(weight.shape)}; use .expand"
            )
        rows = self._partner, weight, self.blend, self.box, self.pairing
        return MixPlan(*rows, self.mask, self.pool)

    @property
    def partner(self) -> Tensor:
        # A rule's tensor is not kept: one made in a mode of PyTorch (fake, functional, inference)
        # would be usable in that mode alone.
        if self._partner is not None:
            return self._partner
        return partner_indices(self.rule, self.batch_size, self.weight.device)

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
        pool: int | None = None,
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
            pool: as in the class; partners are then in [0, pool).

        Returns:
            A plan of one row; see the class on which devices it serves.

        Raises:
            TypeError, ValueError, IndexError: an argument that is not as described.

        Source: arXiv 1710.09412 (MixUp), arXiv 1905.04899 (CutMix).
        """
        # A rule's plan serves every device from the host; only a partner tensor is moved.
        pairing, batch_size, index = pairing_of(batch_size, partner, device, pool)
        rows, facts = uniform_rows(batch_size, lam, box, index)
        pool = check_pool(pool, pairing, batch_size)
        return known_plan((index, *rows), pairing, facts, None, pool)

    @staticmethod
    def per_sample(
        lam: Tensor | Sequence[float],  # [B]
        partner: str | Tensor = "flip",  # [B]
        box: Tensor | Sequence[Sequence[int]] | None = None,  # [B, 2·D]
        cut: Tensor | Sequence[bool] | None = None,  # [B]
        *,
        device: torch.device | str | None = None,
        pool: int | None = None,
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
            pool: as in the class; partners are then in [0, pool).

        Returns:
            A plan with a row for each sample.

        Raises:
            TypeError, ValueError, IndexError: an argument that is not as described. Values are
                checked where they live on the CPU.

        Source: arXiv 1710.09412 (MixUp), arXiv 1905.04899 (CutMix).
        """
        weight, blend, boxes = rows_per_sample(lam, box, cut)
        batch_size = weight.shape[0]
        pairing, _, index = pairing_of(batch_size, partner, weight.device, pool)
        plan = MixPlan(index, weight, blend, boxes, pairing, None, pool)
        return plan if device is None else plan.to(device)

    @property
    def is_permutation(self) -> bool | None:
        """Whether each sample is the partner of exactly one; None where only a device knows."""
        return self._facts.is_permutation

    @property
    def inverse_partner(self) -> Tensor:
        """int32 [B]: the sample whose partner is i. Raises ValueError for no permutation.

        A partner tensor made on a device is not read back: it must be a permutation.
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
        return self._partner

    @property
    def blends(self) -> bool:
        """Whether some row is known to blend values; False where only a device knows."""
        return self._facts.blends

    def serves(self, device: torch.device) -> bool:
        """Whether the kernels can apply this plan to a batch on ``device`` as it is."""
        if self._portable:
            return True
        if self._partner is not None and self._partner.device != device:
            return False
        if self.mask is not None and self.mask.device != device:
            return False
        rows = (self.weight, self.blend, self.box)
        return all(t.device == device or is_host_row(t) for t in rows)

    def check_boxes(self, name: str, spatial: Sequence[int]) -> None:
        """Raise ValueError if a box is known to leave the ``spatial`` sizes of tensor ``name``."""
        check_stops(self._facts.box_stop, name, spatial)


def known_plan(
    tensors: Sequence[Tensor | None],
    pairing: str,
    facts: Facts,
    mask: PlanMask | None = None,
    pool: int | None = None,
) -> MixPlan:
    """A plan of checked rows: checking them again costs as much as mixing a small batch.

    ``tensors``: partner (not kept where ``pairing`` is a rule), weight, blend, box.
    """
    plan = object.__new__(MixPlan)
    partner, weight, blend, box = tensors
    partner = partner if pairing == "tensor" else None
    plan._fill(_partner=partner, weight=weight, blend=blend, box=box, pairing=pairing)
    plan._fill(mask=mask, pool=pool)
    plan._set_facts(facts)
    return plan
