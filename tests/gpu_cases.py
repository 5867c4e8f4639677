"""A table of every op with arguments for the tests on a GPU; the CPU runs it too, as its proof.

A case makes the arguments of an op in ``fused_mixup.ops`` on the CPU, from a seed; rows that
kernels take as plain arguments stay there, everything else moves to the device under test. The
expected results come from ``fused_mixup.reference`` on the CPU, in float64 where bits are not
promised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from cases import BLENDABLE, FLOATS, random_boxes, values
from comparing import same_bits
from gpu_collage_cases import collage_cases
from gpu_draw_cases import DRAWN, draw_cases
from gpu_loss_cases import OPS as LOSSES
from gpu_loss_cases import loss_cases
from gpu_loss_expected import expect
from gpu_mask_cases import mask_cases
from gpu_normalize_cases import normalize_cases

from fused_mixup import MixPlan, ops, reference
from fused_mixup.arguments import is_host_row

# All backends give the same bits for these ops; other ops sum, each backend in its own order.
EXACT = ("mix_", "mix", "mix_out", "paste_", "mix_normalize", "mix_targets", "mix_boxes", *DRAWN)
EXACT += ("mix_masked", "mix_masked_", "mix_masked_out", "mask_mean")  # without sigmoids
EXACT += ("mix_rectangles", "mix_patches")
WRITE_LAST = ("mix_out", "mix_normalize", "mix_masked_out", "mix_rectangles", "mix_patches")


@dataclass(frozen=True)
class Case:
    """One call of ``op``. ``make`` draws its arguments on the CPU, tensors and plain values.

    ``quick`` marks the few cases that run where a run is slow: under a sanitizer, in
    Triton's interpreter, in a CUDA graph. ``launches``: the most kernels that a call may launch;
    ``triton_launches``: those of Triton's, and PyTorch's own that its wrapper adds on partial sums.
    """

    op: str
    name: str
    make: Callable[[], tuple]
    quick: bool = False
    launches: int = 1
    triton_launches: tuple[int, int] = (1, 0)
    on_host: str = ""  # an argument that stays on the host and is the same for each seed

    def __str__(self) -> str:
        return f"{self.op} {self.name}".replace("torch.", "")

    def args(self, device: str | torch.device = "cpu", seed: int = 0) -> list:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = self.make()
        names = [a.name for a in ops.default_op(self.op)._schema.arguments]
        return [
            a if n == self.on_host else move(n, a, device) for n, a in zip(names, made, strict=True)
        ]

    def run(self, args: list) -> tuple[torch.Tensor, ...]:
        """Call the op; return its results and the tensors that it writes."""
        op = getattr(ops, self.op)
        result = op(*args)
        written = [
            args[i]
            for i, a in enumerate(ops.default_op(self.op)._schema.arguments)
            if a.alias_info is not None and a.alias_info.is_write
        ]
        return (*_results(result), *written)

    def check(self, got: tuple[torch.Tensor, ...], seed: int = 0) -> None:
        """Compare results, on any device, with the reference's."""
        args = self.args("cpu", seed)
        if self.op in EXACT:
            expected = _reference(self.op, args)
            for a, b in zip(got, expected, strict=True):
                assert a.dtype == b.dtype, f"{self}: {a.dtype}"
                assert same_bits(a.cpu(), b), f"{self}: differs from the reference"
            return
        for a, (b, dtype, rtol, atol) in zip(got, self._expected(args), strict=True):
            assert a.dtype == dtype, f"{self}: {a.dtype}"
            torch.testing.assert_close(
                a.cpu().double(), b.double(), rtol=rtol, atol=atol, equal_nan=True, msg=self._says
            )

    def _expected(self, args: list) -> list[tuple[torch.Tensor, torch.dtype, float, float]]:
        """Value, dtype, rtol and atol of each result, computed in float64."""
        if self.op in LOSSES:
            return expect(self.op, args)
        grad, *rest = args
        (value,) = _reference(self.op, [grad.double(), *rest])
        return [(value, grad.dtype, *mix_tolerance(grad))]

    def _says(self, text: str) -> str:
        return f"{self}: {text}"


def _results(result: object) -> tuple[torch.Tensor, ...]:
    if result is None:
        return ()
    return result if isinstance(result, tuple) else (result,)


def _reference(op: str, args: list) -> tuple[torch.Tensor, ...]:
    results = _results(getattr(reference, op)(*args))
    if op in DRAWN:
        return (*results, args[0])  # the state after the step
    # In place: x is the first argument, out the last.
    return results or (args[-1] if op in WRITE_LAST else args[0],)


def mix_tolerance(grad: torch.Tensor) -> tuple[float, float]:
    """rtol, atol of mix_backward: up to three products are summed (see partner_of), weights are
    rounded to the arithmetic type, and the result to its own."""
    double = grad.dtype == torch.float64
    denormal = 6e-8 if grad.dtype == torch.float16 else 0.0  # half of float16's smallest number
    size = float(grad.abs().max()) if grad.numel() else 0.0
    return torch.finfo(grad.dtype).eps / 2 * 1.01, (1e-15 if double else 1e-6) * size + denormal


def move(name: str, value: object, device: str | torch.device) -> object:
    """Move ``value`` to ``device`` with its strides, its offset and the rest of its storage."""
    if isinstance(value, list):
        return [move(name, v, device) for v in value]
    if not isinstance(value, torch.Tensor) or torch.device(device).type == "cpu":
        return value
    if name in ("blend", "box", "weight") and is_host_row(value) and value.shape[0]:
        return value  # kernels take it as plain arguments
    whole = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage()).to(device)
    return whole.as_strided(value.shape, value.stride(), value.storage_offset())


# ------------------------------------------------------------------ batches and plans


def lay_out(size: int, shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> torch.Tensor:
    x = values((size, *shape), dtype)
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "offset":  # no row starts on a 16-byte boundary
        flat = torch.zeros(x.numel() + 3, dtype=dtype)
        return flat[3:].view(x.shape).copy_(x)
    if layout == "infinite":  # and the largest numbers, where a kernel must not saturate
        ends = [torch.inf, -torch.inf, torch.nan, torch.finfo(dtype).max, torch.finfo(dtype).min]
        x.flatten()[: 5 * (x.numel() // 5)].view(-1, 5)[::3] = torch.tensor(ends, dtype=dtype)
        return x
    if layout == "strided":
        apart = torch.zeros((*x.shape, 2), dtype=dtype)
        return apart[..., 0].copy_(x)
    if layout == "transposed":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    return x


def partner_of(pairing: str, size: int) -> str | torch.Tensor:
    if pairing == "permutation":
        return torch.randperm(size)
    # Two samples share a partner, and half of the samples are nobody's partner.
    return torch.arange(size) // 2 if pairing == "many" else pairing


def plan_of(rows: str, pairing: str, size: int, spatial: tuple[int, ...]) -> MixPlan:
    partner = partner_of(pairing, size)
    inner = [n // 4 for n in spatial] + [3 * n // 4 for n in spatial]
    if rows == "mixup":
        return MixPlan.uniform(size, partner, 0.3)
    if rows == "cutmix":
        return MixPlan.uniform(size, partner, 0.6, inner)
    lam = torch.rand(size, dtype=torch.float64)
    if rows == "lam":
        return MixPlan.per_sample(lam, partner)
    boxes = random_boxes(size, spatial)
    if rows == "boxes":
        return MixPlan.per_sample(lam, partner, boxes, torch.ones(size, dtype=torch.bool))
    lam[1::3] = 1.0  # "both": rows that stay, rows that become their partner, cut and blended
    lam[2::5] = 0.0
    return MixPlan.per_sample(lam, partner, boxes, torch.arange(size) % 3 == 0)


PAIRINGS = ("flip", "roll", "permutation", "many", "self")
Batch = tuple[int, tuple[int, ...], torch.dtype, str, str, str]


def batches(op: str, dtypes: tuple[torch.dtype, ...]) -> Iterator[tuple[Batch, bool]]:
    """(size, shape, dtype, layout, pairing, rows) of a batch, and whether it is a quick one."""
    image, aligned, f32 = (3, 7, 5), (3, 16, 16), torch.float32
    for pairing in ("flip", "permutation"):
        yield (3, image, f32, "contiguous", pairing, "both"), True
        yield (4, aligned, f32, "contiguous", pairing, "mixup"), True  # host rows
    yield (4, aligned, f32, "contiguous", "roll", "cutmix"), True
    for dtype in dtypes:
        yield (33, aligned, dtype, "contiguous", "flip", "lam"), False
        yield (33, aligned, dtype, "contiguous", "many", "both"), False
    for size in (0, 1, 2, 3, 33, 257):
        for pairing in ("roll", "many", "self") if size == 3 else PAIRINGS:  # others: above
            yield (size, image, f32, "contiguous", pairing, "both"), False
    for layout in ("channels_last", "offset", "strided", "transposed"):
        for pairing, rows in (("flip", "cutmix"), ("permutation", "both")):
            yield (5, (3, 20, 33), torch.bfloat16, layout, pairing, rows), False
    for dtype in dtypes:
        if dtype.is_floating_point and op in EXACT:
            yield (5, image, dtype, "infinite", "flip", "both"), False
    for shape in ((17,), (2, 3, 4, 5), (9001,)):  # audio, volumes, several tiles
        for pairing in ("flip", "permutation"):
            yield (5, shape, torch.bfloat16, "contiguous", pairing, "both"), False


def mix_args(op: str, batch: Batch) -> tuple:
    size, shape, dtype, layout, pairing, rows = batch
    spatial = shape if len(shape) == 1 else shape[1:]
    plan = plan_of(rows, pairing, size, spatial)
    x = lay_out(size, shape, dtype, layout)
    args = (plan.partner_or_none, plan.blend, plan.box, plan.rule)
    if op == "mix_out":
        return x, *args, torch.zeros((*shape, size), dtype=dtype).movedim(-1, 0)
    if op == "paste_":
        return x, args[0], plan.box, plan.rule
    if op == "mix_backward":
        lists = (None, None)
        if plan.pairing == "tensor":
            lists = ops.transpose_pairing(plan.partner)
        return x, args[0], *lists, *args[1:]
    return x, *args


def mix_cases() -> Iterator[Case]:
    for op, dtypes in (
        ("mix_", BLENDABLE),
        ("mix", BLENDABLE),
        ("mix_out", BLENDABLE),
        ("mix_backward", FLOATS),
        ("paste_", (torch.bool, torch.int64, torch.complex128, torch.bfloat16)),
    ):
        for batch, quick in batches(op, dtypes):
            if op == "paste_" and batch[-1] in ("mixup", "lam", "both"):
                batch = (*batch[:-1], "boxes")
            size, shape, dtype, layout, pairing, rows = batch
            sizes = "x".join(map(str, (size, *shape)))
            name = f"{dtype} {sizes} {layout} {pairing} {rows}"
            yield Case(op, name, partial(mix_args, op, batch), quick)


# ------------------------------------------------------------------ labels


def labels_of(size: int, inner: tuple[int, ...], classes: int, wrong: bool) -> torch.Tensor:
    labels = torch.randint(0, classes, (size, *inner))
    if wrong and size > 2:  # checks cannot read labels on a GPU: the rows of wrong ones become NaN
        labels[1], labels[2] = classes, -(2**40)
    return labels


def target_args(pairing: str, rows: str, dtype: torch.dtype, *labels) -> tuple:
    y = labels_of(*labels)
    plan = plan_of(rows, pairing, len(y), ())
    return y, plan.partner_or_none, plan.weight, plan.rule, labels[2], 0.1, dtype


def target_cases() -> Iterator[Case]:
    grid: list[tuple] = [("flip", "mixup", torch.float32, 4, (), 10, False, True)]
    grid += [("permutation", "lam", torch.float32, 3, (), 33, True, True)]
    grid += [(p, "lam", d, 33, (), 1000, False) for p in ("flip", "many") for d in FLOATS]
    grid += [("roll", "lam", torch.float32, n, (), 7, False) for n in (0, 1, 2, 3, 257)]
    grid += [("permutation", "mixup", torch.bfloat16, 5, (3, 5), 9, True)]
    for pairing, rows, dtype, size, inner, classes, wrong, *quick in grid:
        name = f"{dtype} {size}x{classes}{inner or ''} {pairing} {rows}{' wrong' * wrong}"
        make = partial(target_args, pairing, rows, dtype, size, inner, classes, wrong)
        yield Case("mix_targets", name, make, bool(quick))


# ------------------------------------------------------------------ boxes


def box_args(rows: str, pairing: str, dtype: torch.dtype, size: int, most: int) -> tuple:
    boxes = (20 * torch.rand(size, most, 4, dtype=dtype)).cumsum(-1)
    plan, count = plan_of(rows, pairing, size, (60, 70)), torch.randint(0, most + 1, (size,))
    return boxes, count, plan.partner_or_none, plan.blend, plan.box, plan.rule, 0.2


def box_cases() -> Iterator[Case]:
    grid: list[tuple] = [("cutmix", "flip", torch.float32, 4, 5, True)]
    grid += [("boxes", "permutation", torch.float64, 3, 7, True)]
    grid += [(r, "many", d, 33, 70) for r in ("mixup", "boxes") for d in FLOATS if d.itemsize > 2]
    grid += [("boxes", "roll", torch.float32, n, m) for n, m in ((0, 3), (1, 40), (5, 0), (257, 9))]
    for args in grid:
        name = "{2} {3}x{4} {1} {0}".format(*args)
        yield Case("mix_boxes", name, partial(box_args, *args[:5]), len(args) > 5)


CASES = [*mix_cases(), *(Case(**case) for case in draw_cases()), *target_cases(), *box_cases()]
CASES += [Case(**case) for case in normalize_cases(plan_of)]
CASES += [Case(**case) for case in mask_cases(plan_of, lay_out)]
CASES += [Case(**case) for case in collage_cases()]
CASES += [Case(*case) for case in loss_cases()]
QUICK = [case for case in CASES if case.quick]


def cases_of(op: str) -> list[Case]:
    """Two quick cases of an op: with rows on the host, and with a row for each sample."""
    return [case for case in QUICK if case.op == op]
