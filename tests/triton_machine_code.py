"""Compiles Triton kernels for a real target, without a GPU, and reads the machine code.

It runs as a separate process, as functions under Triton's interpreter cannot be compiled:
``test_triton_compile.py`` and ``tools/kernels_triton.py`` run it with a target, TRITON_CACHE_DIR,
and the root and tools/ on PYTHONPATH.

The ops are called on CPU tensors with the launch replaced by a compilation, so what is compiled is
exactly what the ops would launch: same arguments, same specialisation. Every kernel is compiled for
every target; further batch sizes and layouts for sm_90 (FUSED_MIXUP_GRID=full: for all of them).
One line of JSON describes the machine code of each kernel.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys

TARGETS = {  # name -> backend, architecture, threads of a warp
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}

_AMD_LOAD = re.compile(r"\b(?:global|buffer|flat)_load_(\w+)")
_AMD_STORE = re.compile(r"\b(?:global|buffer|flat)_store_(\w+)")
_AMD_BYTES = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4}
_AMD_BYTES |= dict.fromkeys(("ushort", "sshort", "short", "short_d16", "short_d16_hi"), 2)
_AMD_BYTES |= dict.fromkeys(("ubyte", "sbyte", "byte", "ubyte_d16", "ubyte_d16_hi"), 1)
_AMD_BYTES |= dict.fromkeys(("byte_d16_hi", "sbyte_d16", "sbyte_d16_hi"), 1)
_AMD_BYTES |= dict.fromkeys(("short_d16_hi", "sshort_d16"), 2)
# Instructions that round a product and a sum once; v_mad_u64_u32 multiplies and adds integers.
# (v_fmamk_f32 has a factor written into it, which no weight is: 64-bit divisions take it.)
# A v_fma_mix_f32 that adds neg(0) is a product of converted halves, rounded once, its sign kept.
_AMD_PRODUCT = re.compile(r"v_fma_mix_f32 .*\bneg\(0\)")
_AMD_FUSED = re.compile(r"\bv_(?:pk_)?(?:fma|fmac|fmaak|mad|mac|dot2\w*)_(?:mix\w*_)?b?f\d+")


def _cases(full: bool):
    """(name, call) for every kernel; ``full`` adds dtypes, layouts and batch sizes."""
    import torch
    from triton_collages import collage_cases
    from triton_images import image_cases
    from triton_mask_cases import mask_cases
    from triton_rings import ring_cases

    import fused_mixup.triton_kernels as tk
    from fused_mixup.plan import MixPlan
    from fused_mixup.reference.pairing import transpose_pairing

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

    def loss_args(shape, dtype, dense, weight_rows=False):
        """Logits of a shape, and the arguments of the losses up to the weight."""
        z = torch.zeros(shape, dtype=dtype)
        batch = shape[0]
        y = torch.zeros((batch, *shape[2:]), dtype=torch.int64)
        weight = torch.full((1, 2), 0.5).expand(batch, 2)
        return z, (z, None, None) if dense else (y, y, weight.clone() if weight_rows else weight)

    def per_class(z):
        acc = torch.float64 if z.dtype == torch.float64 else torch.float32
        return torch.ones(z.shape[1], dtype=acc)

    def loss(dtype, shape, smoothing, dense, weight_rows=False, gamma=0.0, z_loss=0.0):
        z, t = loss_args(shape, dtype, dense, weight_rows)
        options = None, -100, smoothing, smoothing, gamma, z_loss, 0
        value, stats, count, _ = tk.soft_target_cross_entropy(z, *t, *options, False)
        tk.soft_target_cross_entropy_backward(value, z, stats, count, *t, *options)

    def loss_grad(dtype, shape, smoothing, dense, weighted=False):
        z, t = loss_args(shape, dtype, dense)
        w = per_class(z) if weighted else None
        tk.soft_target_cross_entropy_grad(
            z, *t, w, -100, smoothing, smoothing, 0.0, 0.0, 0, weighted
        )

    def bce(dtype, shape, dense, threshold=None, weighted=False, gamma=0.0):
        z, t = loss_args(shape, dtype, dense)
        w = per_class(z) if weighted else None
        options = w, w, 0.1, threshold, gamma, 0, False
        tk.soft_target_binary_cross_entropy_grad(z, *t, *options)
        value = torch.zeros((), dtype=per_class(z).dtype)
        tk.soft_target_binary_cross_entropy_backward(value, z, *t, *options)

    def draw(batch, sizes, per, pairing):
        state, settings = torch.zeros(4, dtype=torch.int64), torch.zeros(6, dtype=torch.float64)
        labels, partner = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch).int()
        tk.draw_plan(state, settings, labels, partner, batch, sizes, per, pairing, True, False)

    def erasing(batch, count, mode):
        state, settings = torch.zeros(4, dtype=torch.int64), torch.zeros(5, dtype=torch.float64)
        fill = [0.0] if mode == 0 else []
        tk.draw_erasing(state, settings, fill, batch, 224, 224, count, 3, mode, 0)

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
    yield from image_cases(full)
    yield from collage_cases(full)
    yield from mask_cases(full)

    yield from ring_cases()
    y = torch.zeros(4, dtype=torch.int64)
    weight = torch.full((4, 2), 0.5)
    yield "mix_targets bf16", lambda: tk.mix_targets(y, None, weight, 1, 1000, 0.1, half)
    many, blend = torch.zeros(4, 50, 4), weight.double()
    cut, count = torch.zeros(4, 4, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    for name, dtype in (("fp32", single), ("fp64", double)):
        yield (
            f"boxes {name}",
            lambda d=dtype: tk.mix_boxes(many.to(d), count, None, blend, cut, 1, 0.1),
        )
    row, map_ = (4, 1000), (2, 19, 64, 64)
    yield "loss sparse bf16 1000", lambda: loss(half, row, 0.1, False)
    yield "loss dense fp32 1000", lambda: loss(single, row, 0.0, True)
    yield "loss sparse bf16 map", lambda: loss(half, map_, 0.1, False)
    yield "loss grad sparse bf16 1000", lambda: loss_grad(half, row, 0.1, False)
    yield "bce sparse bf16 1000", lambda: bce(half, row, False)
    yield "ranks bf16 1000", lambda: tk.label_ranks(torch.zeros(row, dtype=half), y, y)
    yield "scale bf16", lambda: tk.scale_(torch.zeros(row, dtype=half), torch.ones(()))
    yield "plan flip batch", lambda: draw(256, [224, 224], 0, 1)
    yield "plan cross_class sample", lambda: draw(1000, [224, 224], 2, 6)
    for mode in (0, 1, 2):
        yield f"erasing mode {mode}", lambda m=mode: erasing(256, 1, m)
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
    yield (
        "mix_ flip fp16 rows",
        lambda: tk.mix_(image(dtype=torch.float16), *args(rows(32, "flip", box=False))),
    )
    yield "mix_ flip uint8", lambda: tk.mix_(image(dtype=byte), *args(uniform(32)))
    yield "mix_ flip fp64", lambda: tk.mix_(image(dtype=double), *args(uniform(32)))
    yield "mix_ self bf16", lambda: tk.mix_(image(), *args(rows(32, "self", box=False)))
    yield "mix_ tensor bf16 1024", lambda: tk.mix_(image(1024), *args(shuffled(1024)))
    yield "mix_ tensor uint8 256", lambda: tk.mix_(image(256, byte), *args(shuffled(256)))
    yield "loss sparse fp32 131072", lambda: loss(single, (4, 131072), 0.1, False, True)
    yield "loss dense bf16 131072", lambda: loss(half, (4, 131072), 0.1, True)
    yield "loss grad sparse bf16 131072", lambda: loss_grad(half, (4, 131072), 0.1, False)
    yield "loss grad dense fp32 map", lambda: loss_grad(single, map_, 0.1, True)
    yield "bce dense fp32 map", lambda: bce(single, map_, True)
    if not full:
        return
    # Samples of more than 2^31 elements, whose memory is reserved and never touched.
    huge = torch.empty(2, 2**31 + 16, dtype=byte)
    yield "mix_ flip uint8 wide", lambda: tk.mix_(huge, *args(uniform(2)))
    yield "mix_ roll uint8 wide", lambda: tk.mix_(huge, *args(uniform(2, "roll")))
    for batch in (64, 256, 1024):
        for name, dtype in (("bf16", half), ("uint8", byte), ("fp64", double)):
            if (name, batch) in (("bf16", 1024), ("uint8", 256)):
                continue  # above
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
    yield "loss sparse bf16 21841", lambda: loss(half, (4, 21841), 0.0, False)
    yield "loss dense fp64 33", lambda: loss(double, (4, 33), 0.1, True)
    yield "loss grad weighted bf16 1000", lambda: loss_grad(half, row, 0.1, False, True)
    yield "loss grad weighted bf16 map", lambda: loss_grad(half, map_, 0.1, False, True)
    yield "loss grad sparse bf16 21841", lambda: loss_grad(half, (4, 21841), 0.1, False)
    yield "loss grad dense fp64 1000", lambda: loss_grad(double, row, 0.1, True)
    yield "bce sparse bf16 threshold", lambda: bce(half, row, False, 0.2, True)
    yield "bce dense fp64 1000", lambda: bce(double, row, True)


def _look(kernel, backend: str) -> dict:
    """Read the properties that the tests check from a kernel's machine code."""
    meta = kernel.metadata
    found = {"kernel": meta.name, "hash": kernel.hash, "warps": meta.num_warps}
    if backend == "hip":
        text = kernel.asm["amdgcn"].partition("\n\t.section")[0]
        notes = kernel.asm["amdgcn"]
        # Spills to memory. Scalar registers spill to lanes of vector registers first.
        spilled = re.findall(r"(?:vgpr_spill_count|private_segment_fixed_size): +(\d+)", notes)
        found["spills"] = sum(map(int, spilled))
        found["registers"] = int(re.findall(r"\.vgpr_count: +(\d+)", notes)[0])
        found["fused"] = _AMD_FUSED.findall(_AMD_PRODUCT.sub("", text))
        real = r"\bf(?:add|sub|mul|div)(?: \w+)* (?:double|float)\b"
        # A root of float32 is made of multiply-adds here.
        real += r"|llvm\.(?:fma|fmuladd|sqrt)\.f64|llvm\.fmuladd\.f32"
        scalar = re.sub(r"<\d+ x (\w+)>", r"\1", kernel.asm["llir"])
        scalar = scalar.replace(" nnan ", " ")  # a fact that LLVM found; it lets nothing contract
        found["rounded"] = sorted(set(re.findall(real, scalar)))
        found["loads"] = [_AMD_BYTES[w] for w in _AMD_LOAD.findall(text)]
        found["stores"] = [_AMD_BYTES[w] for w in _AMD_STORE.findall(text)]
        # A wait for all loads and the barrier stand between the last load and the first store. A
        # single wave needs no barrier, and the compiler leaves it out.
        loads, tail = _AMD_LOAD.split(text)[:-1], _AMD_LOAD.split(text)[-1]
        before = _AMD_STORE.split(tail)[0]
        barrier = "s_barrier" in before.partition("vmcnt(0)")[2] or meta.num_warps == 1
        stored = any(_AMD_STORE.search(part) for part in loads)
        found["barrier"] = "vmcnt(0)" in before and barrier and not stored
        return found
    import sass
    from triton import knobs

    cubin = pathlib.Path(os.environ["TRITON_CACHE_DIR"]) / "look.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    (code,) = sass.read(pathlib.Path(knobs.nvidia.cuobjdump.path), cubin).values()
    # The stack holds spilled registers and local arrays.
    found["spills"] = code.usage.stack + code.usage.local + code.local
    found["registers"] = code.usage.registers
    found["shared"] = meta.shared
    found["fused"] = code.fused
    # Float instructions. Quotients and square roots contain multiply-adds in machine code.
    real = r"\b(?:fma|mad|add|sub|mul|div|sqrt)\.(?:\w+\.)*f(?:64|32)"
    found["rounded"] = sorted(set(re.findall(real, kernel.asm["ptx"])))
    found["loads"] = list(code.loads.elements())
    found["stores"] = list(code.stores.elements())
    found["ahead"] = code.ahead
    # Copies of the copy engine: blocks to shared memory, and back.
    bulk = re.findall(r"cp\.async\.bulk\.tensor\.\dd\.(shared|global)", kernel.asm["ptx"])
    found["bulk"] = [bulk.count("shared"), bulk.count("global")]
    # PTX order counts: the assembler must keep the order of memory accesses around a barrier.
    before, barrier, after = kernel.asm["ptx"].rpartition("bar.sync")
    found["barrier"] = bool(barrier) and "st.global" not in before and "ld.global" not in after
    return found


def _compile(target: str, names: list[str], prepare=lambda: None) -> None:
    """Print one JSON line for each kernel that the cases launch: all, or those of ``names``.

    ``prepare`` runs before them, when the target is known.
    """
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class Driver:  # JITFunction calls these methods before it compiles
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
        # Triton 3.10 turns the default off, and 3.9 warns where it counts.
        assert "enable_fp_fusion" in options, kernel
        compiled = kernel.warmup(*args, grid=(programs,), **options)
        launched.append(_look(compiled, TARGETS[target][0]))

    common.launch = compile_instead
    prepare()
    full = target == "sm_90" or os.environ.get("FUSED_MIXUP_GRID") == "full"
    for case, call in _cases(full or bool(names)):
        if names and case not in names:
            continue
        launched: list[dict] = []
        call()
        for found in launched:
            print(json.dumps({"case": case, **found}), flush=True)


if __name__ == "__main__":
    _compile(sys.argv[1], sys.argv[2:])
