"""A small detector without anchors, its weighted loss, and average precision.

The cell that holds the centre of a box answers for it: with an objectness, the box, and its class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE, CLASSES = 8, 10
SIDE = 24.0  # pixels: a box is predicted relative to it

Detections = tuple[Tensor, Tensor, Tensor]  # boxes [n, 4], labels [n], scores [n]


class Detector(nn.Module):
    """[B, 3, H, W] to [B, 1 + 4 + K, H/8, W/8]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        plan = ((3, 1, 2), (1, 2, 2), (2, 3, 2), (3, 4, 1), (4, 4, 1))  # widths, stride
        for i, (c_in, c_out, stride) in enumerate(plan):
            c_in = 3 if i == 0 else c_in * width
            conv = nn.Conv2d(c_in, c_out * width, 3, stride, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(c_out * width), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(4 * width, 1 + 4 + CLASSES, 1)
        nn.init.constant_(self.head.bias[:1], -4.0)  # most cells hold no box

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def encoded(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [n, 4] as (column and row of their cell [n, 2], numbers that a cell predicts)."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    cell = (centre / STRIDE).floor()
    return cell.long(), torch.cat((centre / STRIDE - cell - 0.5, (size / SIDE).log()), 1)


def decoded(numbers: Tensor, cell: Tensor) -> Tensor:
    centre, size = (numbers[:, :2] + cell + 0.5) * STRIDE, numbers[:, 2:].exp() * SIDE
    return torch.cat((centre - size / 2, centre + size / 2), 1)


def detection_loss(
    out: Tensor,  # [B, 1 + 4 + K, h, w]
    boxes: list[Tensor],  # B of [n, 4]
    labels: list[Tensor],  # B of [n]
    weights: list[Tensor],  # B of [n]
) -> Tensor:
    """Objectness towards the weight of a cell's box; box and class terms times that weight."""
    batch, _, h, w = out.shape
    sample = torch.repeat_interleave(torch.tensor([len(each) for each in labels]))
    cell, numbers = encoded(torch.cat(boxes))
    x, y = cell[:, 0].clamp(0, w - 1), cell[:, 1].clamp(0, h - 1)
    y_true, weight = torch.cat(labels), torch.cat(weights)
    objectness = torch.zeros(batch * h * w).scatter_reduce_(
        0, (sample * h + y) * w + x, weight, "amax"
    )
    objects = F.binary_cross_entropy_with_logits(out[:, 0].flatten(), objectness, reduction="sum")
    at = out[sample, :, y, x]  # [n, 1 + 4 + K]
    places = F.smooth_l1_loss(at[:, 1:5], numbers, reduction="none", beta=0.1).sum(1)
    classes = F.cross_entropy(at[:, 5:], y_true, reduction="none")
    return (objects + (weight * (places + classes)).sum()) / batch


@torch.no_grad()
def detect(net: nn.Module, images: Tensor, least: float = 0.05) -> list[Detections]:
    """The boxes of each image: cells whose objectness is the largest of its neighbours."""
    found = []
    out = torch.cat([net(x) for x in images.split(50)])
    score = out[:, 0].sigmoid()
    peak = (score == F.max_pool2d(score[:, None], 3, 1, 1)[:, 0]) & (score > least)
    for i in range(len(images)):
        y, x = peak[i].nonzero().unbind(1)
        at = out[i][:, y, x].T
        probability, label = at[:, 5:].softmax(1).max(1)
        boxes = decoded(at[:, 1:5], torch.stack((x, y), 1))
        found.append((boxes, label, score[i, y, x] * probability))
    return found


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, [len(a), len(b)]."""
    low = a[:, None, :2].maximum(b[None, :, :2])
    high = a[:, None, 2:].minimum(b[None, :, 2:])
    both = (high - low).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    return both / (areas[0][:, None] + areas[1] - both)


def average_precision(
    found: list[Detections], truth: list[tuple[Tensor, Tensor]], iou: float = 0.5
) -> float:
    """The mean over classes of the area under precision and recall, as VOC has it since 2010.

    A detection is right if a box of its class that is not yet found overlaps it by ``iou``.
    """
    right: list[list[tuple[float, bool]]] = [[] for _ in range(CLASSES)]
    for (boxes, labels, scores), (true_boxes, true_labels) in zip(found, truth, strict=True):
        free = torch.ones(len(true_labels), dtype=torch.bool)
        shares = overlaps(boxes, true_boxes)
        for k in scores.argsort(descending=True).tolist():
            fits = torch.where(free & (true_labels == labels[k]), shares[k], -1.0)
            best = int(fits.argmax())
            hit = bool(fits[best] >= iou)
            free[best] &= not hit
            right[int(labels[k])].append((scores[k].item(), hit))
    counts = torch.bincount(torch.cat([labels for _, labels in truth]), minlength=CLASSES)
    areas = [_area(right[c], int(counts[c])) for c in range(CLASSES) if counts[c]]
    return sum(areas) / len(areas)


def _area(right: list[tuple[float, bool]], count: int) -> float:
    if not right:
        return 0.0
    hits = torch.tensor([hit for _, hit in sorted(right, key=lambda row: -row[0])]).double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    envelope = precision.flip(0).cummax(0).values.flip(0)  # the best precision at this recall
    return (envelope * hits).sum().item() / count
