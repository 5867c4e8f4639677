"""The figure of a batch and its plan: :func:`show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import MixedTarget, MixPlan, mix
from ..arguments import integer, kind, names
from ..reference.dense import label_columns
from .pillow import require_pillow
from .shares import Names, Share, dense_shares, plan_shares, target_shares

if TYPE_CHECKING:
    from PIL import Image

    from .tiles import Boxes

# The entries of a batch, as BatchMix names them; the first of each that is there.
IMAGES = ("image", "images", "pixel_values", "inputs", "x")
LABELS = ("label", "target", "targets", "y")
MASKS = ("mask", "masks", "segmentation")
NO_IGNORE = -100


def show(
    plan: MixPlan,
    x: Any,  # [B, C, H, W]
    target: Any = None,  # [B]
    *,
    mixed: bool = True,
    originals: Tensor | None = None,  # [B, C, H, W]
    boxes: Sequence[Any] | None = None,  # [n, 4] each
    box_labels: Sequence[Any] | None = None,  # [n] each
    box_weights: Sequence[Any] | None = None,  # [n] each
    mask: Any = None,  # [B, H, W]
    class_names: Names = None,
    box_names: Names = None,
    columns: int | None = None,
    limit: int = 64,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    title: str = "",
) -> Image.Image:
    """Draw a mixed batch: each image with its labels and their weights, and the box cut into it.

    For each sample: the image, the outline of its CutMix box, a bar and a line for each label with
    its share of the target, its partner's number, and whether it is MixUp or CutMix. A notebook
    displays what is returned, ``.save("grid.png")`` writes it::

        plan = mixer.draw(len(x), x.shape[2:])
        target = MixedTarget.from_labels(labels, plan, num_classes)
        show(plan, mix_(x, plan), target, class_names=("cat", "dog"))

    Args:
        plan: the plan by which the batch was mixed.
        x: [B, C, H, W], C is 1 or 3, uint8 or floats, on any device; or a batch as
            :class:`fused_mixup.BatchMix` returns it, a dict with "image" and perhaps "label",
            "boxes", "labels", "box_weights" and "mask", which stand for the arguments left out.
        target: a :class:`fused_mixup.MixedTarget`, dense targets [B, K], or the labels int64 [B]
            before the mix. None: weights are shown with the numbers of samples.
        mixed: False: ``x`` is the batch before the mix, and a mixed copy of it is drawn.
        originals: the batch before the mix, drawn above the mixed images.
        boxes: B tensors [n, 4] of detection boxes (x0, y0, x1, y1) in pixels, as mixed.
        box_labels, box_weights: B tensors [n], classes and weights of the boxes.
        mask: class maps, integers [B, H, W] as pasted, or a MixedTarget of them. Class 0 is
            background, and not coloured.
        class_names: names of the classes, a sequence or a dict of index to name.
        box_names: names of the classes of boxes; by default ``class_names``.
        columns: how many images stand side by side.
        limit: how many samples are drawn at most, the first ones.
        mean, std: floats were normalised as ``(x - mean) / std`` and are drawn as they were before,
            in [0, 1], or in [0, 255] where a mean is above 1. Without them floats in [0, 1] are
            drawn as they are, and others from their least value (black) to their largest (white),
            one scale for the batch; a note under the figure says so.
        title: a line above the figure.

    Returns:
        A ``PIL.Image.Image`` in RGB. Values that are not finite are magenta.

    Raises:
        ImportError: Pillow is not installed.
        TypeError, ValueError: an argument that is not as described.

    Notes:
        Reads the batch from its device, so it waits for it. Nothing is written.
    """
    require_pillow()
    from . import figure, tiles

    if not isinstance(plan, MixPlan):
        raise TypeError(f"plan: expected a MixPlan, got {kind(plan)}")
    entries = _entries(x, target)
    x, target = entries["x"], entries["target"]
    boxes = entries.get("boxes") if boxes is None else boxes
    box_labels = entries.get("labels") if box_labels is None else box_labels
    box_weights = entries.get("box_weights") if box_weights is None else box_weights
    mask = entries.get("mask") if mask is None else mask
    _check_images("x", x, plan)
    if originals is not None:
        _check_images("originals", originals, plan)
        if originals.shape != x.shape:
            raise ValueError(
                f"originals: expected {list(x.shape)} as x, got {list(originals.shape)}"
            )
    _check_scale(x, mean, std)
    if not len(x):
        raise ValueError("x: expected at least one image, got none")
    shown = min(_positive("limit", limit), len(x))
    columns = figure.best_columns(shown) if columns is None else _positive("columns", columns)
    size = x.shape[2], x.shape[3]
    plan = plan.to("cpu")
    if not mixed:
        if boxes is not None:
            raise ValueError(
                "boxes: expected mixed=True with boxes, as BatchMix mixes them; got mixed=False"
            )
        x = mix(x.detach().cpu(), plan)
        mask = _mixed_mask(mask, plan)
    shares = _shares(plan, target, shown, class_names)
    maps = _maps(mask, plan, size, shown)
    detections = _boxes(boxes, box_labels, box_weights, plan.batch_size, shown)
    images, note = tiles.to_bytes(x[:shown], mean, std)
    before = None if originals is None else tiles.to_bytes(originals[:shown], mean, std)[0]
    captions, cuts = _captions(plan, shown, size)
    drawn = []
    for i, image in enumerate(images):
        for labels, weight, ignored in maps[i]:
            image = tiles.colour_map(image, labels, weight, ignored)
        tile = figure.Tile(tiles.picture(image), shares[i], captions[i])
        tiles.draw_outline(tile.image, cuts[i], size)
        if detections:
            names_of_boxes = class_names if box_names is None else box_names
            tiles.draw_boxes(tile.image, detections[i], size, names_of_boxes)
        if before is not None:
            tile.original = tiles.picture(before[i])
            tile.original_caption = f"#{i} before the mix"
        drawn.append(tile)
    notes = [note] if note else []
    if shown < len(x):
        notes.append(f"the first {shown} of {len(x)} samples")
    return figure.draw_figure(drawn, columns, title, notes)


# ---------------------------------------------------------------- arguments


def _entries(x: Any, target: Any) -> dict[str, Any]:
    """The parts of a batch, from ``x`` or ``target`` where one is a dict as BatchMix returns."""
    batch = x if isinstance(x, Mapping) else target if isinstance(target, Mapping) else {}
    found = {key: batch[key] for key in ("boxes", "labels", "box_weights") if key in batch}
    found["mask"] = next((batch[key] for key in MASKS if key in batch), None)
    if isinstance(x, Mapping):
        x = next((batch[key] for key in IMAGES if key in batch), None)
        if x is None:
            raise ValueError(f"x: expected one of the keys {list(IMAGES)}, got {names(batch)}")
    if target is None or target is batch:
        target = next((batch[key] for key in LABELS if key in batch), None)
        if target is None and "boxes" not in batch:
            target = batch.get("labels")
    return {**found, "x": x, "target": target}


def _check_images(name: str, x: Any, plan: MixPlan) -> None:
    expected = f"{name}: expected images [{plan.batch_size}, C, H, W] with C 1 or 3"
    if not isinstance(x, Tensor):
        raise TypeError(f"{expected}, got {kind(x)}")
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        remedy = "; x[:, :3] are the first three channels" if x.ndim == 4 else ""
        raise ValueError(f"{expected}, got {list(x.shape)}{remedy}")
    if len(x) != plan.batch_size or 0 in x.shape[2:]:
        raise ValueError(f"{expected} as in plan, got {list(x.shape)}")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise TypeError(f"{expected}, uint8 or floats, got {x.dtype}")
    if plan.spatial_dims > 2:
        raise ValueError(f"plan: expected boxes of images, got {plan.spatial_dims} spatial dims")
    plan.check_boxes(name, x.shape[4 - plan.spatial_dims :])


def _check_scale(x: Tensor, mean: Any, std: Any) -> None:
    if (mean is None) != (std is None):
        raise ValueError("mean, std: expected both or neither, got one of them")
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) not in (1, x.shape[1]):
            raise ValueError(f"{name}: expected {x.shape[1]} numbers, got {len(values)}")


def _positive(name: str, value: int) -> int:
    value = integer(name, value)
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
    return value


def _shares(plan: MixPlan, target: Any, shown: int, class_names: Names) -> list[list[Share]]:
    if target is None:
        return plan_shares(plan, shown)
    expected = (
        f"target: expected a MixedTarget, int64 labels [{plan.batch_size}] or dense targets "
        f"[{plan.batch_size}, K]"
    )
    if isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point():
        if len(target) != plan.batch_size:
            raise ValueError(f"{expected}, got {list(target.shape)}")
        labels = target.detach().cpu().long()
        target = MixedTarget.from_labels(labels, plan, int(labels.max()) + 1)
    if not isinstance(target, (Tensor, MixedTarget)):
        raise TypeError(f"{expected}, got {kind(target)}; of several heads give one")
    shape = list(target.shape)
    dense = isinstance(target, Tensor)
    if len(shape) != (2 if dense else 1) or shape[0] != plan.batch_size:
        raise ValueError(f"{expected}, got {shape}")
    if isinstance(target, Tensor):
        return dense_shares(target, shown, class_names)
    return target_shares(target, shown, class_names)


def _mixed_mask(mask: Any, plan: MixPlan) -> Any:
    if mask is None or isinstance(mask, MixedTarget):
        return mask
    maps = mask.detach().cpu().long()
    classes = int(maps.max()) + 1 if maps.numel() else 1
    return MixedTarget.from_labels(maps, plan, classes)


def _maps(
    mask: Any, plan: MixPlan, size: tuple[int, int], shown: int
) -> list[list[tuple[Tensor, float, int]]]:
    """For each sample its class maps [H, W], their weights, and the class that is ignored."""
    if mask is None:
        return [[] for _ in range(shown)]
    expected = [plan.batch_size, *size]
    if not isinstance(mask, (Tensor, MixedTarget)) or list(mask.shape) != expected:
        got = list(mask.shape) if hasattr(mask, "shape") else kind(mask)
        raise ValueError(f"mask: expected class maps or a MixedTarget {expected}, got {got}")
    if isinstance(mask, Tensor):
        if mask.is_floating_point():
            raise TypeError(f"mask: expected integers, got {mask.dtype}")
        return [[(labels.long(), 1.0, NO_IGNORE)] for labels in mask[:shown].detach().cpu()]
    mask = mask[:shown].to("cpu")
    columns = zip(*label_columns(mask.labels, mask.partner_labels), strict=True)
    pairs = zip(columns, mask.weight.tolist(), strict=True)
    return [
        [(y, weight, mask.ignore_index) for y, weight in zip(labels, weights, strict=True)]
        for labels, weights in pairs
    ]


def _boxes(boxes: Any, labels: Any, weights: Any, batch_size: int, shown: int) -> list[Boxes]:
    from .tiles import Boxes

    if boxes is None:
        return []
    lists: list[list[Any]] = []
    for name, entry in (("boxes", boxes), ("box_labels", labels), ("box_weights", weights)):
        if entry is None:
            lists.append([None] * shown)
            continue
        if len(entry) != batch_size:
            raise ValueError(f"{name}: expected one entry a sample, {batch_size}, got {len(entry)}")
        each = [torch.as_tensor(rows).detach().cpu() for rows in entry[:shown]]
        for rows, corners in zip(each, boxes[:shown], strict=True):
            shape = (len(corners), 4) if name == "boxes" else (len(corners),)
            if rows.numel() and tuple(rows.shape) != shape:
                raise ValueError(f"{name}: expected {list(shape)} a sample, got {list(rows.shape)}")
        lists.append([rows.tolist() for rows in each])
    return [Boxes(*rows) for rows in zip(*lists, strict=True)]


def _captions(
    plan: MixPlan, shown: int, size: tuple[int, int]
) -> tuple[list[str], list[list[int]]]:
    """What was done to each sample, and its box (y0, x0, y1, x1)."""
    captions, cuts = [], []
    rows = zip(
        plan.partner[:shown].tolist(), plan.blend[:shown].tolist(), plan.weight[:shown].tolist(),
        plan.box[:shown].tolist(), strict=True,
    )  # fmt: skip
    for i, (partner, blend, weight, box) in enumerate(rows):
        d = len(box) // 2
        missing = 2 - d
        cut = [*[0] * missing, *box[:d], *size[:missing], *box[d:]] if d else [0, 0, 0, 0]
        has_box = cut[0] < cut[2] and cut[1] < cut[3]
        ways = ["MixUp"] * (blend[1] != 0.0) + ["CutMix"] * has_box
        if partner == i or not (ways or weight[1]):
            captions.append(f"#{i}, not mixed")
        else:
            captions.append(f"#{i} with #{partner}, {' and '.join(ways) or 'labels alone'}")
        cuts.append(cut if has_box else [0, 0, 0, 0])
    return captions, cuts
