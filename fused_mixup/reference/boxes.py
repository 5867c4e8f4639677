"""The bounding boxes that a mixed batch shows, in plain PyTorch (see the package)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..op_checks import check_mix_boxes, expect
from .blending import weight_columns
from .pairing import partner_rows


def _area(x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
    w, h = x2 - x1, y2 - y1
    return torch.where((w > 0) & (h > 0), w * h, 0)


def _larger(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a > b, a, b)


def _smaller(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a < b, a, b)


class _Cut:
    """The plan's box of each row, as corners [B, 1] that broadcast to the boxes' [B, N]."""

    def __init__(self, box: Tensor, boxes: Tensor) -> None:
        box = box.to(boxes.device)
        if box.shape[1] == 0:
            box = box.new_zeros((boxes.shape[0], 4))
        corners = box.to(boxes.dtype)[:, (1, 0, 3, 2)]
        self.x1, self.y1, self.x2, self.y2 = corners.unsqueeze(-1).unbind(1)
        self.there = ((box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])).unsqueeze(-1)

    def clip(self, boxes: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        low = _larger(x1, self.x1), _larger(y1, self.y1)
        return torch.stack((*low, _smaller(x2, self.x2), _smaller(y2, self.y2)), -1)

    def covers(self, boxes: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        inside = (x1 >= self.x1) & (x2 <= self.x2) & (y1 >= self.y1) & (y2 <= self.y2)
        return self.there & inside

    def area_inside(self, boxes: Tensor) -> Tensor:
        return torch.where(self.there, _area(*self.clip(boxes).unbind(-1)), 0)

    def leave(self, boxes: Tensor) -> Tensor:
        """The smallest boxes around what lies outside the cut, of boxes that it does not cover."""
        x1, y1, x2, y2 = boxes.unbind(-1)
        left, right = self.x1 <= x1, self.x2 >= x2
        top, bottom = self.y1 <= y1, self.y2 >= y2
        spans_x, spans_y = left & right, top & bottom
        sides = (
            torch.where(spans_y & left, _larger(x1, self.x2), x1),
            torch.where(spans_x & top, _larger(y1, self.y2), y1),
            torch.where(spans_y & right & ~left, _smaller(x2, self.x1), x2),
            torch.where(spans_x & bottom & ~top, _smaller(y2, self.y1), y2),
        )
        return torch.where(self.there.unsqueeze(-1), torch.stack(sides, -1), boxes)


def mix_boxes(
    boxes: Tensor,  # [B, N, 4]
    count: Tensor | None,  # [B]
    partner: Tensor | None,  # [B]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 0 or 4]
    pairing: int,
    min_visible: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, most = boxes.shape[:2]
    check_mix_boxes(boxes, 3, count, pairing, partner, blend, box, batch)
    dtype, device = boxes.dtype, boxes.device
    cut = _Cut(box, boxes)
    b0, b1 = weight_columns(blend, boxes[..., 0], dtype)
    least = torch.tensor(min_visible, dtype=dtype, device="cpu")
    index = torch.arange(batch, device=device)
    partners = partner_rows(index, partner, pairing)
    itself = (partners == index).unsqueeze(1)
    places = torch.arange(most, device=device)
    there = (places < most) if count is None else places < count.to(device).unsqueeze(1)
    there = there.expand(batch, most)

    area = _area(*boxes.unbind(-1))
    has_area = area > 0
    share = (area - cut.area_inside(boxes)) / area
    share = torch.where(has_area, share, (~cut.covers(boxes)).to(dtype))
    own_stays = there & (itself | ((b0 != 0) & (share >= least) & (share > 0)))
    shrinks = (has_area & ~itself).unsqueeze(-1)
    own = torch.where(shrinks, cut.leave(boxes), boxes)
    own_weight = torch.where(itself, 1, b0).expand(batch, most)

    other, other_area = boxes[partners], area[partners]
    share = cut.area_inside(other) / other_area
    share = torch.where(other_area > 0, share, cut.covers(other).to(dtype))
    seen = (share >= least) & (share > 0)
    other_stays = there[partners] & ~itself & ((b1 != 0) | seen)
    other_weight = torch.where(b1 != 0, share + (1 - share) * b1, 1)
    other = torch.where((b1 != 0).unsqueeze(-1), other, cut.clip(other))

    stays = torch.cat((own_stays, other_stays), 1)
    # Those that stay come first, in their order.
    source = torch.argsort(~stays, dim=1, stable=True)
    stays = stays.gather(1, source)
    shown = torch.cat((own, other), 1).gather(1, source.unsqueeze(-1).expand(-1, -1, 4))
    weight = torch.cat((own_weight, other_weight), 1).float().gather(1, source)
    return (
        torch.where(stays.unsqueeze(-1), shown, 0),
        torch.where(stays, source, -1).int(),
        torch.where(stays, weight, 0),
        stays.sum(1, dtype=torch.int32),
    )


def mix_boxes_packed(
    boxes: Tensor,  # [T, 4]
    counts: Sequence[int],  # B
    partner: Tensor | None,  # [B]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 0 or 4]
    pairing: int,
    min_visible: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_mix_boxes(boxes, 2, None, pairing, partner, blend, box, len(counts))
    fits = all(n >= 0 for n in counts) and sum(counts) == len(boxes)
    expect(fits, "counts", f"the {len(boxes)} boxes as their sum", sum(counts))
    most = max(counts, default=0)
    count = torch.tensor(list(counts), dtype=torch.int64, device=boxes.device)
    padded = boxes.new_zeros((len(counts), most, 4))
    there = torch.arange(most, device=boxes.device) < count.unsqueeze(1)
    padded[there] = boxes
    shown, source, weight, left = mix_boxes(
        padded, count, partner, blend, box, pairing, min_visible
    )
    stays = source >= 0
    index = torch.arange(len(counts), device=boxes.device)
    partners = partner_rows(index, partner, pairing).unsqueeze(1)
    first = count.cumsum(0) - count
    rows = torch.where(source < most, first.unsqueeze(1) + source, first[partners] + source - most)
    return shown[stays], rows[stays], weight[stays], left
