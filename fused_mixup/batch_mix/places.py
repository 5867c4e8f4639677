"""Where the boxes of a batch lie in each of its entries.

Boxes are drawn in the sizes of one entry, the first that is an image or the like. Entries of the
same scene share them, mapped to their sizes by :meth:`fused_mixup.MixPlan.resize`; entries where a
box has no meaning are blended by the label weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..kinds import KINDS, MAPS
from ..plan.mix_plan import MixPlan
from .entries import Entry

CUTS = {"space": 0, "time": 1}  # the choices of ``cut``


class Place(NamedTuple):
    """The sizes in which an entry's boxes lie, and the dim of a box in time."""

    sizes: tuple[int, ...] = ()  # (): no box has a meaning here
    dim: int = -1  # the last dim of the box


class Scene:
    """The entry whose sizes the boxes are drawn in, and the places of the others."""

    def __init__(
        self, entry: Entry, shape: Sequence[int], spatial_dims: int | None, cut: str, cuts: bool
    ) -> None:
        self.entry, self.cut, self.cuts = entry, cut, cuts
        kind = KINDS[entry.kind]
        if cut == "time" and cuts:
            if kind.time is None:
                raise ValueError(
                    f"{entry.name}: expected a kind that has time for cut='time', got "
                    f"{entry.kind!r}; give video or audio first, or cut='space'"
                )
            _check_dims(entry, shape, -kind.time - 1, "time")
            self.place = Place((shape[kind.time],), kind.time)
            return
        dims = kind.space if spatial_dims is None else spatial_dims
        first = 2 if dims is None else len(shape) - dims
        if cuts or spatial_dims is not None:
            _check_dims(entry, shape, dims or 0, "spatial")
        self.place = Place(tuple(shape[first:]) if first > 0 else ())

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes in which boxes are drawn; () where none are."""
        return self.place.sizes if self.cuts else ()

    def place_of(self, entry: Entry, shape: Sequence[int]) -> Place:
        """The place of the boxes in an entry; ValueError where the scene's are not legal there."""
        sizes = self.sizes
        if not sizes or entry is self.entry:
            return self.place if sizes else Place()
        kind = KINDS[entry.kind]
        if self.cut == "time":
            if entry.kind in MAPS:
                raise ValueError(
                    f"{entry.name}: expected no map, as boxes are cut in time, got one; use "
                    "cut='space', or say the kind 'video' of soft maps [B, T, C, H, W]"
                )
            if kind.time is None:
                return Place()
            _check_dims(entry, shape, -kind.time - 1, "time")
            return Place((shape[kind.time],), kind.time)
        own = KINDS[self.entry.kind].scene
        if {own, kind.scene} == {"sound", "spectrogram"} and len(sizes) == 1:
            return Place((shape[-1],))  # a span of time in both
        if kind.scene not in (own, "any"):
            return Place()
        _check_dims(entry, shape, len(sizes), "spatial")
        place = Place(tuple(shape[len(shape) - len(sizes) :]))
        if entry.kind in MAPS and not _same_form(sizes, place.sizes):
            raise ValueError(
                f"{entry.name}: expected its last sizes to be {list(sizes)} as those of "
                f"{self.entry.name}, or those scaled, got {list(shape)}"
            )
        return place

    def plan_at(self, place: Place, plan: MixPlan, correct_lam: bool) -> MixPlan:
        """The plan by which an entry at ``place`` is mixed."""
        if not self.sizes:
            return plan
        if not place.sizes:
            return plan.for_labels()
        return plan.resize(self.sizes, place.sizes, correct_lam=correct_lam)


def _check_dims(entry: Entry, shape: Sequence[int], dims: int, what: str) -> None:
    if len(shape) < 1 + dims:
        raise ValueError(
            f"{entry.name}: expected {dims} {what} dims after [B], as the boxes have, got "
            f"{list(shape)}; give BatchMix a smaller spatial_dims, another kind, or cutmix_alpha=0"
        )


def _same_form(sizes: Sequence[int], others: Sequence[int]) -> bool:
    """Whether ``others`` are ``sizes`` times one number, but for rounding."""
    if sizes == others:
        return True
    longest = list(sizes).index(max(sizes))
    n, m = sizes[longest], others[longest]
    return all(abs(a * m - b * n) < n for a, b in zip(sizes, others, strict=True))
