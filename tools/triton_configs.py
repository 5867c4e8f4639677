"""Compares launch configurations of the Triton kernels; prints the rows that should change.

    python tools/triton_configs.py                 times every candidate on this machine's GPU
    python tools/triton_configs.py --compile sm_90 compiles them, without a GPU, and shows what each
                                                   takes of a multiprocessor
    python tools/triton_configs.py pair loss       only these kernels

The table is ``triton_kernels/configs.py``. A candidate replaces the row while its cases run; its
results have to equal those of the row that stands there. For those who work on the package.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "tests")]
BETTER = 0.97  # a row changes for a time of at most this share
ROUNDS = 30
SIZES = (1, 2, 4, 8)
RING_TILE_SIZES = (4, 8)  # of words; half types go by pairs

# Candidates by kernel: fields of Config that differ from the row.
CANDIDATES: dict[str, list[dict[str, int]]] = {
    "pair": [{"block": b, "warps": w} for b in (2048, 4096, 8192) for w in (2, 4, 8)],
    "backward": [{"block": b, "warps": w} for b in (2048, 4096, 8192) for w in (4, 8)],
    "tile": [{"block": b, "warps": w} for b in (16384, 32768, 65536) for w in (8, 16)],
    "ring_pair": [{"block": b, "stages": s} for b in (2048, 4096, 8192) for s in (2, 3, 4, 6)],
    "ring_tile": [{"stages": s, "steps": n} for s in (3, 4, 6, 8) for n in (8, 16, 32)],
    "loss": [{"unroll": u, "warps": w} for u in (2, 4, 8) for w in (4, 8, 16)],
    "loss_long": [{"unroll": u, "warps": w} for u in (2, 4, 8) for w in (8, 16, 32)],
    "loss_backward": [{"unroll": u, "warps": w} for u in (1, 2, 4) for w in (4, 8, 16)],
    "bce": [{"unroll": u, "warps": w} for u in (1, 2, 4) for w in (4, 8)],
    "targets": [{"block": b} for b in (1024, 2048, 4096)],
    "scale": [{"block": b} for b in (1024, 2048, 4096, 8192)],
}
# What is compiled for a kernel: cases of tests/triton_machine_code.py.
CASES = {
    "pair": ["mix_ flip fp32", "mix_ flip bf16", "mix_ flip uint8", "mix_ flip fp64"],
    "backward": ["mix_backward tensor bf16"],
    "tile": ["mix_ tensor fp32 256", "mix_ tensor bf16 256", "mix_ tensor fp64 256"],
    "ring_pair": ["ring flip fp32", "ring flip bf16", "ring flip uint8", "ring flip fp64"],
    "ring_tile": ["ring 256 fp32", "ring 256 bf16", "ring 32 fp64"],
    "loss": ["loss sparse fp32 131072", "loss sparse bf16 1000"],
    "loss_long": ["loss grad sparse bf16 131072"],
    "loss_backward": ["loss sparse fp32 131072", "loss sparse bf16 1000"],
    "bce": ["bce sparse bf16 1000"],
    "targets": ["mix_targets bf16"],
    "scale": ["scale bf16"],
}


def candidates(kernel: str, size: int) -> Iterator:
    """The row that stands, then the others."""
    from fused_mixup.triton_kernels import configs

    row = configs.config(kernel, size)
    yield row
    for fields in CANDIDATES[kernel]:
        if row._replace(**fields) != row:
            yield row._replace(**fields)


def replace(kernel: str, candidate: dict | None, sizes: tuple[int, ...] = SIZES) -> None:
    """Put a candidate into the table, for every architecture."""
    from fused_mixup.triton_kernels import configs

    for size in sizes:
        row = configs.config(kernel, size)
        configs.TABLE[kernel, configs.architecture() or "*", size] = row._replace(**candidate or {})


# ------------------------------------------------------------------ compiled


def compiled(kernel: str, fields: dict, target: str) -> list[dict]:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    paths = [str(ROOT), str(ROOT / "tools"), str(ROOT / "tests"), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    program = (
        "import sys, json, triton_configs, triton_machine_code as m\n"
        "kernel, fields, target, *cases = sys.argv[1:]\n"
        "m._compile(target, cases, lambda: triton_configs.replace(kernel, json.loads(fields)))"
    )
    with tempfile.TemporaryDirectory() as cache:
        env["TRITON_CACHE_DIR"] = cache
        command = [sys.executable, "-c", program, kernel, json.dumps(fields), target]
        done = subprocess.run([*command, *CASES[kernel]], env=env, capture_output=True, text=True)
    if done.returncode != 0:
        return [{"case": "cannot compile: " + done.stderr.strip().splitlines()[-1][:90]}]
    return [json.loads(line) for line in done.stdout.splitlines()]


def show_compiled(kernels: list[str], target: str) -> None:
    from occupancy import ARCHS, blocks_per_multiprocessor

    arch = next((a for a in ARCHS.values() if a.name == target), None)
    for kernel in kernels:
        for fields in [{}, *CANDIDATES[kernel]]:
            for k in compiled(kernel, fields, target):
                if "kernel" not in k or k["kernel"] == "count_kernel":
                    print(f"{kernel:14} {fields} {k['case']}", flush=True)
                    continue
                threads = 32 * k["warps"]
                line = f"{k['case']:28} {k['registers']:3} registers, {k['spills']} spilled"
                if arch is not None:
                    shared = k["shared"]
                    fit = blocks_per_multiprocessor(arch, threads, k["registers"], shared)
                    flight = fit * threads * 16 * k["ahead"] // 1024
                    line += f", {fit} programs, {flight} KiB in flight past shared memory"
                    line += f", {fit * shared // 1024} KiB shared"
                print(f"{kernel:14} {fields or 'the row'}: {line}", flush=True)


# ------------------------------------------------------------------ timed


def inputs(kernel: str, size: int) -> Callable[[], object] | None:
    """A call whose time the kernel decides, of elements of ``size`` bytes; None where none is."""
    import torch

    import fused_mixup.triton_kernels as tk
    from fused_mixup.plan import MixPlan
    from fused_mixup.reference.pairing import transpose_pairing

    on_gpu = torch.cuda.is_available()
    device, batch, side = ("cuda", 256, 224) if on_gpu else ("cpu", 4, 32)
    dtype = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32, 8: torch.float64}[size]

    def plan(pairing):
        made = MixPlan.uniform(batch, pairing, 0.3).to(device)
        return made, (made.partner_or_none, made.blend, made.box, made.rule)

    if kernel in ("pair", "tile", "backward", "ring_pair", "ring_tile"):
        x = torch.randint(0, 256, (batch, 3, side, side), device=device).to(dtype)
        made, args = plan("flip" if "pair" in kernel else torch.randperm(batch))
        if kernel == "backward":
            if not dtype.is_floating_point:
                return None
            transposed = transpose_pairing(made.partner)
            return lambda: tk.mix_backward(x, args[0], *transposed, *args[1:])
        return lambda: (tk.mix_(x, *args), x)[1]
    if size == 1:
        return None
    rows, classes = (8192, 21824) if on_gpu else (4, 2048)
    if kernel == "loss_long":
        rows, classes = (2048, 131072) if on_gpu else (2, 65536)
    z = torch.randn(rows, classes, device=device).to(dtype)
    y = torch.randint(0, classes, (rows,), device=device)
    target = y, y.flip(0), torch.full((1, 2), 0.5).expand(rows, 2)
    options = None, -100, 0.1, 0.1, 0.0, 0.0, 0
    if kernel == "loss":
        return lambda: tk.soft_target_cross_entropy(z, *target, *options, False)[0]
    if kernel == "loss_long":
        return lambda: tk.soft_target_cross_entropy_grad(z, *target, *options, False)[1]
    if kernel == "loss_backward":
        loss, stats, count, _ = tk.soft_target_cross_entropy(z, *target, *options, False)
        return lambda: tk.soft_target_cross_entropy_backward(
            loss, z, stats, count, *target, *options
        )
    if kernel == "bce":
        more = None, None, 0.1, None, 0.0, 0, False
        return lambda: tk.soft_target_binary_cross_entropy_grad(z, *target, *more)[1]
    if kernel == "targets":
        return lambda: tk.mix_targets(y, None, target[2], 1, 1000, 0.1, dtype)
    return lambda: (tk.scale_(z, torch.full((), 0.5, device=device)), z)[1]


def seconds(call: Callable[[], object]) -> float:
    """The median of single calls; without a GPU 0, where the call only has to run."""
    import torch

    if not torch.cuda.is_available():
        call()
        return 0.0
    times = []
    for _ in range(ROUNDS + 3):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1000)
    return statistics.median(times[3:])


def show_timed(kernels: list[str]) -> None:
    import torch

    from fused_mixup.triton_kernels import configs

    before = dict(configs.TABLE)
    for kernel in kernels:
        os.environ["FUSED_MIXUP_EXPERIMENTAL"] = "0"
        if kernel.startswith("ring"):
            os.environ["FUSED_MIXUP_EXPERIMENTAL"] = "1"
            if configs.ring_config(kernel, 4) is None:
                print(f"{kernel}: left out, as it needs sm_90 or newer")
                continue
        for size in RING_TILE_SIZES if kernel == "ring_tile" else SIZES:
            found, first = [], None
            for row in list(candidates(kernel, size)):
                replace(kernel, row._asdict(), (size,))
                torch.manual_seed(0)
                call = inputs(kernel, size)
                if call is None:
                    continue
                result = call().clone()  # the first call compiles
                found.append((seconds(call), row))
                first = result if first is None else first
                if not torch.allclose(result.float(), first.float(), 1e-2):
                    raise RuntimeError(f"{kernel}, {size} bytes: {row} changes the result")
            configs.TABLE.clear()
            configs.TABLE.update(before)
            if not found:
                continue
            (standing, row), (least, best) = found[0], min(found)
            change = least < standing * BETTER
            print(
                f"{kernel:14} {size} bytes: {len(found)} candidates, "
                f"{standing * 1e6:.1f} µs {tuple(row)}",
                f"-> {least * 1e6:.1f} µs {best}: CHANGE" if change else "stays",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kernels", nargs="*", default=list(CANDIDATES))
    parser.add_argument("--compile", metavar="TARGET", help="sm_80, sm_90, sm_100 or gfx942")
    options = parser.parse_args()
    unknown = [k for k in options.kernels if k not in CANDIDATES]
    if unknown:
        parser.error(f"kernels: expected some of {', '.join(CANDIDATES)}, got {unknown}")
    if options.compile:
        show_compiled(options.kernels, options.compile)
    else:
        show_timed(options.kernels)


if __name__ == "__main__":
    main()
