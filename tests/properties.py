"""Properties of every op on every backend for any input; each call checks one random case.

The cases come from ``fuzz_cases.py`` and ``fuzz_loss_cases.py``. Small runs are in
``test_properties.py``; ``make fuzz`` (``tests/fuzz.py``) runs the same properties for as long as it
is given.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import loss_properties
import pytest
import torch
from comparing import same_bits
from fuzz_cases import (
    FLOATS,
    MOVABLE,
    MixCase,
    TargetCase,
    View,
    generator,
    mix_cases,
    target_cases,
)
from fuzz_loss_cases import loss_cases
from host_cuda import build as host_build
from hypothesis.strategies import SearchStrategy
from torch import Tensor

import fused_mixup as fm
from fused_mixup import backends, reference
from fused_mixup.arguments import is_host_row
from fused_mixup.reference.pairing import transpose_pairing

# ------------------------------------------------------------------ backends


@dataclass(frozen=True)
class Backend:
    """The ops of a backend, each under its name; they take and give tensors on the CPU."""

    name: str
    ops: Any
    # Triton's interpreter truncates to bfloat16 where GPUs round to nearest, and flushes
    # subnormal values to zero.
    truncates: bool = False

    def same(self, a: Tensor, b: Tensor) -> bool:
        if self.truncates and a.dtype == b.dtype == torch.bfloat16:
            tiny = torch.finfo(torch.bfloat16).tiny
            a, b = (torch.where(t.abs() < tiny, 0, t) for t in (a, b))
        return same_bits(a, b)


def reasons() -> dict[str, str | None]:
    """Every backend that a property may run on -> why it cannot run here, or None."""
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


def backend_parameters(but: tuple[str, ...] = ()) -> list:
    """Parameters for ``pytest.mark.parametrize``; backends that cannot run here are skipped."""
    found = []
    for name, why in reasons().items():
        if name not in but:
            marks = [pytest.mark.skip(reason=f"{name}: {why}")] if why else []
            on_gpu = name.startswith("cuda-") and name != "cuda-on-host"
            marks += [pytest.mark.gpu] if on_gpu else []
            found.append(pytest.param(name, marks=marks))
    return found


@contextlib.contextmanager
def open_backend(name: str) -> Iterator[Backend]:
    """Force the backend of that name inside the context."""
    if name == "cuda-on-host":
        from host_cuda import loss_ops, ops

        yield Backend(name, SimpleNamespace(**{**vars(ops), **vars(loss_ops)}))
        return
    device, _, kind = name.partition("-")
    with fm.backend(kind):
        if device == "cpu":
            cut = kind == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
            if cut:
                import triton_place  # noqa: F401 - watches the programs of a launch
            yield Backend(name, fm.ops, cut)
        else:
            yield Backend(name, _Elsewhere(device))


class _Elsewhere:
    """The ops on another device: whole storages of arguments move there and back."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __getattr__(self, name: str) -> Callable:
        op = getattr(fm.ops, name)

        def call(*args):
            names = (argument.name for argument in fm.ops.default_op(name)._schema.arguments)
            there = [self._moved(name, a) for name, a in zip(names, args, strict=True)]
            result = op(*there)
            for a, b in zip(args, there, strict=True):
                if isinstance(b, Tensor) and b.device.type == self.device:
                    _memory(a).copy_(_memory(b))  # with writes outside the view
            for t in result if isinstance(result, tuple) else (result,):
                assert t is None or t.device.type == self.device
            return torch.utils._pytree.tree_map_only(Tensor, Tensor.cpu, result)

        return call

    def _moved(self, name: str, a: Any) -> Any:
        # One row for all samples stays on the host, as a plan keeps it.
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


def round_as_backend(on: Backend, op: Callable, x: Tensor, *args) -> Tensor:
    """The reference's result for x; bfloat16 is truncated where the backend truncates."""
    if not (on.truncates and x.dtype == torch.bfloat16):
        return op(x, *args)
    exact = op(x.float(), *args).contiguous()
    return (exact.view(torch.int32) & -65536).view(torch.float32).to(torch.bfloat16)


def wrote_view_alone(on: Backend, storage: Tensor, view: View, values: Tensor) -> bool:
    """Whether ``storage`` is that of the view with only the view changed, to ``values``."""
    want = view.copy()
    want.tensor.copy_(values)
    return on.same(storage, want.storage)


# ------------------------------------------------------------------ properties


def mixing(on: Backend, case: MixCase) -> None:
    """mix, mix_out and mix_ give the rule's values, and write nothing outside their output."""
    x, args = case.x.tensor, case.plan.args
    want = round_as_backend(on, reference.mix, x, *args)
    got = on.ops.mix(x, *args)
    assert on.same(got, want), "mix"
    assert got.stride() == torch.empty_like(x).stride(), "mix keeps the memory format"
    out = case.out.copy()
    on.ops.mix_out(x, *args, out.tensor)
    assert wrote_view_alone(on, out.storage, case.out, want), "mix_out"
    y = case.x.copy()
    on.ops.mix_(y.tensor, *args)
    assert wrote_view_alone(on, y.storage, case.x, want), "mix_"


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
    want = round_as_backend(on, reference.mix_backward, grad, *args)
    got = on.ops.mix_backward(grad, *args)
    assert on.same(got, want), "mix_backward"
    assert got.stride() == torch.empty_like(grad).stride(), "mix_backward keeps the memory format"
    # <mix(x), g> = <x, transposed(g)>, compared in float64, where sums are accurate enough.
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


# property -> the strategy of its cases
ALL: dict[Callable[[Backend, Any], None], SearchStrategy] = {
    mixing: mix_cases(),
    pasting: mix_cases(MOVABLE),
    transposing: mix_cases(FLOATS),
    targets: target_cases(),
    loss_properties.cross_entropy: loss_cases(),
    loss_properties.binary_cross_entropy: loss_cases(),
    loss_properties.ranking: loss_cases(),
}
