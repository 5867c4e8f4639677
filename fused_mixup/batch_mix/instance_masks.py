"""Masks of instances: cut as the image is, beside boxes or alone.

No kernel: samples have different numbers of masks, and each is written once, where the cut lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..boxes.rows import MixedRows
from ..plan.mix_plan import MixPlan


def check_masks(name: str, masks: Any, size: Sequence[int]) -> None:
    """Raise unless these are masks of ``size``, [n, H, W] for each sample or [B, N, H, W].

    [n, 1, H, W] is legal too: torchvision's wrapped Cityscapes gives such.
    """
    for i, t in [(None, masks)] if isinstance(masks, Tensor) else enumerate(masks):
        where, dims = (name, "[B, N, H, W]") if i is None else (f"{name}[{i}]", "[n, H, W]")
        rank = dims.count(",") + 1
        single = i is not None and isinstance(t, Tensor) and t.ndim == 4 and t.shape[1] == 1
        if not isinstance(t, Tensor) or (t.ndim != rank and not single):
            got = list(t.shape) if isinstance(t, Tensor) else type(t).__name__
            raise ValueError(f"{where}: expected masks {dims}, got {got}")
        if tuple(t.shape[-2:]) != tuple(size):
            raise ValueError(
                f"{where}: expected masks of the images' size {list(size)}, got {list(t.shape)}"
            )


def cut_masks(masks: Any, own: Any, plan: MixPlan) -> Any:
    """Write 0 where the mixed image shows the other sample; ``own`` says which rows are its own.

    Args:
        masks: B tensors [m_i, H, W] of which the first own_i are the sample's own; or a tensor
            [B, M, H, W] and ``own`` bool [B, M]. They are written.
        own: as above.
        plan: a plan for B samples.
    """
    if plan.spatial_dims == 0:
        return masks
    if isinstance(masks, Tensor):
        return torch.where(_shown(masks, own, plan), masks, torch.zeros_like(masks))
    columns = plan.partner.tolist(), plan.blend.tolist(), plan.box.tolist()
    for i, (t, n, j, b, box) in enumerate(zip(masks, own, *columns, strict=True)):
        if j == i:
            continue
        y0, x0, y1, x1 = box
        t[:n, ..., y0:y1, x0:x1] = 0
        if b[1] == 0:
            _clear_outside(t[n:], box)
    return masks


def _clear_outside(masks: Tensor, box: Sequence[int]) -> None:
    y0, x0, y1, x1 = box
    masks[..., :y0, :] = 0
    masks[..., max(y0, y1) :, :] = 0
    masks[..., y0:y1, :x0] = 0
    masks[..., y0:y1, x1:] = 0


def _shown(masks: Tensor, own: Tensor, plan: MixPlan) -> Tensor:
    """bool [B, M, H, W]: where the mixed image shows the sample of each mask."""
    device = masks.device
    h, w = masks.shape[-2:]
    box = plan.box.to(device)
    y0, x0, y1, x1 = (side.view(-1, 1, 1, 1) for side in box.unbind(1))
    y, x = torch.arange(h, device=device).view(-1, 1), torch.arange(w, device=device)
    inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
    blended = (plan.blend.to(device)[:, 1] != 0).view(-1, 1, 1, 1)
    index = torch.arange(len(masks), dtype=torch.int32, device=device)
    itself = (plan.partner.to(device) == index).view(-1, 1, 1, 1)
    return torch.where(own[:, :, None, None], ~inside, inside | blended) | itself


class MaskLists:
    """Masks of instances that have no boxes: one stays while enough of its pixels are seen."""

    def __init__(
        self,
        masks: list[Tensor],
        fields: Mapping[str, Any],
        batch_size: int,
        points: Sequence[str],
        min_visible: float,
        name: str,
    ) -> None:
        if isinstance(masks, Tensor) or points:
            raise ValueError(
                f"{name}: expected boxes beside masks that are padded or have keypoints, got none; "
                "torchvision.ops.masks_to_boxes makes them"
            )
        if len(masks) != batch_size:
            raise ValueError(f"{name}: expected a batch of {batch_size}, got {len(masks)}")
        for field, values in fields.items():
            if len(values) != len(masks):
                raise ValueError(f"{field}: expected a batch of {len(masks)}, got {len(values)}")
            for i, (value, mask) in enumerate(zip(values, masks, strict=True)):
                if len(value) != len(mask):
                    raise ValueError(
                        f"{field}[{i}]: expected {len(mask)} rows, as {name}[{i}] has, got "
                        f"{len(value)}"
                    )
        self.masks, self.fields, self.min_visible = masks, fields, min_visible

    def mix(self, plan: MixPlan, with_own: bool = False, with_weights: bool = True) -> MixedRows:
        columns = plan.partner.tolist(), plan.blend.tolist(), plan.box.tolist()
        rows: list[Tensor] = []
        weights: list[Tensor] = []
        kept: list[tuple[int, list[int], list[int]]] = []
        for i, (j, (b0, b1), box) in enumerate(zip(*columns, strict=True)):
            own, other = self.masks[i].clone(), self.masks[j].clone()
            if j == i:
                keep_own, keep_other = [*range(len(own))], []
                b0 = 1.0
            else:
                totals = [t.flatten(1).count_nonzero(1) for t in (own, other)]
                if box:
                    y0, x0, y1, x1 = box
                    own[..., y0:y1, x0:x1] = 0
                    if b1 == 0:
                        _clear_outside(other, box)
                elif b1 == 0:
                    other.zero_()
                keep_own = self._seen(own, totals[0]) if b0 else []
                keep_other = self._seen(other, totals[1])
            rows.append(torch.cat((own[keep_own], other[keep_other])))
            each = [b0] * len(keep_own) + [b1 or 1.0] * len(keep_other)
            weights.append(torch.tensor(each, dtype=torch.float32))
            kept.append((j, keep_own, keep_other))
        fields = {name: _gathered(values, kept) for name, values in self.fields.items()}
        return MixedRows(rows, fields, weights, {}, None)

    def _seen(self, masks: Tensor, totals: Tensor) -> list[int]:
        seen = masks.flatten(1).count_nonzero(1)
        enough = (seen > 0) & (seen / totals >= self.min_visible)
        return enough.nonzero().flatten().tolist()


def _gathered(values: Sequence[Any], kept: Sequence[tuple[int, list[int], list[int]]]) -> list[Any]:
    out: list[Any] = []
    for i, (j, own, other) in enumerate(kept):
        if isinstance(values[i], Tensor):
            out.append(torch.cat((values[i][own], values[j][other])))
        else:
            out.append([values[i][k] for k in own] + [values[j][k] for k in other])
    return out
