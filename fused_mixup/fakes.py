"""What each op returns for tensors without values: shapes and dtypes, as torch.compile needs them.

``ops.py`` registers these functions by the ops' names.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .codes import BATCH, CONST, NONE, PIXEL, RAND, RESIZEMIX
from .dtypes import arithmetic

FAKES: dict[str, Callable] = {}


def _fake(name: str) -> Callable:
    def register(fake: Callable) -> Callable:
        FAKES[name] = fake
        return fake

    return register


@_fake("draw_plan")
def fake_draw_plan(state, settings, labels, partner, batch_size, spatial, *rest):
    return (
        state.new_empty((batch_size,), dtype=torch.int32),
        state.new_empty((batch_size, 2), dtype=torch.float32),
        state.new_empty((batch_size, 2), dtype=torch.float64),
        state.new_empty((batch_size, 2 * len(spatial)), dtype=torch.int32),
    )


@_fake("draw_variants")
def fake_draw_variants(
    state, settings, labels, partner, kinds, batch_size, height, width, rank, per, *rest
):
    units = 1 if per == BATCH else batch_size
    shapes = (
        ((batch_size,), torch.int32),
        ((batch_size, 2), torch.float32),
        ((batch_size, 2), torch.float64),
        ((batch_size, 4), torch.int32),
        ((batch_size,), torch.int32),
        ((units,), torch.float32),
        ((units, rank, height), torch.float32),
        ((units, rank, width), torch.float32),
        ((batch_size if RESIZEMIX in kinds else 0, 4), torch.int32),
    )
    return tuple(state.new_empty(shape, dtype=dtype) for shape, dtype in shapes)


@_fake("draw_erasing")
def fake_draw_erasing(
    state, settings, fill, batch_size, height, width, max_count, channels, erase_mode, clean
):
    value = {CONST: (1, 1, len(fill)), RAND: (batch_size, max_count, channels), PIXEL: (0,)}[
        erase_mode
    ]
    return (
        state.new_empty((batch_size, max_count, 4), dtype=torch.int32),
        state.new_empty(value, dtype=torch.float32),
        state.new_empty((batch_size if erase_mode == PIXEL else 0,)),
    )


@_fake("draw_neighbors")
def fake_draw_neighbors(state, settings, labels, pool, kernel):
    return state.new_empty((labels.shape[0],), dtype=torch.int32)


@_fake("mix_")
def _(x, partner, blend, box, pairing):
    return None


@_fake("mix")
def _(x, partner, blend, box, pairing):
    return torch.empty_like(x)


@_fake("mix_out")
def _(x, partner, blend, box, pairing, out):
    return None


@_fake("mix_backward")
def _(grad, partner, sources, offsets, blend, box, pairing):
    return torch.empty_like(grad)


@_fake("paste_")
def _(x, partner, box, pairing):
    return None


@_fake("mix_ragged")
def _(images, partner, blend, region, channels_last, out):
    return None


@_fake("mix_samples")
def _(samples, partner, blend, box, pairing, out):
    return None


@_fake("mix_normalize")
def _(images, partner, blend, box, pairing, mean, std, flip, *erase_first_out):
    return None


@_fake("mix_rectangles")
@_fake("mix_patches")
def _(x, *rest_out):
    return None


@_fake("mix_masked")
def _(x, *rest):
    return torch.empty_like(x)


@_fake("mix_masked_out")
def _(x, *rest):
    return None


@_fake("mix_masked_")
def _(x, *rest):
    return None


@_fake("mix_masked_backward")
def _(grad, *rest):
    return torch.empty_like(grad)


@_fake("mask_mean")
def _(code, *rest):
    return code.new_empty(code.shape, dtype=torch.float32)


@_fake("label_bounds")
def _(labels, ignore_index):
    return labels.new_empty(2, dtype=torch.int64)


@_fake("mix_targets")
def _(labels, partner, weight, pairing, num_classes, label_smoothing, dtype):
    shape = (labels.shape[0], num_classes, *labels.shape[1:])
    return labels.new_empty(shape, dtype=dtype)


@_fake("mix_boxes")
def _(boxes, count, partner, blend, box, pairing, min_visible):
    batch, room = boxes.shape[0], 2 * boxes.shape[1]
    return (
        boxes.new_empty((batch, room, 4)),
        boxes.new_empty((batch, room), dtype=torch.int32),
        boxes.new_empty((batch, room), dtype=torch.float32),
        boxes.new_empty((batch,), dtype=torch.int32),
    )


@_fake("mix_boxes_packed")
def _(boxes, counts, partner, blend, box, pairing, min_visible):
    shown = torch.library.get_ctx().new_dynamic_size()  # it depends on values
    return (
        boxes.new_empty((shown, 4)),
        boxes.new_empty((shown,), dtype=torch.int64),
        boxes.new_empty((shown,), dtype=torch.float32),
        boxes.new_empty((len(counts),), dtype=torch.int32),
    )


def _loss_like(logits, reduction, per_row=True):
    acc = arithmetic(logits.dtype)
    rows = (logits.shape[0], *logits.shape[2:]) if per_row else logits.shape
    return logits.new_empty(rows if reduction == NONE else (), dtype=acc)


def _ranks_like(logits, ranks):
    shape = (2, logits.shape[0], *logits.shape[2:]) if ranks else (0,)
    return logits.new_empty(shape, dtype=torch.int32)


@_fake("soft_target_cross_entropy")
def _(logits, *arguments):
    *_, reduction, ranks = arguments
    loss = _loss_like(logits, reduction)
    stats = loss.new_empty((3, logits.shape[0], *logits.shape[2:]))
    return loss, stats, loss.new_empty(()), _ranks_like(logits, ranks)


@_fake("soft_target_cross_entropy_backward")
def _(grad_loss, logits, *arguments):
    return torch.empty_like(logits)


@_fake("soft_target_cross_entropy_backward_")
def _(grad_loss, logits, *arguments):
    return None


@_fake("soft_target_cross_entropy_grad")
def _(logits, *arguments):
    *_, reduction, ranks = arguments
    return _loss_like(logits, reduction), torch.empty_like(logits), _ranks_like(logits, ranks)


@_fake("scale_")
def _(x, factor):
    return None


@_fake("label_ranks")
def _(logits, labels, partner_labels):
    shape = (1 if partner_labels is None else 2, *labels.shape)
    return logits.new_empty(shape, dtype=torch.int32)


@_fake("soft_target_binary_cross_entropy")
def _(logits, *arguments):
    *_, reduction, sum_classes = arguments
    return _loss_like(logits, reduction, sum_classes)


@_fake("soft_target_binary_cross_entropy_backward")
def _(grad_loss, logits, *arguments):
    return torch.empty_like(logits)


@_fake("soft_target_binary_cross_entropy_backward_")
def _(grad_loss, logits, *arguments):
    return None


@_fake("soft_target_binary_cross_entropy_grad")
def _(logits, *arguments):
    *_, reduction, sum_classes = arguments
    return _loss_like(logits, reduction, sum_classes), torch.empty_like(logits)
