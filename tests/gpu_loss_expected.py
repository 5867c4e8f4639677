"""The results that gpu_cases.py expects of the losses: float64 reference and tolerances."""

from __future__ import annotations

import math

import torch
from gpu_loss_cases import BINARY, argument_names, arithmetic, to_float64
from torch import Tensor

from fused_mixup import reference
from fused_mixup.codes import MEAN


def expect(op: str, args: list) -> list[tuple[Tensor, torch.dtype, float, float]]:
    """Value, dtype, rtol and atol of each result. ``args`` may be written to."""
    if op in ("scale_", "label_ranks"):
        found = getattr(reference, op)(*args)
        value = args[0] if found is None else found
        return [(value, value.dtype, 0.0, 0.0)]
    given = dict(zip(argument_names(op), args, strict=True))
    dtype, acc = given["logits"].dtype, arithmetic(given["logits"].dtype)
    eps = 1e-12 if acc == torch.float64 else 1e-6
    heaviest = [given[w].max() for w in ("class_weight", "pos_weight") if given.get(w) is not None]
    size = math.prod((1.0, *map(float, heaviest)))
    # Losses sum up to 40000 terms, each accurate to some units in the last place.
    of_loss = acc, 5 * eps, 10 * eps * size
    rounding = 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps / 2 * 1.01
    denormal = 6e-8 if dtype == torch.float16 else 0.0  # half of float16's smallest number
    step = size * _step(op, given, args)
    of_grad = dtype, 3 * eps + rounding, 2 * eps * step + denormal

    exact = to_float64(op, args)
    result = getattr(reference, op)(*exact)
    if "_backward" in op:
        return [(exact[1] if result is None else result, *of_grad)]
    if op == BINARY:
        return [(result, *of_loss)]
    loss, *others = result
    if op.endswith("_grad"):
        grad, *ranks = others
        return [(loss, *of_loss), (grad, *of_grad), *((r, r.dtype, 0.0, 0.0) for r in ranks)]
    stats, count, ranks = others
    same = (count, acc, 0.0, 0.0), (ranks, ranks.dtype, 0.0, 0.0)
    return [(loss, *of_loss), (stats, *of_loss), *same]


def _step(op: str, given: dict, args: list) -> float:
    """The largest gradient of the loss of a row, or of an element."""
    upstream = given.get("grad_loss")
    scale = 1.0 if upstream is None or not upstream.numel() else float(upstream.abs().max())
    if given["reduction"] != MEAN:
        return scale
    if op.startswith(BINARY):
        logits = given["logits"]
        divisor = logits.numel() // (logits.shape[1] if given["sum_classes"] else 1)
    elif "count" in given:
        divisor = int(given["count"])
    else:
        divisor = int(reference.soft_target_cross_entropy(*args)[2])
    return scale / max(divisor, 1)
