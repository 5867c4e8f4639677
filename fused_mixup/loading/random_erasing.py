"""Erased boxes drawn where the batch lives, in one launch: :func:`random_erasing`.

docs/drawing.md specifies the numbers, the same on every backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_choice, check_number, integer, kind
from ..codes import CONST, ERASE_MODES, ERASE_SETTINGS, MAX_CHANNELS, MAX_ERASED, PIXEL
from ..plan.draw_checks import (
    check_probability,
    check_settings,
    check_sizes,
    check_state,
    has_float64,
)
from ..plan.draw_replay import draw_boxes
from .erasing import Erasing, known_erasing

_ASPECTS = 1e-6, 1e6


def erasing_settings(
    *,
    prob: float = 0.25,
    area: Sequence[float] = (0.02, 1 / 3),
    aspect: Sequence[float] = (0.3, 1 / 0.3),
    device: torch.device | str | None = None,
) -> Tensor:
    """The numbers of :func:`random_erasing` as a tensor, for those that change during training.

    Values copied into this tensor apply to the next draw, also in a compiled step or a captured
    CUDA graph.

    Equivalent to::

        torch.tensor([prob, *area, *aspect], dtype=torch.float64, device=device)

    Args:
        prob, area, aspect: as in :func:`random_erasing`.
        device: the device of the state, or the CPU (where a draw reads them when it is launched).

    Returns:
        float64 [5].

    Raises:
        TypeError, ValueError: as :func:`random_erasing`.
    """
    return torch.tensor(_numbers(prob, area, aspect), dtype=torch.float64, device=device)


def random_erasing(
    batch_size: int,
    spatial: Sequence[int],
    *,
    state: Tensor,  # [4]
    prob: float = 0.25,
    area: Sequence[float] = (0.02, 1 / 3),
    aspect: Sequence[float] = (0.3, 1 / 0.3),
    mode: str = "const",
    value: float | Sequence[float] = 0.0,
    max_count: int = 1,
    channels: int = 3,
    clean: int = 0,
    settings: Tensor | None = None,  # [5]
) -> Erasing:
    """Draw the boxes of a batch that are erased, on the device of ``state``, in one launch.

    A sample is erased with probability ``prob``, in ``count`` boxes, any number from 1 to
    ``max_count``. Of each box ``h = round(sqrt(a r))`` and ``w = round(sqrt(a / r))``, with the
    area ``a`` uniform in ``area`` of the image's over ``count``, and ``log r`` uniform; it lies
    anywhere inside the image.

    Equivalent to (one sample, with Python's generator, which gives other numbers)::

        for _ in range(random.randint(1, max_count) if random.random() <= prob else 0):
            for attempt in range(10):
                a = random.uniform(*area) * H * W / count
                r = math.exp(random.uniform(*map(math.log, aspect)))
                h, w = round(math.sqrt(a * r)), round(math.sqrt(a / r))
                if h < H and w < W:
                    y, x = random.randint(0, H - h), random.randint(0, W - w)
                    boxes.append((y, x, y + h, x + w))
                    break

    Args:
        batch_size: B, up to 65,536.
        spatial: (H, W).
        state: int64 [4] of :func:`plan_state`; advanced by one step. One state may serve plans
            and erasing in turn.
        prob: probability that a sample is erased.
        area: bounds (low, high) of the share of the image that its boxes cover.
        aspect: bounds (low, high) of height over width, in [1e-6, 1e6].
        mode: what fills the boxes: ``"const"``, ``value``; ``"rand"``, a normal colour for each
            box and channel; ``"pixel"``, normal noise for each pixel and channel.
        value: a number, or one for each channel, in the units of the result: after normalising 0
            is the mean colour.
        max_count: the most boxes of a sample, up to 64; more boxes are smaller.
        channels: C, of the colours of ``"rand"``, up to 64.
        clean: this many samples, the first, are not erased (of timm's ``num_splits``:
            ``B // num_splits``).
        settings: float64 [5] of :func:`erasing_settings`, in place of ``prob``, ``area`` and
            ``aspect``, which are then ignored.

    Returns:
        An :class:`Erasing` with boxes [B, max_count, 4] on the device of ``state``, for
        :func:`mix_normalize`.

    Raises:
        TypeError, ValueError: an argument that is not as described, a state of another device or
            version.

    Notes:
        Distributed as timm's ``RandomErasing`` is, which the images of timm's loader go through.
        A box for which ten attempts find no room is left out, as there.
        Deterministic: a state gives the same boxes on every backend, to the bit. On a device, a
        state of another version erases nothing and stays, as nothing is read back. Compiles, and
        under torch.utils.checkpoint draws the same again, as :func:`draw_plan` does.

    Source: Zhong et al., Random Erasing, 2020, arXiv 1708.04896.
    """
    check_state(state)
    batch_size, spatial = check_sizes(batch_size, spatial)
    if len(spatial) != 2:
        raise ValueError(f"spatial: expected (H, W), the sizes of images, got {list(spatial)}")
    filled = check_choice("mode", mode, ERASE_MODES)
    fill = _fill(value)
    if filled != CONST:
        if fill != [0.0]:
            raise ValueError(
                f"value: expected 0, the default, with mode={mode!r}, which draws what fills the "
                "boxes; use mode='const'"
            )
        fill = []
    max_count = _check_count("max_count", max_count, MAX_ERASED)
    channels = _check_count("channels", channels, MAX_CHANNELS)
    clean = clean if torch.compiler.is_compiling() else integer("clean", clean)
    if not 0 <= clean <= batch_size:
        raise ValueError(f"clean: expected 0 to batch_size, got {clean} of {batch_size} samples")
    if settings is None:
        numbers = _numbers(prob, area, aspect)
        settings = torch.tensor(numbers, dtype=torch.float64, device="cpu")
    else:
        check_settings(settings, state, "erasing_settings", ERASE_SETTINGS)
    rest = fill, batch_size, *spatial, max_count, channels, filled, clean
    if has_float64(state.device):
        return _erasing(filled, *draw_boxes(state, settings, *rest))
    host = state.cpu()
    drawn = _erasing(filled, *draw_boxes(host, settings, *rest))
    state.copy_(host)
    return drawn.to(state.device)


def _erasing(mode: int, box: Tensor, value: Tensor, noise: Tensor) -> Erasing:
    return known_erasing(box, None, noise) if mode == PIXEL else known_erasing(box, value, None)


def _numbers(prob: float, area: Sequence[float], aspect: Sequence[float]) -> list[float]:
    bounds = _bounds("area", area, 0.0, 1.0), _bounds("aspect", aspect, *_ASPECTS)
    return [check_probability("prob", prob), *bounds[0], *bounds[1]]


def _bounds(name: str, bounds: Any, least: float, most: float) -> tuple[float, float]:
    if not hasattr(bounds, "__len__") or isinstance(bounds, (str, Tensor)):
        raise TypeError(f"{name}: expected two numbers (low, high), got {kind(bounds)}")
    if len(bounds) != 2:
        raise ValueError(f"{name}: expected two numbers (low, high), got {kind(bounds)}")
    low, high = (check_number(name, b) for b in bounds)
    if not least <= low <= high <= most:
        raise ValueError(
            f"{name}: expected {least:g} <= low <= high <= {most:g}, got ({low}, {high})"
        )
    return low, high


def _check_count(name: str, count: int, most: int) -> int:
    count = integer(name, count)
    if not 1 <= count <= most:
        raise ValueError(f"{name}: expected 1 to {most}, got {count}")
    return count


def _fill(value: Any) -> list[float]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # First, as the symbols of a compiler can do nothing else.
        return [_check_fill(float(value))]
    if isinstance(value, (bool, str)) or (isinstance(value, Tensor) and value.device.type != "cpu"):
        raise TypeError(
            f"value: expected a number, or one for each channel, got {kind(value)}; for values on "
            "a device make Erasing(erasing.box, value)"
        )
    if hasattr(value, "tolist"):  # NumPy, tensors
        value = value.tolist()
    values = value if isinstance(value, Sequence) else [value]
    if not 1 <= len(values) <= MAX_CHANNELS:
        raise ValueError(f"value: expected 1 to {MAX_CHANNELS} numbers, got {len(values)}")
    return [_check_fill(check_number("value", v)) for v in values]


def _check_fill(value: float) -> float:
    most = torch.finfo(torch.float32).max
    if not -most <= value <= most:
        raise ValueError(f"value: expected numbers within the range of float32, got {value}")
    return value
