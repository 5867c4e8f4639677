"""Kernels that calls launch on a GPU, and the memory that they take beyond their results.

The CPU too counts the kernels that Triton's wrappers launch, their own and PyTorch's.
"""

from __future__ import annotations

import importlib
from functools import partial

import pytest
import torch
from gpu_places import interpreted_cases, run_on_gpu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fused_mixup as fm
from benchmarks.timing import extra_bytes
from fused_mixup import MixedTarget, MixPlan

# ------------------------------------------------------------------ launches


def kernels_of(run) -> list[str]:
    """The names of the kernels, copies and fills that ``run`` starts on the device."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    events = profiler.profiler.kineto_results.events()
    return [e.name() for e in events if e.device_type() == torch.autograd.DeviceType.CUDA]


@run_on_gpu(each_quick_case=True)
def test_launches_of_our_own_kernels(kernel_backend, case):
    """No copy of an argument, no fill, and no other backend's kernel.

    Triton's wrappers leave the last sums, over what programs have summed, to PyTorch: how many
    kernels that takes is part of the case, and of what size they are is counted below.
    """
    # Two sessions: the first one of a process may start too late to record kernels.
    if all(len(kernels_of(lambda: torch.ones(1, device="cuda"))) != 1 for _ in range(2)):
        pytest.skip("PyTorch's profiler sees no kernels here (CUPTI)")
    case.run(case.args("cuda"))
    args = case.args("cuda")
    names = kernels_of(lambda: case.run(args))
    if kernel_backend == "native":
        assert 1 <= len(names) <= case.launches, names
        assert all("fused_mixup" in name for name in names), names  # the namespace of csrc/cuda
        return
    own, others = case.triton_launches
    assert 1 <= sum(name in TRITON_KERNELS for name in names) <= own, names
    names = [name for name in names if name not in TRITON_KERNELS]
    assert len(names) <= others, names
    for name in names:
        assert "at::native::" in name or name.startswith("Memcpy DtoD"), name


# Kernels of triton_kernels/, by their names alone: importing them needs Triton.
TRITON_KERNELS = (
    "pair_kernel", "tile_kernel", "mix_backward_kernel", "targets_kernel", "plan_kernel",
    "loss_kernel", "loss_backward_kernel", "count_kernel", "bce_kernel", "ranks_kernel",
    "scale_kernel", "boxes_kernel", "erasing_kernel", "normalize_kernel", "masked_kernel",
    "masked_backward_kernel", "mask_sum_kernel", "mask_mean_kernel", "rectangles_kernel",
    "patches_kernel",
)  # fmt: skip


class KernelsOfPyTorch(TorchDispatchMode):
    """Records operators that start a kernel on a device, which views and empty tensors do not."""

    def __init__(self):
        super().__init__()
        self.sizes: list[int] = []  # size of the largest tensor that each operator reads or writes

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        if not op.is_view and "empty" not in op.name():
            made = op.name().startswith("aten::new_")  # this takes dtype and device of its argument
            leaves = tree_leaves(result if made else (args, result))
            self.sizes.append(max(t.numel() for t in leaves if isinstance(t, torch.Tensor)))
        return result


@pytest.mark.parametrize("case", interpreted_cases())
def test_launches_of_triton_and_what_they_leave_to_pytorch(case, monkeypatch):
    kernels = importlib.import_module("fused_mixup.triton_kernels")
    launched = []
    monkeypatch.setattr(
        importlib.import_module("fused_mixup.triton_kernels.common"),
        "launch",
        lambda kernel, *args, **options: launched.append(kernel.__name__),
    )
    args = case.args()
    with KernelsOfPyTorch() as others:
        getattr(kernels, case.op)(*args)
    assert (len(launched), len(others.sizes)) == case.triton_launches, (launched, others.sizes)
    assert {*launched} <= {*TRITON_KERNELS}
    logits = max(a.numel() for a in args if isinstance(a, torch.Tensor))
    assert all(8 * size < logits for size in others.sizes), others.sizes


# ------------------------------------------------------------------ memory

MIB = 2**20


@run_on_gpu()
def test_extra_memory(kernel_backend):
    x = torch.randn(64, 3, 224, 224, device="cuda")
    size = x.numel() * 4
    assert extra_bytes(lambda: x.clone(), "cuda") >= size  # a copy would need this much
    corners = [50, 50, 200, 200]
    plans = [
        MixPlan.uniform(64, "flip", 0.3),
        MixPlan.uniform(64, "roll", 0.3, corners),
        MixPlan.uniform(64, torch.randperm(64), 0.3, device="cuda"),
        MixPlan.per_sample(torch.rand(64), torch.arange(64) // 2, [corners] * 64).to("cuda"),
    ]
    for plan in plans:
        assert extra_bytes(lambda p=plan: fm.mix_(x, p), "cuda") <= MIB
        assert size <= extra_bytes(lambda p=plan: fm.mix(x, p), "cuda") <= size + MIB
        out = torch.empty_like(x)
        assert extra_bytes(lambda p=plan, o=out: fm.mix(x, p, out=o), "cuda") <= MIB
        if not plan.blends:
            assert extra_bytes(lambda p=plan: fm.paste_(x, p), "cuda") <= MIB


@run_on_gpu()
def test_extra_memory_of_losses(kernel_backend):
    for shape in ((512, 20_000), (4, 150, 112, 112)):
        labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), device="cuda")
        plan = MixPlan.uniform(shape[0], "flip", 0.3)
        target = MixedTarget(labels, labels.flip(0), plan.weight, shape[1], 0.1)
        rows = torch.randn(shape, device="cuda")
        for z in (rows, rows.movedim(1, -1).contiguous().movedim(-1, 1)):
            check_extra_memory(fm.soft_target_cross_entropy, z.requires_grad_(), target)
            check_extra_memory(fm.soft_target_binary_cross_entropy, z, target)


def check_extra_memory(loss, z, target):
    size = z.numel() * 4

    def both(**mode):
        return torch.autograd.grad(loss(z, target, **mode), z)

    def in_place():
        logits = z * 2  # the only new memory
        return torch.autograd.grad(loss(logits, target, inplace_backward=True), logits)

    assert extra_bytes(lambda: loss(z.detach(), target), "cuda") <= MIB
    for run in (both, partial(both, grad_in_forward=True), in_place):
        assert size <= extra_bytes(run, "cuda") <= size + MIB


@run_on_gpu()
def test_extra_memory_of_the_last_layer(kernel_backend):
    x, w = (torch.randn(n, 256, device="cuda", requires_grad=True) for n in (512, 20_000))
    labels = torch.randint(0, 20_000, (512,), device="cuda")
    target = MixedTarget.from_labels(labels, MixPlan.uniform(512, "flip", 0.3), 20_000, 0.1)
    logits, gradients = 4 * 512 * 20_000, 4 * (x.numel() + w.numel())

    def two_steps():
        return torch.autograd.grad(fm.soft_target_cross_entropy(x @ w.t(), target), (x, w))

    def ours():
        loss = fm.linear_soft_target_cross_entropy(x, w, None, target)
        return torch.autograd.grad(loss, (x, w))

    assert extra_bytes(two_steps, "cuda") >= 2 * logits
    # A quarter of the logits at a time.
    assert extra_bytes(ours, "cuda") <= gradients + logits / 4 + MIB
