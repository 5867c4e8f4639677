"""The losses' part of gpu_cases.py: the arguments of their ops and their numbers of launches.

Logits are rows [B, K] and maps [B, K, d1…] in every layout that kernels tell apart; targets are
labels with the weights of samples, some of them ignored or wrong, or dense.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from cases import FLOATS, values
from torch import Tensor

from fused_mixup import ops, reference
from fused_mixup.codes import IGNORE_INDEX, MEAN, NO_IGNORE, NONE, SUM

CROSS_ENTROPY, BINARY = "soft_target_cross_entropy", "soft_target_binary_cross_entropy"
FORMS = ("", "_backward", "_backward_", "_grad")
LOSS_OPS = (*(op + form for op in (CROSS_ENTROPY, BINARY) for form in FORMS),)
OPS = (*LOSS_OPS, "scale_", "label_ranks")


@dataclass(frozen=True)
class Spec:
    """A loss. ``kind`` of its target: "host" (labels, one row of weights for all), "rows" (labels,
    weights for each sample), of those "ignored", "class 0" (is ignored) and "wrong" (no class);
    or "dense", "dense32" (float32 beside half logits)."""

    kind: str
    reduction: int
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    smoothing: float = 0.1
    weighted: bool = False
    ranks: bool = False  # an option of the cross-entropy
    sum_classes: bool = False  # an option of the binary loss, as is the threshold
    threshold: float | None = None
    gamma: float = 0.0  # of a focal loss; the cross-entropy has one of labels without smoothing
    z_loss: float = 0.0  # an option of the cross-entropy

    @property
    def dense(self) -> bool:
        return self.kind.startswith("dense")

    def of(self, op: str) -> Spec:
        """The same loss without the options that ``op`` does not have."""
        if op.startswith(BINARY):
            return replace(self, ranks=False, z_loss=0.0)
        return replace(self, sum_classes=False, threshold=None)

    @property
    def name(self) -> str:
        words = [self.dtype, "x".join(map(str, self.shape)), self.layout, self.kind]
        words += [("mean", "sum", "none")[self.reduction], self.smoothing]
        words += [w for w in ("weighted", "ranks", "sum_classes") if getattr(self, w)]
        words += [f"{n} {getattr(self, n)}" for n in ("gamma", "z_loss") if getattr(self, n)]
        words += [] if self.threshold is None else [f"above {self.threshold}"]
        return " ".join(map(str, words))


# ------------------------------------------------------------------ arguments


def logits_of(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    """[B, K, d1…]"""
    if layout == "wide":  # rows that start at any address
        z = torch.randn(shape[0], shape[1] + 3, *shape[2:]) * 4
        return z.to(dtype)[:, 1 : shape[1] + 1]
    if layout == "strided":  # every second element
        return (torch.randn(*shape, 2) * 4).to(dtype)[..., 1]
    z = (torch.randn(shape) * 4).to(dtype)
    if layout == "masked":  # -inf: classes that a model excludes, and a whole row
        z[:, shape[1] // 2 :] = -torch.inf
        z[:1] = -torch.inf
    if layout == "channels_last":
        return z.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "transposed":
        return z.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "crossed":  # no single stride leads through the positions
        return z.transpose(-1, -2).contiguous().transpose(-1, -2)
    return z


def target_of(s: Spec) -> tuple[Tensor, Tensor | None, Tensor | None, int]:
    """``target, partner_labels, weight, ignore_index``"""
    batch, classes, *positions = s.shape
    if s.dense:
        t = torch.rand(s.shape)
        t[:, ::3] = 0
        wide = s.kind == "dense32" and s.dtype != torch.float64
        return t.to(torch.float32 if wide else s.dtype), None, None, NO_IGNORE
    y = torch.randint(0, classes, (batch, *positions))
    if s.kind == "wrong":  # checks cannot read labels on a GPU: the rows of wrong ones become NaN
        y[1], y[2] = classes, -(2**40)
    other = y.flip(0)
    if s.kind == "ignored":
        y[torch.rand(y.shape) < 0.4] = IGNORE_INDEX
        other[torch.rand(y.shape) < 0.4] = IGNORE_INDEX
    if s.kind == "host":
        return y, other, torch.tensor([[0.3, 0.7]]).expand(batch, 2), NO_IGNORE
    own = torch.rand(batch)
    own[1::3], own[2::5] = 1.0, 0.0  # a row whose kept label has weight 0 is ignored all the same
    ignored = 0 if s.kind == "class 0" else IGNORE_INDEX
    return y, other, torch.stack((own, 1 - own), 1), ignored


def class_weights(s: Spec) -> Tensor | None:
    if not s.weighted:
        return None
    w = torch.rand(s.shape[1]).to(arithmetic(s.dtype)) + 0.5
    w[::4] = 0
    return w


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def argument_names(op: str) -> list[str]:
    return [a.name for a in ops.default_op(op)._schema.arguments]


def to_float64(op: str, args: tuple | list) -> list:
    """Convert arguments to float64, except weights of samples, which backends take as they are."""
    return [
        a.double() if isinstance(a, Tensor) and a.is_floating_point() and n != "weight" else a
        for n, a in zip(argument_names(op), args, strict=True)
    ]


def loss_args(op: str, s: Spec) -> tuple:
    """The arguments of ``op``: CROSS_ENTROPY or BINARY in one of its FORMS."""
    binary = op.startswith(BINARY)
    z = logits_of(s.shape, s.dtype, s.layout)
    *target, ignore_index = target_of(s)
    smoothing = 0.0 if s.dense else s.smoothing
    rest: tuple = (*target, class_weights(s))
    if binary:
        rest += (class_weights(s), smoothing, s.threshold, s.gamma, s.reduction, s.sum_classes)
    else:
        rest += (ignore_index, smoothing, s.smoothing / 2, s.gamma, s.z_loss, s.reduction)
    if "_backward" not in op:
        return z, *rest, *(() if binary else (s.ranks,))
    between: list[Tensor] = []
    shape = s.shape
    if not binary:
        exact = to_float64(CROSS_ENTROPY, (z, *rest, False))
        _, *between, _ = reference.soft_target_cross_entropy(*exact)
        between = [t.to(arithmetic(s.dtype)) for t in between]
    if not binary or s.sum_classes:
        shape = (s.shape[0], *s.shape[2:])
    upstream = torch.rand(shape if s.reduction == NONE else ()).to(arithmetic(s.dtype)) + 0.5
    if s.layout == "strided" and s.reduction == NONE:  # sum() gives this in its backward
        upstream = upstream.flatten()[0].expand(shape)
    return upstream, z, *between, *rest


def scale_args(shape: tuple[int, ...], dtype: torch.dtype, layout: str, factor: float) -> tuple:
    if layout == "contiguous":  # scale_ takes any number of dims
        return values(shape, dtype), torch.tensor(factor, dtype=arithmetic(dtype))
    return logits_of(shape, dtype, layout), torch.tensor(factor, dtype=arithmetic(dtype))


def rank_args(shape: tuple[int, ...], dtype: torch.dtype, layout: str, labels: str) -> tuple:
    z = logits_of(shape, dtype, layout).round_()  # rounding makes many logits equal
    z[torch.rand(shape) < 0.02] = torch.nan
    z[torch.rand(shape) < 0.02] = torch.inf
    rows = (shape[0], *shape[2:])
    y = torch.randint(0, shape[1], (2, *rows))
    if labels == "wrong":
        y[0, 1], y[1, 2] = shape[1], -(2**40)
    return z, y[0], None if labels == "one" else y[1]


# ------------------------------------------------------------------ cases


def specs() -> tuple[list[Spec], list[Spec]]:
    """The specs that both losses have in all forms: the quick ones, and the rest."""
    quick = [
        Spec("host", NONE, (3, 33), smoothing=0.0),
        Spec("rows", MEAN, (5, 40), weighted=True, ranks=True, sum_classes=True),
        Spec("dense", SUM, (3, 40), threshold=0.5),
        Spec("rows", NONE, (2, 12, 4, 4), sum_classes=True),
        Spec("dense32", MEAN, (2, 8, 3, 4), layout="channels_last", weighted=True),
    ]
    rest = []
    for dtype in FLOATS:
        rest += [Spec("host", MEAN, shape, dtype) for shape in ((33, 1000), (3, 21, 4, 16))]
        rest += [Spec("dense32", MEAN, (33, 1000), dtype)]
        rest += [Spec(kind, SUM, (33, 33), dtype, smoothing=0.0) for kind in ("rows", "dense")]
        rest += [Spec("rows", NONE, (2, 19, 5, 7), dtype, "channels_last", weighted=True)]
    for size in (0, 1, 2, 3, 257):
        rest += [Spec(kind, MEAN, (size, 10), sum_classes=True) for kind in ("rows", "dense")]
    for size in (0, 1, 33):
        rest += [Spec("host", NONE, (size, 1000), torch.bfloat16, smoothing=0.0)]
        rest += [Spec("rows", SUM, (size, 6, 5), torch.bfloat16)]
    for kind in ("rows", "dense"):
        rest += [Spec(kind, NONE, (5, k), weighted=k < 5000) for k in (1, 2049, 5000)]
        for layout in ("wide", "transposed", "strided"):
            rest += [Spec(kind, SUM, (8, 40), layout=layout)]
            rest += [Spec(kind, NONE, (3, 9, 5, 8), layout=layout, weighted=True)]
        rest += [Spec(kind, MEAN, (2, 3, 70, 65), torch.float16, threshold=0.25)]
    rest += [Spec("dense", NONE, (3, 9, 5, 8), layout="crossed", weighted=True)]
    rest += [Spec("rows", NONE, (4, 40000), torch.bfloat16)]
    rest += [Spec("rows", NONE, (2, 1500, 3), torch.bfloat16)]  # few positions, many classes
    rest += [Spec("host", SUM, (2, 5, 2, 3, 4), torch.float64, threshold=0.5)]  # a volume
    for k, p in ((33, ()), (2049, ()), (21, (4, 16)), (5, (3, 5))):
        focal = {"smoothing": 0.0, "gamma": 2.0, "z_loss": 0.01}
        rest += [Spec("rows", NONE, (3, k, *p), d, weighted=True, **focal) for d in FLOATS]
        rest += [Spec("host", MEAN, (3, k, *p), ranks=True, **focal | {"gamma": 0.5})]
    rest += [Spec("wrong", r, (5, 12, *p)) for r in (NONE, MEAN) for p in ((), (4,))]
    return quick, rest


def cross_entropy_specs() -> tuple[list[Spec], list[Spec]]:
    """Specs of the cross-entropy alone: ignored labels, and classes whose logit is -inf."""
    quick = [Spec("ignored", MEAN, (5, 33), weighted=True)]
    rest = [Spec("ignored", r, (7, 12, *p)) for r in (MEAN, SUM, NONE) for p in ((), (4,), (3, 5))]
    rest += [Spec("ignored", MEAN, (2, 21, 12, 8), d, ranks=True) for d in FLOATS]
    rest += [Spec("dense", SUM, (9, 33), z_loss=0.01)]
    rest += [Spec("ignored", MEAN, (7, 12), smoothing=0.0, gamma=2.0, z_loss=0.01)]
    rest += [Spec("ignored", MEAN, (3, 8, 4, 5), layout="channels_last", ranks=True)]
    rest += [Spec("ignored", MEAN, (2, 3, 70, 65), weighted=True)]  # the kernel sums many blocks
    rest += [Spec("class 0", MEAN, (9, 4, *p), weighted=True, ranks=True) for p in ((), (4,))]
    for kind in ("rows", "dense"):
        rest += [Spec(kind, NONE, (4, 9, *p), layout="masked", smoothing=0) for p in ((), (4,))]
    return quick, rest


def launches(op: str, s: Spec) -> tuple[int, tuple[int, int]]:
    """The most kernels of a call: native; of Triton's, and of PyTorch's on partial sums.

    A call is one sweep, whose last block adds the sums of all. The rows that are not ignored, by
    which a gradient made with its loss is divided, are counted in it where they are few and their
    classes adjacent; else in a kernel before.
    """
    if "_backward" in op:
        return 1, (1, 0)
    mean, none = s.reduction == MEAN, s.reduction == NONE
    if op.startswith(BINARY):
        sums = s.sum_classes if none else 1 + mean  # PyTorch launches a sum and a quotient
        return 1, (1, int(sums))
    # PyTorch sums both rows of partial sums, then takes the loss and the count from them.
    native, own, torchs = 1, 1, 3 - none
    if op == CROSS_ENTROPY + "_grad" and mean:
        native += not s.dense and len(s.shape) > 2
        own, torchs = own + (not s.dense), torchs + 1
    return native, (own, torchs)


def loss_cases() -> Iterator[tuple]:
    """(op, name, make, quick, native launches, Triton's) of each case."""
    for both, ops_of in ((specs(), LOSS_OPS), (cross_entropy_specs(), LOSS_OPS[:4])):
        for quick, some in zip((True, False), both, strict=True):
            for op, s in ((op, s.of(op)) for s in some for op in ops_of):
                yield op, s.name, partial(loss_args, op, s), quick, *launches(op, s)
    grid: list[tuple] = [((3, 33), torch.float32, "contiguous", 0.3)]
    grid += [((2, 5, 3, 4), torch.float32, "wide", 0.3)]
    quick_scales = len(grid)
    grid += [((33, 1000), dtype, "contiguous", f) for dtype in FLOATS for f in (0.3, 1.0)]
    grid += [(n, torch.float32, "contiguous", 0.3) for n in ((), (0, 4), (1,), (9, 2049))]
    for layout in ("channels_last", "transposed", "crossed", "strided"):
        grid += [((3, 9, 5, 8), torch.bfloat16, layout, 0.3)]
    for i, (shape, dtype, layout, factor) in enumerate(grid):
        name = f"{dtype} {'x'.join(map(str, shape))} {layout} {factor}"
        make = partial(scale_args, shape, dtype, layout, factor)
        yield "scale_", name, make, i < quick_scales, 1, (1, 0)
    grid = [((3, 33), torch.float32, "contiguous", "two")]
    grid += [((2, 12, 4, 4), torch.float32, "contiguous", "one")]
    quick_ranks = len(grid)
    grid += [((5, 1000), dtype, "contiguous", "two") for dtype in FLOATS]
    grid += [((5, 12, *p), torch.float32, "contiguous", "wrong") for p in ((), (3,))]
    grid += [((n, 7), torch.float32, "contiguous", "two") for n in (0, 1, 257)]
    grid += [((3, 9, 5, 8), torch.float16, a, "two") for a in ("channels_last", "crossed", "wide")]
    grid += [((4, 9), torch.float32, "masked", "two"), ((4, 40000), torch.bfloat16, "wide", "two")]
    for i, (shape, dtype, layout, labels) in enumerate(grid):
        name = f"{dtype} {'x'.join(map(str, shape))} {layout} {labels}"
        make = partial(rank_args, shape, dtype, layout, labels)
        yield "label_ranks", name, make, i < quick_ranks, 1, (1, 0)
