"""Loss and gradient on clusters of blocks (csrc/cuda/loss_cluster.cuh) in the host harness: checks
against float64 and against the kernel of rows."""

from __future__ import annotations

import itertools

import torch

from fused_mixup import reference
from fused_mixup.dtypes import arithmetic

from . import lib, loss_grid
from . import loss_ops as host
from .loss_grid import close, close_gradient, run_in_place, to_float64, tolerance

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
CLASSES = (1, 5, 17, 40, 333, 1000, 2070)
BLOCKS = (2, 4, 8)
LAYOUTS = ("contiguous", "misaligned", "rows", "offset")


def one_buffer(logits, target, blocks):
    """A limit of shared memory that holds one buffer, and not two."""
    wide = target.dtype if target.is_floating_point() else None
    _, buffer, shared = host.cluster_shape(logits.dtype, logits.shape[1], wide, blocks)
    assert shared == 2 * buffer > 0
    limit = buffer + 1024
    found = host.cluster_shape(logits.dtype, logits.shape[1], wide, blocks, limit)
    assert found == (blocks, 0, buffer)
    return limit


def check_values(logits, *arguments, blocks, single=False, ranks=False):
    """``arguments``: those of the op after the logits and before ``ranks``."""
    wide, rtol = to_float64(logits, *arguments[:4]), tolerance(logits)
    where = {"cluster": blocks}
    if single:
        where["shared_limit"] = one_buffer(logits, arguments[0], blocks)
    loss, grad, found = host.soft_target_cross_entropy_grad(logits, *arguments, ranks, **where)
    want = reference.soft_target_cross_entropy_grad(*wide, *arguments[4:], ranks)
    close(loss, want[0], rtol, 4 * rtol)
    close_gradient(grad, want[1], logits)
    assert torch.equal(found, want[2])
    rows = host.soft_target_cross_entropy_grad(logits, *arguments, ranks)
    close(loss, rows[0], 2 * rtol, 4 * rtol)
    assert torch.equal(found, rows[2])
    again = {}

    def over(view):
        again["loss"] = host.soft_target_cross_entropy_grad(
            view, *arguments, ranks, **where, out=view
        )[0]

    # In place, at another alignment; nothing beside the rows is written.
    close_gradient(torch.empty_like(logits).copy_(run_in_place(logits, over)), want[1], logits)
    close(again["loss"], want[0], rtol, 4 * rtol)


def check(dtype, classes, case, blocks, single, generator, batch=5):
    order, _, _, ls, _, weighed, _, reduction = case
    lib.set_order(order)
    made = loss_grid.make_loss(dtype, classes, case, generator, batch)
    logits, target, partner, weight, class_weight, ts, ignore = made
    if class_weight is not None:
        class_weight = class_weight.to(arithmetic(dtype))
    sparse = (target, partner, weight, class_weight, ignore, ts, ls)
    where = {"blocks": blocks, "single": single}
    ranks = partner is not None and weighed
    check_values(logits, *sparse, 0.0, 0.0, reduction, ranks=ranks, **where)
    focal = partner is not None and ts == 0 and ls == 0
    gamma = (2.0 if weighed else 0.5) if focal else 0.0
    check_values(logits, *sparse, gamma, 0.01, reduction, **where)


def cases(seed, step=1):
    """(case of loss_grid, blocks of a cluster, whether shared memory holds one buffer alone)."""
    turns = itertools.cycle(itertools.product((False, True), BLOCKS))
    for _ in range(seed):
        next(turns)
    for case, (single, blocks) in zip(loss_grid.cases(LAYOUTS, seed, step), turns, strict=False):
        yield case, blocks, single


def run(full: bool, generator) -> int:
    """Check every instantiation; return the number of cases."""
    count = 0
    for dtype in DTYPES:
        for seed, classes in enumerate(CLASSES if full else (33, 1030)):
            for case in cases(seed, 1 if full else 2):
                check(dtype, classes, *case, generator)
                count += 1
    return count


def run_barriers():
    """One row after the other in one cluster, over one buffer and two, in place too."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 603, generator=generator)  # with single elements
    labels = torch.arange(4) * 100
    weight = torch.full((1, 2), 0.5).expand(4, 2)
    with lib.resident_clusters(1):
        for single, gamma in itertools.product((False, True), (0.0, 2.0)):
            arguments = (labels, labels.flip(0), weight, None, -100, 0.0, 0.0, gamma, 0.0, 0)
            check_values(logits, *arguments, blocks=2, single=single, ranks=gamma == 0)
