"""How rectangles of other samples are pasted into a batch: :class:`RectanglePlan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_choice, check_number, floats, integer_tuple, integers, kind
from ..codes import MAX_RECTANGLES, RAW, RESAMPLES, RESIZE_NEAREST
from ..frozen import Frozen, versions
from ..tracing import has_host_values
from .rectangle_rows import check_inside, check_rows, expect_rows, narrow, visible_shares
from .rows import copy_packed, to_device


class RectanglePlan(Frozen):
    """Up to four rectangles for each sample of a batch of B, pasted in order.

    ``out[i, …, box_ik] = resample(x[source_ik, …, source_box_ik])`` for k = 0 … R-1, a later one
    over an earlier one, on top of ``x[i]`` itself, or of a canvas that is full of ``fill``.

    Equivalent to (``"bilinear"``, no fill)::

        out = x.clone()
        for i, k in itertools.product(range(B), range(R)):
            top, left, bottom, right = source_box[i, k]
            crop = x[source[i, k]][..., top:bottom, left:right]
            top, left, bottom, right = box[i, k]
            size = bottom - top, right - left
            crop = torch.nn.functional.interpolate(crop[None], size, mode="bilinear")[0]
            out[i, ..., top:bottom, left:right] = crop

    Args:
        source: integers [B, R], R at most 4: the sample that a rectangle shows.
        source_box: integers [B, R, 4]: which part of it, (top, left, bottom, right), half-open.
        box: integers [B, R, 4]: where that part goes; an empty box pastes nothing.
        weight: floats [B, 1 + R]: label weights of the sample itself and of each source; they need
            not sum to one. None: the shares of the result that show each, as :attr:`visible`
            has them, for which ``size`` is needed.
        resample: ``"none"`` copies (sizes have to be equal), ``"nearest"``, ``"bilinear"``, or
            ``"bilinear_aligned"``, which is bilinear with ``align_corners=True``.
        scale: floats [B, R, 2]: steps in the source for one step (down, right) in the result, in
            place of the ratio of the sizes: ``1 / τ`` is ``interpolate(scale_factor=τ)``. For
            ``"nearest"`` and ``"bilinear"``.
        fill: a number: what the result holds where no rectangle lies. None: the sample itself.
        size: (H, W) of the result. With ``fill`` it may be other than that of the samples.

    Attributes:
        source: int32 [B, R].
        source_box, box: int32 [B, R, 4].
        weight: float32 [B, 1 + R].
        resample: one of the names above.
        scale: float32 [B, R, 2], or None.
        fill: a float, or None.
        size: two ints, or None for that of the samples.

    Raises:
        TypeError: a tensor of another dtype.
        ValueError: a shape that does not fit, more than four rectangles, a box that is reversed or
            starts below 0 or leaves ``size``, sizes that differ without resampling.
        IndexError: a source below 0. (:func:`mix_rectangles` knows how many samples there are.)
        Values are checked where they live on the CPU, and again after a write to a tensor.

    Notes:
        Immutable; ``torch.save`` takes it, and ``torch.load(weights_only=True)`` gives it back.

    Source: Qin et al., ResizeMix, 2020, arXiv 2012.11101; Takahashi et al., RICAP, 2018,
    arXiv 1811.09030; Bochkovskiy et al., YOLOv4 (mosaic), 2020, arXiv 2004.10934.
    """

    __module__ = __package__.rpartition(".")[0]

    source: Tensor
    source_box: Tensor
    box: Tensor
    weight: Tensor
    resample: str
    scale: Tensor | None
    fill: float | None
    size: tuple[int, int] | None
    _seen: tuple[int, ...]
    _versions: tuple[float, ...] | None

    def __init__(
        self,
        source: Tensor | Sequence[Sequence[int]],  # [B, R]
        source_box: Tensor | Sequence[Any],  # [B, R, 4]
        box: Tensor | Sequence[Any],  # [B, R, 4]
        weight: Tensor | Sequence[Any] | None = None,  # [B, 1 + R]
        resample: str = "none",
        scale: Tensor | Sequence[Any] | None = None,  # [B, R, 2]
        fill: float | None = None,
        size: Sequence[int] | None = None,
    ) -> None:
        check_choice("resample", resample, RESAMPLES)
        source = integers("source", source)
        if source.ndim != 2 or source.shape[1] > MAX_RECTANGLES:
            raise ValueError(
                f"source: expected [B, R] with at most {MAX_RECTANGLES} rectangles for each "
                f"sample, got shape {list(source.shape)}; apply a second plan to the result"
            )
        batch, rows = source.shape
        boxes = {"source_box": source_box, "box": box}
        source = narrow("source", source)
        named = {n: narrow(n, integers(n, b, source.device)) for n, b in boxes.items()}
        for name, b in named.items():
            expect_rows(name, b, (batch, rows, 4), source.device)
        if scale is not None:
            scale = floats("scale", scale).float().contiguous()
            expect_rows("scale", scale, (batch, rows, 2), source.device)
            if has_host_values(scale) and not bool(((scale > 0) & scale.isfinite()).all()):
                raise ValueError("scale: expected finite steps above 0, got others; τ is above 0")
            if resample not in ("nearest", "bilinear"):
                raise ValueError(
                    f"scale: expected None for resample={resample!r}, which has no such step"
                )
        fill = None if fill is None else check_number("fill", fill)
        whole = None if size is None else integer_tuple("size", size)
        if whole is not None and (len(whole) != 2 or min(whole) < 0):
            raise ValueError(f"size: expected (H, W), got {kind(size)} {list(whole)}")
        self._fill(**named, source=source, resample=resample, scale=scale, fill=fill, size=whole)
        self._look()
        if weight is None:
            if whole is None:
                raise ValueError(
                    "weight: expected label weights [B, 1 + R], or size=(H, W), from which the "
                    "shares of the result follow"
                )
            weight = self.visible(whole)
        weight = floats("weight", weight).float().contiguous()
        expect_rows("weight", weight, (batch, 1 + rows), source.device)
        if has_host_values(weight) and not bool(weight.isfinite().all()):
            raise ValueError("weight: expected finite numbers, got infinity or NaN")
        self._fill(weight=weight)

    # ------------------------------------------------------------ what the host knows

    def _look(self) -> tuple[int, ...]:
        """Check the values on the host; (largest source, stops of the sources, stops of the boxes),
        each 0 where values live on a device."""
        tensors = (self.source, self.source_box, self.box)
        known: tuple[int, ...] = (0,) * 5
        if self.source.numel() and all(map(has_host_values, tensors)):
            known = check_rows(*tensors, self.resample, self.size)
        self._fill(_seen=known, _versions=versions(*tensors))
        return known

    def check_fit(
        self, samples: int, name: str, extent: Sequence[int], size: Sequence[int]
    ) -> None:
        """Raise where the plan is known to leave ``samples`` samples of ``extent``, or ``size``."""
        now = versions(self.source, self.source_box, self.box)
        most, *stops = self._seen if now == self._versions else self._look()
        if self.source.numel() and most >= samples:
            raise IndexError(
                f"source: expected indices in [0, {samples}), the samples of {name}, got {most}"
            )
        check_inside("source_box", stops[:2], name, extent)
        check_inside("box", stops[2:], "the result", size)

    # ------------------------------------------------------------ what it says

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return self.source.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.source.device

    @property
    def rule(self) -> int:
        """The way of resampling as the kernels' integer code."""
        return RESAMPLES[self.resample]

    @property
    def moves(self) -> bool:
        """Whether values are moved and never computed, so that any dtype will do."""
        return self.rule in (RAW, RESIZE_NEAREST)

    @property
    def label_sources(self) -> Tensor:
        """int32 [B, 1 + R]: the sample whose label has weight ``weight[i, k]``.

        The first is the sample itself; the others are indices into ``other`` where there is one.
        """
        own = torch.arange(self.batch_size, dtype=torch.int32, device=self.device)
        return torch.cat((own[:, None], self.source), 1)

    def visible(self, size: Sequence[int]) -> Tensor:
        """float32 [B, 1 + R]: the shares of a result of ``size`` that show each; rows sum to one.

        The first is that of the sample itself. With a ``fill`` it is 0, and the others are shares
        of what rectangles cover; all are 0 where nothing is covered.
        """
        return visible_shares(self.box, size, self.fill is None)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> RectanglePlan:
        """The same plan on ``device``. From the host this is one copy of one (pinned) buffer."""
        device = torch.device(device)
        tensors = [self.source, self.source_box, self.box, self.weight]
        tensors += [] if self.scale is None else [self.scale]
        if all(t.device == device for t in tensors):
            return self
        if device.type == "cpu" or self.device.type != "cpu":
            moved = [to_device(t, device) for t in tensors]
        else:
            moved = copy_packed(tensors, device, non_blocking)
        source, source_box, box, weight, *scale = moved
        plan = object.__new__(RectanglePlan)
        plan._fill(source=source, source_box=source_box, box=box, weight=weight)
        plan._fill(resample=self.resample, fill=self.fill, size=self.size)
        plan._fill(scale=scale[0] if scale else None)
        plan._fill(_seen=self._seen, _versions=versions(source, source_box, box))
        return plan

    def _state(self) -> tuple[Any, ...]:
        tensors = self.source, self.source_box, self.box, self.weight
        return (*tensors, self.resample, self.scale, self.fill, self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return RectanglePlan, self._state()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RectanglePlan):
            return NotImplemented
        return all(map(same, self._state(), other._state()))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        batch, rows = self.source.shape
        head = (
            f"RectanglePlan(batch_size={batch}, rectangles={rows}, resample={self.resample!r}, "
            f"fill={self.fill}, size={self.size}, device={str(self.device)!r})"
        )
        if not all(map(has_host_values, (self.source, self.source_box, self.box, self.weight))):
            return head
        lines = [head]
        for i in range(min(batch, 8)):
            shares = ", ".join(f"{w:.4g}" for w in self.weight[i].tolist())
            parts = ", ".join(
                f"{s} {a} → {b}"
                for s, a, b in zip(
                    self.source[i].tolist(),
                    self.source_box[i].tolist(),
                    self.box[i].tolist(),
                    strict=True,
                )
            )
            lines.append(f"  {i}: {parts or 'nothing'}, weight ({shares})")
        return "\n".join([*lines, f"  … {batch - 8} more"] if batch > 8 else lines)


torch.serialization.add_safe_globals([RectanglePlan])


def same(a: Any, b: Any) -> bool:
    """Whether two fields of a plan are equal."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a.cpu(), b.cpu())
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b
