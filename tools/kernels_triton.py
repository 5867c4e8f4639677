"""The part of ``make kernels`` on Triton: what its compiler makes of each kernel."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from occupancy import ARCHS, PARTS, blocks_per_multiprocessor, predicted_share

ROOT = Path(__file__).resolve().parents[1]
COMPILES = ROOT / "tests" / "triton_machine_code.py"
# Bytes of device memory per byte of the batch (or logits), and what must be moved.
MOVED = {
    "pair_kernel": (2, 2),
    "tile_kernel": (2, 2),  # a partner's values come from cache, or from the tile itself
    "mix_backward_kernel": (2, 2),
    "targets_kernel": (1, 1),
    "loss_kernel": (1, 1),
    "loss_backward_kernel": (2, 2),
    "bce_kernel": (2, 2),
    "ranks_kernel": (1, 1),
    "scale_kernel": (2, 2),
    "plan_kernel": (0, 0),  # arithmetic on float64
}


def compiled(target: str) -> list[dict]:
    """What ``tests/triton_machine_code.py`` finds in each kernel, each kernel once."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    paths = [str(ROOT), str(ROOT / "tools"), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    with tempfile.TemporaryDirectory() as cache:
        env["TRITON_CACHE_DIR"] = cache
        done = subprocess.run(
            [sys.executable, str(COMPILES), target], env=env, capture_output=True, text=True
        )
    if done.returncode != 0:
        raise RuntimeError(f"{target}: {done.returncode} {done.stderr[-2000:]}")
    found: dict[str, dict] = {}
    for line in done.stdout.splitlines():
        kernel = json.loads(line)
        found.setdefault(kernel["hash"], kernel)  # under the first case that launches it
    return list(found.values())


def table(kernels: Sequence[dict], arch: int) -> list[str]:
    parts = [p for p in PARTS if p.arch == arch]
    head = ["case", "kernel", "threads", "registers", "shared", "programs", "warps"]
    head += ["loads under way", "under way", "moved / floor", *(p.name for p in parts)]
    lines = [f"| {' | '.join(head)} |", "|---|---" + "|--:" * (len(head) - 2) + "|"]
    for k in kernels:
        threads = 32 * k["warps"]
        programs = blocks_per_multiprocessor(ARCHS[arch], threads, k["registers"], k["shared"])
        width = max(k["loads"], default=0)
        under_way = programs * threads * k["ahead"] * width
        if k["kernel"] == "count_kernel":  # reads labels, and no batch
            continue
        writes = k["kernel"] == "loss_kernel" and " grad " in k["case"]
        moved, floor = (2, 2) if writes else MOVED[k["kernel"]]
        cells = [k["case"], k["kernel"].removesuffix("_kernel")]
        cells += [str(n) for n in (threads, k["registers"], k["shared"], programs)]
        cells.append(str(programs * k["warps"]))
        if under_way == 0 or k["kernel"] == "targets_kernel":  # narrow loads, or next to none
            cells += ["–", "–", f"{moved} / {floor}", *("–" for _ in parts)]
        else:
            cells += [f"{k['ahead']} × {width} B", f"{under_way / 1024:.0f} KiB"]
            cells.append(f"{moved} / {floor}")
            cells += [f"{predicted_share(p, under_way, floor, moved):.0%}" for p in parts]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def report(archs: Sequence[int]) -> list[str]:
    if importlib.util.find_spec("triton") is None:
        return ["", "Triton is not installed: its kernels are left out."]
    import triton

    text = ["", f"# And Triton {triton.__version__} of its kernels", ""]
    text += [
        "By case, as launched; programs and warps are per multiprocessor. –: no 16-byte loads."
    ]
    for arch in archs:
        name = ARCHS[arch].name
        text += ["", f"## Triton, {name}", "", *table(compiled(name), arch)]
    return text
