"""``draw_erasing`` in plain PyTorch: the specification of docs/drawing.md, step by step.

Every backend gives the same bits. Values on a device are never read on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..codes import (
    AREA_HIGH,
    AREA_LOW,
    ASPECT_HIGH,
    ASPECT_LOW,
    CONST,
    DRAW_COLOR,
    DRAW_ERASE,
    DRAW_ERASED_BOX,
    DRAW_NOISE,
    ERASE_ATTEMPTS,
    ERASE_PROB,
    PIXEL,
    STATE_VERSION,
    STEP_WORD,
    VERSION_WORD,
)
from ..op_checks import check_draw_erasing
from .random import (
    Stream,
    below,
    exp,
    happens,
    log,
    normal,
    short_uniform,
    square_root,
    uniform,
)


def draw_erasing(
    state: Tensor,  # [4]
    settings: Tensor,  # [5]
    fill: Sequence[float],
    batch_size: int,
    height: int,
    width: int,
    max_count: int,
    channels: int,
    erase_mode: int,
    clean: int,
) -> tuple[Tensor, Tensor, Tensor]:
    rest = batch_size, height, width, max_count, channels, erase_mode, clean
    check_draw_erasing(state, settings, fill, *rest)
    device = state.device
    numbers = settings.to(device, torch.float64)
    stream = Stream(state)
    i = torch.arange(batch_size, device=device)
    box_index = torch.arange(max_count, device=device)

    decision, count_word, _, _ = stream.words(i, DRAW_ERASE)
    known = state[VERSION_WORD] == STATE_VERSION
    erased = happens(decision, numbers[ERASE_PROB]) & (i >= clean) & known
    count = 1 + below(count_word, max_count)
    wanted = erased[:, None] & (box_index < count[:, None])  # [B, N]
    box = _boxes(stream, numbers, i, box_index, count, height, width)
    covers = (box[..., 2:] > box[..., :2]).all(2) & wanted
    box = torch.where(covers[..., None], box, 0).int()

    if erase_mode == CONST:
        value = torch.tensor([[list(fill)]], dtype=torch.float32, device=device)
    elif erase_mode == PIXEL:
        value = torch.empty(0, dtype=torch.float32, device=device)
    else:
        value = torch.where(covers[..., None], _colors(stream, i, box_index, channels), 0.0)
    noise = torch.empty(0, dtype=torch.int64, device=device)
    if erase_mode == PIXEL:
        low, high, _, _ = stream.words(i, DRAW_NOISE)
        noise = low | high << 32
    state[STEP_WORD].add_(known)
    return box, value, noise


def _boxes(
    stream: Stream, numbers: Tensor, i: Tensor, box_index: Tensor, count: Tensor, h: int, w: int
) -> Tensor:
    """int64 [B, N, 4], the first attempt that lies inside the image; zeros where none does."""
    attempt = torch.arange(ERASE_ATTEMPTS, device=i.device).view(-1, 1, 1)
    draws = DRAW_ERASED_BOX + 16 * box_index + attempt  # [attempts, 1, N]
    area_word, aspect_word, top_word, left_word = stream.words(i[:, None], draws)
    low, high = numbers[AREA_LOW], numbers[AREA_HIGH]
    share = low + (high - low) * short_uniform(area_word)
    area = share * (float(h) * float(w)) / count.double()[:, None]
    low, high = log(numbers[ASPECT_LOW]), log(numbers[ASPECT_HIGH])
    aspect = exp(low + (high - low) * short_uniform(aspect_word))
    # Half is added before they are compared: a side is below a size if its rounded value is.
    side_y, side_x = square_root(area * aspect) + 0.5, square_root(area / aspect) + 0.5
    fits = (side_y < float(h)) & (side_x < float(w))
    height, width = (torch.where(fits, side, 0.0).long() for side in (side_y, side_x))
    top, left = below(top_word, h - height + 1), below(left_word, w - width + 1)
    box = torch.stack((top, left, top + height, left + width), -1)
    first = fits.int().argmax(0)  # [B, N]
    chosen = box.gather(0, first[None, :, :, None].expand(1, -1, -1, 4))[0]
    return torch.where(fits.any(0)[..., None], chosen, 0)


def _colors(stream: Stream, i: Tensor, box_index: Tensor, channels: int) -> Tensor:
    """float32 [B, N, C], normal: two channels of a block of words."""
    pair = torch.arange((channels + 1) // 2, device=i.device)
    draws = DRAW_COLOR + 32 * box_index[:, None] + pair  # [N, pairs]
    a, b, c, d = stream.words(i[:, None, None], draws)
    deviates = torch.stack((normal(uniform(a, b)), normal(uniform(c, d))), -1)
    return deviates.flatten(2)[..., :channels].float()
