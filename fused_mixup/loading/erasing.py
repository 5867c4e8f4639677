"""What is erased of each image of a batch: :class:`Erasing`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import as_tensor, check_number, integers, kind
from ..frozen import Frozen
from ..plan.rows import copy_packed
from ..tracing import has_host_values


class Erasing(Frozen):
    """The boxes of a batch that are erased, and what fills them.

    ``out[i, c, y, x] = value[i, k, c]``, or noise, where (y, x) lies in box[i, k]; of several such
    boxes the last counts.

    Equivalent to (one box each)::

        for i, (y0, x0, y1, x1) in enumerate(box.tolist()):
            out[i, :, y0:y1, x0:x1] = value[i, 0, :, None, None]

    Args:
        box: integers [B, 4] or [B, N, 4]: half-open boxes, starts (y, x), then stops, as in
            :class:`MixPlan`; an empty one (start == stop) erases nothing.
        value: what fills the boxes, in the units of the result (after normalising 0 is the mean
            colour): a number, one for each channel, or floats [B or 1, N or 1, C or 1].
        noise: integers [B], a key for each image: its boxes are filled with normal noise, of mean
            0 and deviation 1, for each pixel and channel. ``value`` is then left out.

    Attributes:
        box: int32 [B, N, 4].
        value: float32 [B or 1, N or 1, C or 1], or None where there is noise.
        noise: int64 [B], or None.

    Raises:
        TypeError, ValueError: an argument that is not as described, a box that is reversed or
            starts below 0 (boxes are checked where they live on the CPU), ``value`` beside
            ``noise``.

    Notes:
        Noise depends on key, pixel and channel alone: the same on every backend, to the bit
        (docs/drawing.md). Immutable; ``torch.save`` takes it.

    Source: Zhong et al., Random Erasing, 2020, arXiv 1708.04896.
    """

    __module__ = __package__.rpartition(".")[0]

    box: Tensor  # [B, N, 4]
    value: Tensor | None  # [B or 1, N or 1, C or 1]
    noise: Tensor | None  # [B]

    def __init__(
        self,
        box: Tensor | Sequence[Sequence[int]],  # [B, N, 4]
        value: float | Sequence[float] | Tensor | None = None,
        noise: Tensor | Sequence[int] | None = None,  # [B]
    ) -> None:
        box = integers("box", box)
        box = box.unsqueeze(1) if box.ndim == 2 else box
        if box.ndim != 3 or box.shape[2] != 4:
            raise ValueError(f"box: expected shape [B, 4] or [B, N, 4], got {list(box.shape)}")
        if has_host_values(box) and box.numel():
            if int(box.max()) > 2**31 - 1:
                raise ValueError("box: expected values of 32 bits")
            low, high = box[..., :2], box[..., 2:]
            if bool((low < 0).any()) or bool((high < low).any()):
                raise ValueError(
                    "box: expected starts of at least 0, and no stop before its start; the order "
                    "is y0, x0, y1, x1"
                )
        if noise is not None and value is not None:
            raise ValueError("value: expected None beside noise, which fills the boxes; drop one")
        if noise is not None:
            noise = _noise_keys(noise, box)
        else:
            value = _values(0.0 if value is None else value, box)
        self._fill(box=box.to(torch.int32).contiguous(), value=value, noise=noise)

    def __reduce__(self) -> tuple[Any, ...]:
        return Erasing, (self.box, self.value, self.noise)

    @property
    def batch_size(self) -> int:
        """B, the number of images."""
        return self.box.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the boxes live."""
        return self.box.device

    def to(self, device: torch.device | str) -> Erasing:
        """The same boxes on ``device``; from the host asynchronously, through pinned memory."""
        device = torch.device(device)
        if device == self.device:
            return self
        fill = self.value if self.noise is None else self.noise
        assert fill is not None
        if device.type == "cpu" or self.device.type != "cpu":
            fill, box = fill.to(device), self.box.to(device)
        else:
            fill, box = copy_packed((fill, self.box), device, non_blocking=True)
        value, noise = (fill, None) if self.noise is None else (None, fill)
        return known_erasing(box, value, noise)

    def _tensors(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return self.box, self.value, self.noise

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Erasing):
            return NotImplemented
        return all(
            a is b is None or (a is not None and b is not None and torch.equal(a.cpu(), b.cpu()))
            for a, b in zip(self._tensors(), other._tensors(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fill = "noise" if self.noise is not None else "value"
        return (
            f"Erasing(batch_size={self.batch_size}, boxes={self.box.shape[1]}, fill={fill!r}, "
            f"device={str(self.device)!r})"
        )


def known_erasing(box: Tensor, value: Tensor | None, noise: Tensor | None) -> Erasing:
    """An instance of tensors that need no check."""
    erasing = object.__new__(Erasing)
    erasing._fill(box=box, value=value, noise=noise)
    return erasing


torch.serialization.add_safe_globals([Erasing])


def _noise_keys(noise: Any, box: Tensor) -> Tensor:
    keys = integers("noise", noise, box.device)
    if keys.shape != box.shape[:1]:
        raise ValueError(f"noise: expected shape [{len(box)}], got {list(keys.shape)}")
    if keys.device != box.device:
        raise ValueError(f"noise: expected it on {box.device} like box, got {keys.device}")
    return keys.to(torch.int64).contiguous()


def _values(value: Any, box: Tensor) -> Tensor:
    if isinstance(value, (bool, str)):
        raise TypeError(f"value: expected a number, a sequence or floats, got {kind(value)}")
    if not isinstance(value, (Tensor, Sequence)):
        value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's
        value = value if isinstance(value, list) else [check_number("value", value)]
    values = as_tensor("value", value, box.device)
    if values.ndim <= 1:
        values = values.view(1, 1, -1)
    batch, boxes = box.shape[:2]
    if values.ndim != 3 or values.shape[0] not in (1, batch) or values.shape[1] not in (1, boxes):
        raise ValueError(
            f"value: expected a number, [C], or [{batch} or 1, {boxes} or 1, C or 1], got "
            f"{list(values.shape)}"
        )
    if values.device != box.device:
        raise ValueError(f"value: expected it on {box.device} like box, got {values.device}")
    return values.to(torch.float32).contiguous()
