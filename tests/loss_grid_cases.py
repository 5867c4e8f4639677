"""Seeded random losses of every kind, with their float64 truth and eager PyTorch's result.

Every backend runs the same cases. A case gives the public function's arguments
(:attr:`Case.target`, :attr:`Case.options`) and the op's (:meth:`Case.arguments`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from cases import FLOATS
from torch import Tensor

from fused_mixup import MixedTarget
from fused_mixup.codes import REDUCTIONS
from fused_mixup.losses.arguments import binary_target, cross_entropy_arguments
from fused_mixup.reference.losses import ignored_rows

POSITIONS = ((), (), (3,), (2, 2), (5, 1), (2, 1, 3))


@dataclass
class Case:
    """One loss. ``kind``: "cross_entropy" or "binary_cross_entropy"."""

    kind: str
    logits: Tensor
    target: Tensor | MixedTarget
    options: dict = field(default_factory=dict)

    @property
    def op(self) -> str:
        return f"soft_target_{self.kind}"

    @property
    def acc(self) -> torch.dtype:
        return torch.float64 if self.logits.dtype == torch.float64 else torch.float32

    def arguments(self) -> tuple[tuple, Tensor | None]:
        """The op's arguments after the logits (before ``ranks``), and the divisor of its sum where
        labels' weights make it, which no op takes."""
        o = self.options
        reduction = REDUCTIONS[o["reduction"]]
        if self.kind == "cross_entropy":
            smoothing = o["label_smoothing"]
            given = o["weight"], o["ignore_index"], reduction, smoothing, 0.0, 0.0
            return cross_entropy_arguments(self.logits, self.target, *given)
        threshold = o["target_threshold"]
        sparse, smoothing, threshold = binary_target(self.logits, self.target, threshold)
        weights = (
            w if w is None else w.flatten().to(self.acc) for w in (o["weight"], o["pos_weight"])
        )
        options = smoothing, threshold, 0.0, reduction, o["sum_classes"]
        return (*sparse, *weights, *options), None

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The target in the form that the losses of torch.nn.functional take."""
        if not isinstance(self.target, MixedTarget) and self.target.is_floating_point():
            return self.target.to(dtype)
        k = self.logits.shape[1]
        if self.kind == "binary_cross_entropy" and k == 1:  # the probability of class 1 of two
            return self._dense(2, dtype)[:, 1:]
        return self._dense(k, dtype)

    def _dense(self, k: int, dtype: torch.dtype) -> Tensor:
        if isinstance(self.target, MixedTarget):
            return self.target.dense(dtype)
        hot = F.one_hot(self.target.clamp(0, k - 1), k).movedim(-1, 1)
        kept = self.target != self.options.get("ignore_index", -100)
        return (hot * kept.unsqueeze(1)).to(dtype)

    def ignored(self) -> Tensor:
        """bool [B, d1, …]"""
        t, k = self.target, self.logits.shape[1]
        ignore_index = self.options.get("ignore_index", -100)
        if isinstance(t, MixedTarget):
            ignore_index = t.ignore_index if ignore_index == -100 else ignore_index
            return ignored_rows(t.labels, t.partner_labels, t.weight, k, ignore_index)
        if t.is_floating_point():
            return torch.zeros_like(self.logits[:, 0], dtype=torch.bool)
        return t == ignore_index

    def by_functional(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(loss, gradient of its sum) by PyTorch's functions in ``dtype``, of the same logits."""
        # The float64 truth must not be rounded to a half type in the backward.
        z = self.logits.detach()
        leaf = (z.double() if dtype == torch.float64 else z.clone()).requires_grad_()
        binary = self.kind == "binary_cross_entropy"
        loss = (self._binary if binary else self._cross_entropy)(leaf.to(dtype), dtype)
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        if self.options["reduction"] == "mean" and not self.count():
            grad = torch.zeros_like(grad)  # PyTorch computes 0 / 0 where labels have no weight
        return loss.detach(), grad

    def _cross_entropy(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        o = self.options
        weight = None if o["weight"] is None else o["weight"].to(dtype)
        # Smoothing would change rows of zeros.
        kept = ~self.ignored()
        rows = F.cross_entropy(
            z, self.dense(dtype), weight, reduction="none", label_smoothing=o["label_smoothing"]
        )
        rows = torch.where(kept, rows, 0)
        if o["reduction"] == "none":
            return rows
        if o["reduction"] == "sum":
            return rows.sum()
        count = self.count().to(dtype)  # PyTorch computes 0 / 0 for class indices without weight
        return rows.sum() / torch.where(count == 0, torch.nan, count)

    def count(self) -> Tensor:
        """The divisor of the mean."""
        if self.kind == "binary_cross_entropy":
            each = self.logits[:, 0] if self.options["sum_classes"] else self.logits
            return torch.tensor(float(each.numel()))
        kept, weight = ~self.ignored(), self.options["weight"]
        if (
            weight is None
            or isinstance(self.target, MixedTarget)
            or self.target.is_floating_point()
        ):
            return kept.sum().double()
        return weight.double()[self.target.clamp(0, len(weight) - 1)][kept].sum()

    def _binary(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        o = self.options
        t = self.dense(dtype)
        if o["target_threshold"] is not None:
            t = (t > o["target_threshold"]).to(dtype)
        weight, pos = (None if w is None else w.to(dtype) for w in (o["weight"], o["pos_weight"]))
        each = F.binary_cross_entropy_with_logits(z, t, weight, pos_weight=pos, reduction="none")
        if o["sum_classes"]:
            each = each.sum(1)
        reductions = {"mean": each.mean, "sum": each.sum, "none": lambda: each}
        return reductions[o["reduction"]]()

    def size(self) -> float:
        """About the largest term that a loss sums, or the sum of terms where classes are summed."""
        z = self.logits.double()
        if z.numel() == 0:
            return 1.0
        spread = float((z.amax(1) - z.amin(1)).max())
        if self.kind == "binary_cross_entropy":
            spread = float(z.abs().max())
        summed = z.shape[1] if self.options.get("sum_classes") else 1
        return (spread + 4) * self.largest_weight() * summed

    def largest_weight(self) -> float:
        given = (self.options["weight"], self.options.get("pos_weight"))
        return math.prod(max(1.0, float(w.max())) for w in given if w is not None)

    def __repr__(self) -> str:
        t = self.target
        kind = "mixed" if isinstance(t, MixedTarget) else str(t.dtype)
        z = self.logits
        return f"{self.kind} {z.dtype} {list(z.shape)} {z.stride()} {kind} {self.options}"


def lay_out(x: Tensor, rng: random.Random) -> Tensor:
    """Copy the values to a random memory layout."""
    choice = rng.randrange(6)
    if choice == 0:  # adjacent classes
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if choice == 1:
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if choice == 2:  # every second element of a larger tensor
        apart = x.new_zeros(*x.shape, 2)
        return apart[..., 1].copy_(x)
    if choice == 3:  # not aligned to a vector
        return x.new_zeros(x.numel() + 3)[3:].view(x.shape).copy_(x)
    return x.contiguous()


def grid(count: int, seed: int = 0) -> Iterator[Case]:
    """``count`` small cases, the same ones for every run with this seed."""
    rng = random.Random(seed)
    g = torch.Generator().manual_seed(seed)
    for i in range(count):
        yield _binary_case(rng, g) if i % 3 == 2 else _cross_entropy_case(rng, g)


def _shape(rng: random.Random) -> tuple[int, ...]:
    k = rng.choice((1, 2, 3, 5, 8, 10, 17, 33, 70))
    return (rng.choice((1, 2, 3, 5)), k, *rng.choice(POSITIONS))


def _logits(shape: tuple[int, ...], rng: random.Random, g: torch.Generator) -> Tensor:
    z = torch.randn(shape, generator=g) * rng.choice((0.1, 1.0, 3.0, 10.0))
    return lay_out((z + rng.choice((0.0, 0.0, 40.0, -100.0))).to(rng.choice(FLOATS)), rng)


def _labels(shape: tuple[int, ...], k: int, ignored: int | None, rng, g) -> Tensor:
    y = torch.randint(0, k, shape, generator=g)
    if ignored is not None:
        y[torch.rand(shape, generator=g) < rng.choice((0.2, 0.5))] = ignored
    if y.ndim > 1 and rng.randrange(3) == 0:
        y = y.movedim(0, -1).contiguous().movedim(-1, 0)
    return y


def _mixed(rows, k: int, ignored: int | None, rng, g) -> MixedTarget:
    own, other = (_labels(rows, k, ignored, rng, g) for _ in range(2))
    if rng.randrange(4) == 0:
        other = own
    weight = torch.rand(rows[0], 1, generator=g)
    weight[torch.rand(rows[0], generator=g) < 0.2] = rng.choice((0.0, 1.0))
    weight = torch.cat((weight, 1 - weight), 1)
    if rng.randrange(3) == 0:  # one row for all samples
        weight = weight[:1].expand(rows[0], 2)
    smoothing = rng.choice((0.0, 0.0, 0.1))
    return MixedTarget(own, other, weight, k, smoothing, -100 if ignored is None else ignored)


def _soft(shape, dtype: torch.dtype, rng, g) -> Tensor:
    t = torch.rand(shape, generator=g)
    t[torch.rand(shape, generator=g) < 0.4] = 0
    t = t / t.sum(1, keepdim=True).clamp_min(1e-3)
    return lay_out(
        t.to(rng.choice((dtype, torch.float32))).to(dtype if dtype == torch.float64 else t.dtype),
        rng,
    )


def _class_weight(k: int, rng, g) -> Tensor | None:
    if rng.randrange(3):
        return None
    w = torch.rand(k, generator=g) * 2
    w[torch.rand(k, generator=g) < 0.1] = 0
    return w


def _cross_entropy_case(rng: random.Random, g: torch.Generator) -> Case:
    shape = _shape(rng)
    logits = _logits(shape, rng, g)
    k, rows = shape[1], (shape[0], *shape[2:])
    ignored = rng.choice((None, None, -100, 7, 0))
    kind = rng.choice(("mixed", "mixed", "dense", "labels"))
    ignore_index = -100
    if kind == "mixed":
        target: Tensor | MixedTarget = _mixed(rows, k, ignored, rng, g)
    elif kind == "labels":
        target = _labels(rows, k, ignored, rng, g)
        ignore_index = -100 if ignored is None else ignored
    else:
        target = _soft(shape, logits.dtype, rng, g)
    options = {
        "weight": _class_weight(k, rng, g),
        "ignore_index": ignore_index,
        "reduction": rng.choice(("mean", "sum", "none")),
        "label_smoothing": rng.choice((0.0, 0.0, 0.1, 1.0)),
    }
    return Case("cross_entropy", logits, target, options)


def _binary_case(rng: random.Random, g: torch.Generator) -> Case:
    shape = _shape(rng)
    logits = _logits(shape, rng, g)
    k, rows = shape[1], (shape[0], *shape[2:])
    per_class = [k] + [1] * (len(shape) - 2)
    kind = rng.choice(("mixed", "dense", "labels"))
    classes = max(k, 2)
    if kind == "mixed":
        target: Tensor | MixedTarget = _mixed(rows, classes, None, rng, g)
    elif kind == "labels":
        target = _labels(rows, classes, None, rng, g)
    else:
        target = _soft(shape, logits.dtype, rng, g)
    weights = (_class_weight(k, rng, g) for _ in range(2))
    weight, pos_weight = (w if w is None else w.view(per_class) for w in weights)
    options = {
        "weight": weight,
        "pos_weight": pos_weight,
        "target_threshold": rng.choice((None, None, 0.2)),
        "sum_classes": rng.random() < 0.3,
        "reduction": rng.choice(("mean", "sum", "none")),
    }
    return Case("binary_cross_entropy", logits, target, options)
