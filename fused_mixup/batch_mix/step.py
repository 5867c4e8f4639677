"""One step of a :class:`fused_mixup.BatchMix`: its entries checked, then mixed by one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..arguments import check_choice, integer, kind
from ..boxes.checks import check_share
from ..boxes.formats import check_format
from ..kinds import IMAGE_LIKE, KINDS, MAPS
from ..loading.samples import mix_samples
from ..mixing import mix, paste_
from ..plan.mix_plan import MixPlan
from ..target.heads import leaves
from .checks import (
    check_batch_size,
    check_follows,
    check_in_place,
    check_label_maps,
    check_masks,
    check_no_gradients,
    check_tokens,
    check_values,
)
from .entries import Entry, dotted
from .epochs import Law
from .groups import instance_groups
from .instances import Instances
from .labels import Paste, Targets, as_integers, as_labels, is_class_map
from .places import CUTS, Place, Scene
from .structure import Key, New, Path, same_memory
from .tv_tensors import plain, wrap_like
from .values import is_collated, mix_at, shape_of


@dataclass(frozen=True)
class Options:
    """How entries are mixed, whatever the batch."""

    blends: bool  # MixUp may be drawn
    cuts: bool  # boxes or masks may be drawn
    correct_lam: bool
    masks: bool  # masks, or places of resized partners, may be drawn
    resizes: bool  # those places
    spatial_dims: int | None
    cut: str
    follows: Mapping[Key, Key]  # labels by the share of another entry than the first
    min_visible: float
    box_format: str

    @staticmethod
    def make(
        law: Law,
        correct_lam: bool,
        spatial_dims: int | None,
        cut: str,
        follows: Mapping[Key, Key] | None,
        min_visible: float,
        box_format: str,
    ) -> Options:
        """The options, checked."""
        if spatial_dims is not None and integer("spatial_dims", spatial_dims) not in (1, 2, 3):
            raise ValueError(f"spatial_dims: expected 1, 2, 3 or None, got {spatial_dims}")
        check_choice("cut", cut, CUTS)
        if follows is not None and not isinstance(follows, Mapping):
            raise TypeError(f"follows: expected a dict of labels and entries, got {kind(follows)}")
        check_format(box_format)
        share = check_share(min_visible)
        given = dict(follows or {})
        if law.masks and cut != "space":
            raise ValueError(f"cut: expected 'space' for the masks of mix=, got {cut!r}")
        drawn = law.blends, law.cuts, correct_lam and not law.keeps_weights, law.masks, law.resizes
        return Options(*drawn, spatial_dims, cut, given, share, box_format)


class ImageStep(Protocol):
    """What mixes the entries of kind "image" in place of BatchMix, and writes none of them."""

    def view(self, entries: Sequence[Entry]) -> list[Entry]:
        """All entries, images as [B, C, H, W]; raises unless all images can be mixed."""

    def mix(self, entry: Entry, plan: MixPlan | None) -> Any:
        """An image as it is handed out, mixed by ``plan``."""


class Step:
    """The entries of one batch, checked. Nothing is written before all of them are."""

    def __init__(
        self,
        batch: Any,
        entries: Sequence[Entry],
        targets: Targets,
        o: Options,
        images: ImageStep | None = None,
    ) -> None:
        self.options, self.targets, self.images = o, targets, images
        check_tokens(entries)
        entries = entries if images is None else images.view(entries)
        groups, rest = instance_groups(batch, entries)
        options = o.min_visible, o.box_format
        self.groups = [Instances(batch, lead, rows, *options) for lead, rows in groups]
        self.values = [entry for entry in rest if entry.kind in (*IMAGE_LIKE, *MAPS)]
        by_sample = any(isinstance(entry.value, (list, tuple)) for entry in self.values)
        self.labels = [
            entry._replace(value=as_labels(entry.value, by_sample))
            for entry in rest
            if entry.kind == "labels"
        ]
        maps = [entry for entry in self.values if entry.kind in MAPS]
        counted = [*self.labels, *maps]
        counts = targets.counts_of([entry.path[-1] for entry in counted])
        self.counts = {entry.path: counts[entry.path[-1]] for entry in counted}
        for entry in self.labels:
            name = "labels" if len(self.labels) == 1 else entry.name
            targets.check(name, entry.value, self.counts[entry.path])
        check_values(self.values)
        # Class maps that become targets, as labels do; True where all are known to be in range.
        self.maps: dict[Path, bool] = {}
        for entry in maps if o.blends else ():
            if holds_classes(entry):
                count = self.counts[entry.path]
                self.maps[entry.path] = targets.check_map(entry.name, entry.value, count)

    def pairing_labels(self) -> Tensor:
        """The class indices by which partners are chosen."""
        classes = [y for y in self.heads if not y.is_floating_point()]
        if len(classes) != 1:
            raise ValueError(
                f"pairing: expected labels with one head of class indices for 'cross_class', got "
                f"{len(classes)}; use pairing='derangement', or draw(…, labels=…) and mix"
            )
        return classes[0]

    def keep(self) -> dict[Path, New]:
        """The batch of eval mode: labels as targets of one label, boxes with weights of 1."""
        news: dict[Path, New] = {}
        for entry in (*self.labels, *self.values):
            apart = self._apart(entry)
            if apart is not None:
                news[entry.path] = New(apart.mix(entry, None))
            elif entry.kind == "labels" or entry.path in self.maps:
                value = whole(entry.value) if entry.path in self.maps else entry.value
                news[entry.path] = New(self.targets.keep(value, self.counts[entry.path]))
        for group in self.groups:
            news |= group.keep(self.options.blends)
        return news

    # ---------------------------------------------------------------- training

    def check(self, state: Tensor, inplace: bool, warned: bool) -> bool:
        """Check all that a step needs, and set ``size`` and ``scene``; whether a view was told."""
        o = self.options
        self.heads = [y for entry in self.labels for y in leaves(entry.value)]
        self.size = check_batch_size(self.heads, self.values, state)
        first = next(entry for entry in self.values if entry.kind in IMAGE_LIKE)
        self.scene = Scene(first, shape_of(first.value), o.spatial_dims, o.cut, o.cuts)
        self.places = {e.path: self.scene.place_of(e, shape_of(e.value)) for e in self.values}
        check_label_maps(self.heads, self.scene.sizes)
        if o.masks:
            check_masks(first, self.scene.sizes, [group.lead for group in self.groups], self.images)
        self.follows = check_follows(o.follows, self.labels, self.values)
        for entry in self.values:
            pasted = holds_classes(entry) and entry.path not in self.maps and o.cuts
            if pasted and not self.places[entry.path].sizes:
                raise ValueError(
                    f"{entry.name}: expected a map of {first.name}, whose boxes are pasted in it, "
                    f"got one beside {first.kind!r} with cut={o.cut!r}; class maps cannot be "
                    "blended by label weights where MixUp is off: set mixup_alpha > 0 for a target"
                )
        for group in self.groups:
            image = self._image_of(group)
            self._check_scene(group, image)
            group.check_device(state.device)
            group.check(self.size, shape_of(image.value)[-2:], o.blends)
        written = []
        for entry in self.values:
            if self._apart(entry) is None:
                written += [entry] if inplace and isinstance(entry.value, Tensor) else []
            elif len(self.places[entry.path].sizes) > 2:
                raise ValueError(
                    f"{entry.name}: expected boxes of up to 2 dims for images that are "
                    f"normalised, got spatial_dims={o.spatial_dims}"
                )
        if o.resizes:
            check_no_gradients(self.values)
        return check_in_place(written, warned)

    def _apart(self, entry: Entry) -> ImageStep | None:
        """What mixes an image in place of BatchMix, if anything does."""
        return self.images if entry.kind == "image" else None

    def _image_of(self, group: Instances) -> Entry:
        """The image that boxes lie in: the nearest above them, the first among equals."""

        nearest, most = None, -1
        for entry in self.values:
            shared = 0
            for a, b in zip(entry.path[:-1], group.group, strict=False):
                if a != b:
                    break
                shared += 1
            if entry.kind in IMAGE_LIKE and shared > most:
                nearest, most = entry, shared
        assert nearest is not None
        return nearest

    def _check_scene(self, group: Instances, image: Entry) -> None:
        sizes, scene = self.scene.sizes, KINDS[image.kind].scene
        if scene != "picture" or self.scene.cut == "time" or len(sizes) not in (0, 2):
            raise ValueError(
                f"{group.lead.name}: expected pictures that it lies in, whose boxes are cut in "
                f"two dims of space, got {image.name} of kind {image.kind!r}, boxes of "
                f"{len(sizes)} dims and cut={self.scene.cut!r}"
            )

    def mix(
        self, plan: MixPlan, inplace: bool, paste: Paste | None = None
    ) -> tuple[dict[Path, New], dict[str, MixPlan]]:
        """The new entries, and the plan of each that is mixed; then ``paste`` is called."""
        self.paste = paste
        plans: dict[str, MixPlan] = {}
        news: dict[Path, New] = {}
        for group in self.groups:  # first, as images are written in place
            place = self.places[self._image_of(group).path]
            own = self.scene.plan_at(place, plan, self.options.correct_lam)
            news |= group.mix(own, self.options.blends)
        written: list[Entry] = []
        values = self.values
        if self.images is not None:  # these come first, as others may be written where they lie
            values = sorted(values, key=lambda entry: self._apart(entry) is None)
        for entry in values:
            own = self.scene.plan_at(self.places[entry.path], plan, self.options.correct_lam)
            plans[dotted(entry.path)] = own
            apart = self._apart(entry)
            if apart is not None:
                news[entry.path] = New(apart.mix(entry, own))
                continue
            twin = self._twin(entry, written)
            if twin is not None:  # a batch may contain a tensor twice: it is mixed in place once
                news[entry.path] = news[twin.path]
                continue
            news[entry.path] = New(self._mixed(entry, own, inplace))
            if inplace and isinstance(entry.value, Tensor):
                written.append(entry)
        for entry in self.labels:
            followed = self.follows.get(entry.path)
            by = plan if followed is None else plans[followed]
            news[entry.path] = New(self.targets.mix(entry.value, by, self.counts[entry.path]))
        return news, plans

    def _twin(self, entry: Entry, written: Sequence[Entry]) -> Entry | None:
        """The entry in whose memory this one lies, and that has been written."""
        if not isinstance(entry.value, Tensor):
            return None
        return next((e for e in written if same_memory(e.value, entry.value)), None)

    def _mixed(self, entry: Entry, plan: MixPlan, inplace: bool) -> Any:
        value, place = plain(entry.value), self.places[entry.path]
        if not isinstance(value, Tensor):
            return self._mixed_list(entry, value, plan, place)
        if entry.path in self.maps:
            known = self.counts[entry.path], self.maps[entry.path]
            return self.targets.mix_map(value, plan, *known, inplace, self.paste)
        paste = self.paste if place.sizes else None
        here = inplace and paste is None
        if holds_classes(entry):
            made = paste_(value if here else value.clone(), plan)
        else:
            made = mix_at(value, plan, place, here)
        if paste is not None:
            made = paste(made, value)
            if inplace:
                value.copy_(made)
        return entry.value if inplace else wrap_like(made, entry.value)

    def _mixed_list(self, entry: Entry, samples: Any, plan: MixPlan, place: Place) -> Any:
        """One tensor for each sample, as views of one batch."""
        alone = [plain(sample) for sample in samples]
        if entry.path in self.maps:
            known = self.counts[entry.path], self.maps[entry.path]
            return self.targets.mix_map(whole(alone), plan, *known, True, self.paste)
        paste = self.paste if place.sizes else None
        if paste is not None:
            x = torch.stack(alone)
            made = paste_(x.clone(), plan) if holds_classes(entry) else mix(x, plan)
            made = paste(made, x)
        elif holds_classes(entry):
            made = paste_(torch.stack(alone), plan)
        elif is_collated(plan, place, alone):
            made = mix_samples(alone, plan)
        else:
            made = mix_at(torch.stack(alone), plan, place, inplace=False)
        rows = [wrap_like(x, like) for x, like in zip(made.unbind(), samples, strict=True)]
        return type(samples)(rows) if isinstance(samples, (list, tuple)) else rows


def holds_classes(entry: Entry) -> bool:
    return entry.kind == "class_map" and is_class_map(entry.value)


def whole(value: Any) -> Tensor:
    """Class maps as one tensor of integers, also where each sample has its own."""
    if not isinstance(value, Tensor):
        value = torch.stack([plain(sample) for sample in value])
    return as_integers(plain(value))
