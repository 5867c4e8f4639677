"""Compiles every Triton kernel for real targets, without a GPU, and looks at the machine code.

The ops are called on CPU tensors with the launch replaced by a compilation, so what is compiled is
exactly what the ops would launch: same arguments, same specialisation. It runs in a process of its
own, since functions under Triton's interpreter cannot be compiled.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGETS = {  # name -> backend, architecture, threads of a warp
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}


# ---------------------------------------------------------------- what is compiled (child process)


def _cases(full: bool):
    """(name, call) for every kernel; ``full`` adds dtypes, layouts and batch sizes."""
    import torch

    import fused_mixup.triton_kernels as tk
    from fused_mixup.ops import transpose_pairing
    from fused_mixup.plan import MixPlan

    def args(plan):
        return plan.partner_or_none, plan.blend, plan.box, plan.rule

    def image(batch=32, dtype=torch.bfloat16, size=32):
        return torch.zeros(batch, 3, size, size, dtype=dtype)

    def rows(batch, pairing, box=True):
        boxes = [[0, 0, 8, 8]] * batch
        return MixPlan.per_sample(torch.rand(batch), pairing, box=boxes if box else None)

    def uniform(batch, pairing="flip", **options):
        return MixPlan.uniform(batch, pairing, 0.3, **options)

    def shuffled(batch):
        return MixPlan.per_sample(torch.rand(batch), torch.randperm(batch))

    def backward(x, plan):
        sources, offsets = transpose_pairing(plan.partner) if plan.rule == 0 else (None, None)
        tk.mix_backward(x, plan.partner_or_none, sources, offsets, *args(plan)[1:])

    def loss(dtype, k, smoothing, dense, weight_rows=False):
        z = torch.zeros(4, k, dtype=dtype)
        y = torch.zeros(4, dtype=torch.int64)
        weight = torch.full((4, 2), 0.5) if weight_rows else torch.full((1, 2), 0.5).expand(4, 2)
        t = (z, None, None) if dense else (y, y, weight)
        value, stats = tk.soft_target_cross_entropy(z, *t, smoothing, smoothing, 0)
        tk.soft_target_cross_entropy_backward(value, z, stats, *t, smoothing, smoothing, 0)

    half, single, double, byte = torch.bfloat16, torch.float32, torch.float64, torch.uint8
    for name, dtype in (("fp32", single), ("bf16", half)):
        yield f"mix_ flip {name}", lambda d=dtype: tk.mix_(image(dtype=d), *args(uniform(32)))
    yield "mix_ flip bf16 boxes", lambda: tk.mix_(image(), *args(rows(32, "flip")))
    yield "mix_ roll bf16", lambda: tk.mix_(image(), *args(uniform(32, "roll")))
    yield "mix_ tensor fp32 256", lambda: tk.mix_(image(256, single), *args(shuffled(256)))
    yield "mix tensor bf16", lambda: tk.mix(image(), *args(shuffled(32)))
    yield "mix_ cutmix bf16", lambda: tk.mix_(image(), *args(uniform(32, box=(3, 5, 20, 30))))
    yield "paste_ boxes", lambda: tk.paste_(image(), None, rows(32, "flip").box, 1)
    yield "mix_backward tensor bf16", lambda: backward(image(), shuffled(32))
    y = torch.zeros(4, dtype=torch.int64)
    weight = torch.full((4, 2), 0.5)
    yield "mix_targets bf16", lambda: tk.mix_targets(y, None, weight, 1, 1000, 0.1, half)
    yield "loss sparse bf16 1000", lambda: loss(half, 1000, 0.1, False)
    yield "loss dense fp32 1000", lambda: loss(single, 1000, 0.0, True)
    boxes = ((0, 1, 16, 17), (1, 2, 32, 30), (7, 5, 8, 32))
    for batch, lam, box in zip((8, 16, 31), (0.0, 0.5, 1 / 3), boxes, strict=True):
        plan = MixPlan.uniform(batch, "flip", lam)
        yield "again 1", lambda b=batch, p=plan: tk.mix_(image(b), *args(p))
        yield (
            "again 2",
            lambda b=batch, p=plan, x=box: tk.mix(
                image(b), None, p.blend, torch.tensor([x], dtype=torch.int32).expand(b, -1), 1
            ),
        )
    if not full:
        return
    yield (
        "mix_ flip fp16 rows",
        lambda: tk.mix_(image(dtype=torch.float16), *args(rows(32, "flip", box=False))),
    )
    yield "mix_ flip uint8", lambda: tk.mix_(image(dtype=byte), *args(uniform(32)))
    yield "mix_ flip fp64", lambda: tk.mix_(image(dtype=double), *args(uniform(32)))
    # Reserved, never touched: samples of more than 2^31 elements.
    huge = torch.empty(2, 2**31 + 16, dtype=byte)
    yield "mix_ flip uint8 wide", lambda: tk.mix_(huge, *args(uniform(2)))
    yield "mix_ roll uint8 wide", lambda: tk.mix_(huge, *args(uniform(2, "roll")))
    yield "mix_ self bf16", lambda: tk.mix_(image(), *args(rows(32, "self", box=False)))
    for batch in (64, 256, 1024):
        for name, dtype in (("bf16", half), ("uint8", byte), ("fp64", double)):
            yield (
                f"mix_ tensor {name} {batch}",
                lambda b=batch, d=dtype: tk.mix_(image(b, d), *args(shuffled(b))),
            )
    yield "mix_ tensor fp32 8192", lambda: tk.mix_(image(8192, single, 8), *args(shuffled(8192)))
    yield "mix_ roll fp32 boxes", lambda: tk.mix_(image(256, single), *args(rows(256, "roll")))
    yield (
        "mix_ tensor fp32 9000",
        lambda: tk.mix_(torch.zeros(9000, 32), *args(uniform(9000, torch.arange(9000)))),
    )
    yield (
        "mix_ roll strided",
        lambda: tk.mix_(image(dtype=single)[..., 1:20, ::2], *args(uniform(32, "roll"))),
    )
    yield (
        "mix flip channels_last boxes",
        lambda: tk.mix(image().to(memory_format=torch.channels_last), *args(rows(32, "flip"))),
    )
    yield "mix_backward flip boxes", lambda: backward(image(dtype=single), rows(32, "flip"))
    yield (
        "mix_targets fp64 rows",
        lambda: tk.mix_targets(y.view(4, 1).expand(4, 9), None, weight, 2, 10, 0.1, double),
    )
    yield "loss sparse fp32 131072", lambda: loss(single, 131072, 0.1, False, True)
    yield "loss sparse bf16 21841", lambda: loss(half, 21841, 0.0, False)
    yield "loss dense bf16 131072", lambda: loss(half, 131072, 0.1, True)
    yield "loss dense fp64 33", lambda: loss(double, 33, 0.1, True)


def _look(kernel, backend: str) -> dict:
    """What the tests ask of a compiled kernel."""
    from triton import knobs

    found = {"kernel": kernel.metadata.name, "hash": kernel.hash}
    if backend == "hip":
        text = kernel.asm["amdgcn"]
        found["spills"] = sum(map(int, re.findall(r"vgpr_spill_count: +(\d+)", text)))
        # Between the last load and the barrier a wait for all loads.
        loads, _, stores = text.rpartition("s_barrier")
        tail = re.split(r"(?:global|buffer)_load", loads)[-1]
        found["barrier"] = "vmcnt(0)" in tail and not re.search(r"(global|buffer)_load", stores)
        return found
    ptx = kernel.asm["ptx"]
    found["fma"] = len(re.findall(r"\bfma\.", ptx))
    found["loads"] = re.findall(r"\bld\.global[.\w]*", ptx)
    found["stores"] = re.findall(r"\bst\.global[.\w]*", ptx)
    before, barrier, after = ptx.rpartition("bar.sync")
    found["barrier"] = bool(barrier) and "st.global" not in before and "ld.global" not in after
    cubin = pathlib.Path(os.environ["TRITON_CACHE_DIR"]) / "look.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin)]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # The stack holds what registers could not, and local arrays.
    found["spills"] = sum(map(int, re.findall(r"\b(?:STACK|LOCAL):(\d+)", usage)))
    return found


def _compile(target: str, full: bool) -> None:
    """Print one JSON line for each kernel that the cases launch."""
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class Driver:  # what JITFunction asks of a device before it compiles
        def get_current_target(self):
            return GPUTarget(*TARGETS[target])

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

        def get_active_torch_device(self):
            return torch.device("cpu")

    driver.set_active(Driver())
    from fused_mixup.triton_kernels import common

    def compile_instead(kernel, programs, device, *args, **options):
        compiled = kernel.warmup(*args, grid=(programs,), **options)
        launched.append(_look(compiled, TARGETS[target][0]))

    common.launch = compile_instead
    for case, call in _cases(full):
        launched: list[dict] = []
        call()
        for found in launched:
            print(json.dumps({"case": case, **found}), flush=True)


# ---------------------------------------------------------------- what is asked of it


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request, tmp_path_factory) -> tuple[str, list[dict]]:
    """The target, and what was found in each kernel."""
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    env.pop("TRITON_INTERPRET", None)
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, request.param]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return request.param, [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_compiles_without_spills(compiled):
    _, found = compiled
    kernels = {k["kernel"] for k in found}
    mix = {"pair_kernel", "tile_kernel", "mix_backward_kernel"}
    loss = {"loss_forward_kernel", "loss_backward_kernel"}
    assert kernels == mix | loss | {"targets_kernel"}
    # Kernels are shaped for the compiler of Triton 3.6; others spread registers a little otherwise.
    allowed = 0 if importlib.metadata.version("triton").startswith("3.6") else 64
    assert [k for k in found if k["spills"] > allowed] == []


def test_no_fused_multiply_add_in_a_blend(compiled):
    """A contraction would round once where eager PyTorch rounds twice."""
    target, found = compiled
    if target == "gfx942":
        pytest.skip("looks at PTX")
    blends = [k for k in found if k["case"].startswith(("mix", "paste"))]
    assert len(blends) >= 10
    assert [k for k in blends if k["fma"]] == []


@pytest.mark.parametrize(
    "case",
    [
        "mix_ flip fp32",
        "mix_ flip bf16",
        "mix_ roll bf16",
        "mix_ tensor fp32 256",
        "mix tensor bf16",
        "mix_backward tensor bf16",
        "loss sparse bf16 1000",  # rows of 1000 bf16 start on 16 bytes, not on 16 elements
        "loss dense fp32 1000",
    ],
)
def test_aligned_paths_move_16_bytes_at_a_time(compiled, case):
    target, found = compiled
    if target == "gfx942":
        pytest.skip("looks at PTX")
    kernels = [k for k in found if k["case"] == case]
    assert kernels
    for k in kernels:
        assert "ld.global.v4.b32" in k["loads"], k
        if k["kernel"] != "loss_forward_kernel":  # its results are one value per row
            assert set(k["stores"]) == {"st.global.v4.b32"}, k


def test_in_place_tiles_store_after_all_loads(compiled):
    _, found = compiled
    tiles = [k for k in found if k["kernel"] == "tile_kernel" and k["case"].startswith("mix_ ")]
    tiles = [k for k in tiles if "9000" not in k["case"]]  # goes through a scratch copy instead
    assert len(tiles) >= 2
    assert [k for k in tiles if not k["barrier"]] == []


def test_new_values_compile_nothing_new(compiled):
    """Another λ, box or batch size must not cost a compilation in the middle of training."""
    _, found = compiled
    same = [k["hash"] for k in found if k["case"].startswith("again")]
    assert len(same) == 6
    assert len(set(same)) == 2


if __name__ == "__main__":
    _compile(sys.argv[1], full=sys.argv[1] == "sm_90")
