"""Times BatchMix on whole samples: image, class map, boxes and label, against plain PyTorch.

The plain way does the same work with the same plan: timm's lines for the image, a clone and a loop
over samples for maps and boxes, as training scripts and torchvision's references write it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fused_mixup as fm
from fused_mixup import BatchMix, MixedTarget, MixPlan

from ..goals import IMAGES
from ..registry import OURS, Case, Provider, Work

K, BOXES, CLASSES = 21, 50, 80
MODES = {
    "CutMix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "MixUp": {"mixup_alpha": 1.0},
}
LEAST = 0.1  # of a box that is seen


def draw_boxes(shape: tuple[int, ...]) -> list[Tensor]:
    h, w = shape[-2:]
    made = []
    for _ in range(shape[0]):
        low = torch.rand(BOXES, 2) * torch.tensor([w, h]) * 0.7
        high = low + 2 + torch.rand(BOXES, 2) * torch.tensor([w, h]) * 0.28
        made.append(torch.cat((low, high), 1))
    return made


def plain_boxes(
    boxes: list[Tensor], labels: list[Tensor], plan: MixPlan
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The boxes that each mixed image shows, sample by sample."""
    out: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    columns = plan.partner.tolist(), plan.blend.tolist(), plan.box.tolist()
    for i, (j, (own, other), box) in enumerate(zip(*columns, strict=True)):
        if not box:
            kept = boxes[i], boxes[j]
            y = labels[i], labels[j]
            weights = torch.full((len(kept[0]),), own), torch.full((len(kept[1]),), other)
        else:
            y0, x0, y1, x1 = box
            area = (boxes[i][:, 2:] - boxes[i][:, :2]).prod(1)
            low = boxes[i][:, :2].maximum(torch.tensor([x0, y0]))
            high = boxes[i][:, 2:].minimum(torch.tensor([x1, y1]))
            hidden = (high - low).clamp(min=0).prod(1)
            share = (area - hidden) / area
            stays = (share >= LEAST) & (share > 0)
            seen = boxes[i].clone()
            tall = (y0 <= seen[:, 1]) & (y1 >= seen[:, 3])
            wide = (x0 <= seen[:, 0]) & (x1 >= seen[:, 2])
            left, right = (x0 <= seen[:, 0]), (x1 >= seen[:, 2])
            top, bottom = (y0 <= seen[:, 1]), (y1 >= seen[:, 3])
            old = boxes[i]
            seen[:, 0] = torch.where(tall & left, old[:, 0].clamp(min=x1), old[:, 0])
            seen[:, 1] = torch.where(wide & top, old[:, 1].clamp(min=y1), old[:, 1])
            seen[:, 2] = torch.where(tall & right & ~left, old[:, 2].clamp(max=x0), old[:, 2])
            seen[:, 3] = torch.where(wide & bottom & ~top, old[:, 3].clamp(max=y0), old[:, 3])
            theirs = boxes[j].clone()
            size = (theirs[:, 2:] - theirs[:, :2]).prod(1)
            theirs[:, 0::2] = theirs[:, 0::2].clamp(x0, x1)
            theirs[:, 1::2] = theirs[:, 1::2].clamp(y0, y1)
            inside = (theirs[:, 2:] - theirs[:, :2]).prod(1) / size
            come = (inside >= LEAST) & (inside > 0)
            kept = seen[stays], theirs[come]
            y = labels[i][stays], labels[j][come]
            weights = torch.ones(len(kept[0])), torch.ones(len(kept[1]))
        out[0].append(torch.cat(kept))
        out[1].append(torch.cat(y))
        out[2].append(torch.cat(weights))
    return out


def plain_step(batch: dict[str, Any], plan: MixPlan) -> dict[str, Any]:
    """One step in plain PyTorch, in place where training scripts are."""
    x, mask, lam = batch["image"], batch["mask"], float(plan.weight[0, 0])
    box = plan.box[0].tolist()
    if box:
        y0, x0, y1, x1 = box
        x[:, :, y0:y1, x0:x1] = x.flip(0)[:, :, y0:y1, x0:x1]
        mask = mask.clone()
        mask[:, y0:y1, x0:x1] = mask.flip(0)[:, y0:y1, x0:x1]
        maps: Any = mask
    else:
        flipped = x.flip(0).mul_(1.0 - lam)
        x.mul_(lam).add_(flipped)
        hot = F.one_hot(mask.long(), K).movedim(-1, 1).float()
        maps = hot * lam + hot.flip(0) * (1.0 - lam)
    y = F.one_hot(batch["label"], CLASSES).float()
    label = y * lam + y.flip(0) * (1.0 - lam)
    boxes, labels, weights = plain_boxes(batch["boxes"], batch["labels"], plan)
    return {
        "image": x,
        "mask": maps,
        "label": label,
        "boxes": boxes,
        "labels": labels,
        "box_weights": weights,
    }


def flat(out: dict[str, Any]) -> tuple[Tensor, ...]:
    made = []
    for key in ("image", "mask", "label", "boxes", "labels"):
        value = out[key]
        if isinstance(value, MixedTarget):
            value = value.dense()
        made.append(torch.cat(value).float() if isinstance(value, list) else value.float())
    return tuple(made)


def whole_sample(case: Case, device: str) -> Work:
    b, _, h, w = case.shape
    mode = MODES[case.variant.split(",")[0]]
    boxes, labels = draw_boxes(case.shape), [torch.randint(CLASSES, (BOXES,)) for _ in range(b)]
    label = torch.randint(CLASSES, (b,))
    batches = [
        {
            "image": torch.rand(case.shape, dtype=case.dtype),
            "mask": torch.randint(K, (b, h, w), dtype=torch.uint8),
            "label": label,
            "boxes": boxes,
            "labels": labels,
        }
        for _ in range(3)
    ]
    plan = BatchMix(**mode, seed=5).draw(b, (h, w))
    # All sides draw the same plan in each step, so that they move the same pixels.
    mixer = BatchMix({"label": CLASSES, "mask": K}, **mode, seed=5)
    alone = BatchMix(**mode, seed=5)
    state = mixer.state.clone()

    def ours(batch: dict[str, Any]) -> dict[str, Any]:
        mixer.state.copy_(state)
        return mixer(batch)

    def images(batch: dict[str, Any]) -> dict[str, Any]:
        alone.state.copy_(state)
        return alone({"image": batch["image"]})

    def expected(batch: dict[str, Any]) -> tuple[Tensor, ...]:
        return flat(plain_step(batch, plan))

    providers: dict[str, Provider | str] = {
        OURS: Provider(ours, (1e-5, 1e-5)),
        "plain PyTorch": Provider(lambda batch: plain_step(batch, plan), (1e-5, 1e-5)),
        IMAGES: Provider(images, checked=False),
    }
    return Work(batches, providers, expected, select=flat)


def follow_boxes(case: Case, device: str) -> Work:
    boxes = draw_boxes(case.shape)
    labels = [torch.randint(CLASSES, (BOXES,)) for _ in range(case.shape[0])]
    plan = BatchMix(**MODES[case.variant], seed=5).draw(case.shape[0], case.shape[-2:])
    size = case.shape[-2:]
    providers: dict[str, Provider | str] = {
        OURS: Provider(lambda i: fm.mix_boxes(boxes, labels, plan, size), (1e-5, 1e-5)),
        "plain PyTorch": Provider(lambda i: plain_boxes(boxes, labels, plan), (1e-5, 1e-5)),
    }

    def select(made: Any) -> Any:
        return tuple(torch.cat(list(values)).float() for values in made)

    return Work([0], providers, lambda i: select(plain_boxes(boxes, labels, plan)), select=select)


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":  # lists of boxes live on the host
        return
    shape = (64, 3, 224, 224)
    for name in MODES:
        yield Case(
            "BatchMix of a whole sample",
            f"{name}, image, map, 50 boxes, label",
            shape,
            torch.float32,
            whole_sample,
            "kinds",
            ("plain PyTorch", IMAGES),
            goals=(f"cpu whole sample {name}",),
        )
        yield Case(
            "mix_boxes", name, shape, torch.float32, follow_boxes, "kinds", ("plain PyTorch",)
        )
