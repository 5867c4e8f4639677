"""What holds for every op on every backend, whatever the input: checked on one random case each.

The cases come from ``fuzz_cases.py``. Small runs are in ``test_properties.py``; ``make fuzz``
(``tests/fuzz.py``) runs the same properties for as long as it is given.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from comparing import same_bits
from fuzz_cases import (
    FLOATS,
    MOVABLE,
    LossCase,
    MixCase,
    TargetCase,
    View,
    generator,
    loss_cases,
    mix_cases,
    target_cases,
)
from host_cuda import build as host_build
from hypothesis.strategies import SearchStrategy
from torch import Tensor

import fused_mixup as fm
from fused_mixup import backends, reference
from fused_mixup.ops import transpose_pairing
from fused_mixup.plan_checks import is_host_row

# Of a loss: an accumulator takes up to 64 terms one after the other, half a unit in the last place
# each. In float64 the reference it is compared with has errors of its own.
_LOSS_EPS = {torch.float32: 32 * 2.0**-23, torch.float64: 32 * 2.0**-52}
_ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}


# ------------------------------------------------------------------ backends


@dataclass(frozen=True)
class Backend:
    """The ops of a backend, each under its name; they take and give tensors on the CPU."""

    name: str
    ops: Any
    # Triton's interpreter cuts the low bits of a bfloat16 off where GPUs round to nearest, and
    # makes subnormal ones zero.
    truncates: bool = False

    def same(self, a: Tensor, b: Tensor) -> bool:
        if self.truncates and a.dtype == b.dtype == torch.bfloat16:
            tiny = torch.finfo(torch.bfloat16).tiny
            a, b = (torch.where(t.abs() < tiny, 0, t) for t in (a, b))
        return same_bits(a, b)


def reasons() -> dict[str, str | None]:
    """Every backend that a property may run on, with why it cannot run here, or None."""
    found: dict[str, str | None] = {}
    for device in ("cpu", "cuda"):
        gpu = None if torch.cuda.is_available() else "no GPU"
        for name in ("reference", "native", "triton"):
            why = backends.reason_unavailable(name, device.upper())
            found[f"{device}-{name}"] = why or (gpu if device == "cuda" else None)
    found["cuda-on-host"] = None if host_build.compiler() else "no host C++ compiler (g++)"
    if importlib.util.find_spec("triton") is None:
        found["cpu-triton"] = "Triton is not installed"
    return found


@contextlib.contextmanager
def opened(name: str) -> Iterator[Backend]:
    """The backend of that name, forced for as long as it is in use."""
    if name == "cuda-on-host":
        from host_cuda import ops

        yield Backend(name, ops)
        return
    device, _, kind = name.partition("-")
    with fm.backend(kind):
        if device == "cpu":
            cut = kind == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
            yield Backend(name, fm.ops, cut)
        else:
            yield Backend(name, _Elsewhere(device))


class _Elsewhere:
    """The ops on another device: arguments go there with the memory around them, and come back."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __getattr__(self, name: str) -> Callable:
        op = getattr(fm.ops, name)

        def call(*args):
            names = (argument.name for argument in op._schema.arguments)
            there = [self._moved(name, a) for name, a in zip(names, args, strict=True)]
            result = op(*there)
            for a, b in zip(args, there, strict=True):
                if isinstance(b, Tensor) and b.device.type == self.device:
                    _memory(a).copy_(_memory(b))  # what was written in place, and beside it
            for t in result if isinstance(result, tuple) else (result,):
                assert t is None or t.device.type == self.device
            return torch.utils._pytree.tree_map_only(Tensor, Tensor.cpu, result)

        return call

    def _moved(self, name: str, a: Any) -> Any:
        # One row for all samples stays on the host, as in a plan of one row.
        if not isinstance(a, Tensor):
            return a
        if name in ("blend", "box", "weight") and is_host_row(a):
            return a
        memory = _memory(a).to(self.device).view(a.dtype)
        return memory.as_strided(a.shape, a.stride(), a.storage_offset())


def _memory(t: Tensor) -> Tensor:
    """All bytes of the storage that t is a view of."""
    return torch.empty(0, dtype=torch.uint8, device=t.device).set_(t.untyped_storage())


# ------------------------------------------------------------------ comparing


def as_backend_rounds(on: Backend, op: Callable, x: Tensor, *args) -> Tensor:
    """What the reference gives for x; for bfloat16 cut off where the backend cuts."""
    if not (on.truncates and x.dtype == torch.bfloat16):
        return op(x, *args)
    exact = op(x.float(), *args).contiguous()
    return (exact.view(torch.int32) & -65536).view(torch.float32).to(torch.bfloat16)


def untouched(on: Backend, storage: Tensor, view: View, values: Tensor) -> bool:
    """Whether ``storage`` is the view's own with nothing changed but the view, to ``values``."""
    want = view.copy()
    want.tensor.copy_(values)
    return on.same(storage, want.storage)


# ------------------------------------------------------------------ properties


def mixing(on: Backend, case: MixCase) -> None:
    """mix, mix_out and mix_ give the rule's values, and write nothing beside their output."""
    x, args = case.x.tensor, case.plan.args
    want = as_backend_rounds(on, reference.mix, x, *args)
    got = on.ops.mix(x, *args)
    assert on.same(got, want), "mix"
    assert got.stride() == torch.empty_like(x).stride(), "mix keeps the memory format"
    out = case.out.copy()
    on.ops.mix_out(x, *args, out.tensor)
    assert untouched(on, out.storage, case.out, want), "mix_out"
    y = case.x.copy()
    on.ops.mix_(y.tensor, *args)
    assert untouched(on, y.storage, case.x, want), "mix_"


def pasting(on: Backend, case: MixCase) -> None:
    """paste_ moves the boxes of any dtype, bit for bit, and touches nothing else."""
    partner, _, box, pairing = case.plan.args
    want = case.x.copy()
    reference.paste_(want.tensor, partner, box, pairing)
    got = case.x.copy()
    on.ops.paste_(got.tensor, partner, box, pairing)
    assert torch.equal(_bits(got.storage), _bits(want.storage)), "paste_"


def _bits(t: Tensor) -> Tensor:
    return t if t.dtype == torch.bool else t.view(torch.uint8)


def transposing(on: Backend, case: MixCase) -> None:
    """mix_backward is the transpose of mix, for any pairing."""
    grad = case.x.tensor
    partner, *rest = case.plan.args
    sources, offsets = (None, None) if partner is None else transpose_pairing(partner)
    args = (partner, sources, offsets, *rest)
    want = as_backend_rounds(on, reference.mix_backward, grad, *args)
    got = on.ops.mix_backward(grad, *args)
    assert on.same(got, want), "mix_backward"
    assert got.stride() == torch.empty_like(grad).stride(), "mix_backward keeps the memory format"
    # <mix(x), g> = <x, transposed(g)> in float64, where sums leave room to compare them.
    x = torch.randn(grad.shape, dtype=torch.float64, generator=generator(grad.numel()))
    g = grad.double()
    if bool(g.isfinite().all()) and bool((g.abs() < 1e6).all()):
        there = (on.ops.mix(x, *case.plan.args) * g).sum()
        back = (x * on.ops.mix_backward(g, *args)).sum()
        size = (x.abs().sum() + 1) * (g.abs().amax() if g.numel() else 0) * (len(x) + 1)
        assert abs(float(there - back)) <= 1e-13 * float(size), "adjoint"


def targets(on: Backend, case: TargetCase) -> None:
    """mix_targets gives the reference's rows exactly; labels out of range make theirs NaN."""
    args = case.plan.partner, case.weight, case.plan.pairing, case.num_classes
    args = (*args, case.label_smoothing)
    got = on.ops.mix_targets(case.labels, *args, case.dtype)
    if on.truncates and case.dtype == torch.bfloat16:
        exact = reference.mix_targets(case.labels, *args, torch.float32)
        want = (exact.view(torch.int32) & -65536).view(torch.float32).to(torch.bfloat16)
    else:
        want = reference.mix_targets(case.labels, *args, case.dtype)
    assert on.same(got, want), "mix_targets"


def loss(on: Backend, case: LossCase) -> None:
    """Loss, stats and gradient are those of float64, to the accuracy of the arithmetic."""
    logits, args = case.logits.tensor, case.args
    value, stats = on.ops.soft_target_cross_entropy(logits, *args)
    z = logits.double()
    t = args[0].double() if args[1] is None else args[0]
    exact = (t, *args[1:])
    want, want_stats = reference.soft_target_cross_entropy(z, *exact)
    rows, _ = reference.soft_target_cross_entropy(z, *exact[:-1], reference.NONE)
    assert value.dtype == stats.dtype == reference._arithmetic(logits.dtype)
    # What a row sums, term by term: errors are relative to that, not to what is left of it.
    soft = reference._smoothed_target(z, *exact[:5])
    m, log_sum, total = want_stats.unbind(1)
    spread = (z - m.unsqueeze(1)).masked_fill(soft == 0, 0).abs()
    size = log_sum.abs() * soft.abs().sum(1) + (soft.abs() * spread).sum(1) + soft.abs().sum(1)
    eps = _LOSS_EPS[value.dtype]
    error = eps * size
    if case.reduction == reference.NONE:
        assert_near(value, want, error, "loss")
    else:
        scale = max(len(rows), 1) if case.reduction == reference.MEAN else 1
        assert_near(value, want, error.sum() / scale + eps * rows.abs().sum() / scale, "loss")
    # The maximum beside a NaN is anything: the log-sum carries the NaN on.
    assert_near(stats[:, 0].where(~m.isnan(), torch.nan), m, 0 * m, "stats: max")
    assert_near(stats[:, 1], log_sum, eps * (1 + log_sum.abs()), "stats: log-sum")
    assert_near(stats[:, 2], total, eps * soft.abs().sum(1), "stats: sum of the target")

    shape = rows.shape if case.reduction == reference.NONE else ()
    upstream = torch.rand(shape, generator=generator(case.seed), dtype=torch.float64) + 0.5
    upstream = upstream.to(value.dtype)
    grad = on.ops.soft_target_cross_entropy_backward(upstream, logits, stats, *args)
    assert grad.dtype == logits.dtype and grad.stride() == torch.empty_like(logits).stride()
    want = reference.soft_target_cross_entropy_backward(upstream.double(), z, want_stats, *exact)
    scale = reference.row_scale(upstream.double(), len(rows), case.reduction)
    # exp(z - m - l) inherits the error of its argument; then one rounding to the gradient's type.
    reach = 1 + log_sum.abs().unsqueeze(1) + (z - m.unsqueeze(1)).abs().nan_to_num(0, 0, 0)
    p = (z - m.unsqueeze(1) - log_sum.unsqueeze(1)).exp()
    terms = total.abs().unsqueeze(1) * p * reach + soft.abs()
    bound = eps * scale * terms + _ROUNDING.get(grad.dtype, 0) * 1.01 * want.abs()
    # exp may flush what is below the normal numbers; the result is rounded to its type's smallest.
    flushed = torch.finfo(value.dtype).tiny * scale * total.abs().unsqueeze(1)
    bound = bound + flushed + torch.finfo(grad.dtype).smallest_normal * torch.finfo(grad.dtype).eps
    if on.truncates and grad.dtype == torch.bfloat16:
        bound = bound + 2.0**-8 * want.abs()  # cut off, not rounded
    assert_near(grad, want, bound, "gradient")


def assert_near(got: Tensor, want: Tensor, bound: Tensor, what: str) -> None:
    got = got.double()
    equal = (got == want) | (got.isnan() & want.isnan())
    wrong = ~(equal | ((got - want).abs() <= bound))
    assert not bool(wrong.any()), (
        f"{what}: {got[wrong][:4].tolist()}, expected {want[wrong][:4].tolist()} "
        f"within {bound.expand_as(wrong)[wrong][:4].tolist()}"
    )


# Each property, and the cases it takes.
ALL: dict[Callable[[Backend, Any], None], SearchStrategy] = {
    mixing: mix_cases(),
    pasting: mix_cases(MOVABLE),
    transposing: mix_cases(FLOATS),
    targets: target_cases(),
    loss: loss_cases(),
}
