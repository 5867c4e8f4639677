"""Hostile arguments for every public function, module and raw op: ``make hostile``.

    python tests/hostile.py [--cases 200000] [--seed 0] [--call NAME]

Case i of a seed is always the same call, with one to three arguments spoiled by
``hostile_values.py``. Batches run in processes of their own, so that a crash names its case, which
``--first i --cases 1`` repeats. A case fails where the process dies or takes longer
than SECONDS, where an exception is none of REFUSED or speaks of PyTorch's internals, or where an
argument changes that the call may not write: after an error, every one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path += [str(HERE), str(HERE.parent)]

import hostile_calls  # noqa: E402
import torch  # noqa: E402
from hostile_values import Lie, hostile  # noqa: E402
from torch import Tensor  # noqa: E402

import fused_mixup as fm  # noqa: E402

PROGRAM = str(HERE / "hostile.py")
SECONDS = 30  # of the CPU, for one case under a sanitizer
BATCH = 10_000  # cases of one process
MEMORY = 6 << 30  # what a case may allocate, so that it fails and not the machine
REFUSED = (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError, OverflowError, Lie)
REFUSED += (KeyError, MemoryError, BufferError)
INTERNAL = re.compile("INTERNAL ASSERT|please report a bug|unknown exception", re.IGNORECASE)
REPORT = re.compile("ERROR: AddressSanitizer|runtime error:")
# What says how many rows there are; without it a call would have to work on 2^31 of them.
SAYS_HOW_MANY = {"plan", "pairing", "target", "batch_size", "num_classes"}
CALLS = {f"op {k}": v for k, v in hostile_calls.raw_ops().items()} | hostile_calls.public_calls()


class Found(Exception):
    """What is wrong with a case."""


# ------------------------------------------------------------------ one case


def case(seed: int, i: int, only: str | None = None) -> hostile_calls.Call:
    """Case ``i``: a call, some of whose arguments are spoiled."""
    draw = random.Random(f"{seed} {i}")
    torch.manual_seed(draw.getrandbits(32))
    call = CALLS[only or draw.choice(list(CALLS))](draw)
    if call.positional and draw.random() < 0.05:
        return on_meta(call, draw)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        key = draw.choice(list(call.arguments))
        way, value = hostile(call.arguments[key], draw)
        if way == "beyond_31_bits" and not SAYS_HOW_MANY & call.arguments.keys() - {key}:
            continue
        if call.positional and key == "dtype" and isinstance(value, int):
            continue  # a number of no dtype ends the process inside PyTorch, before any op of ours
        if way != "none":
            call.arguments[key] = value
            call.spoiled.append(f"{key} {way}")
    return call


def on_meta(call: hostile_calls.Call, draw: random.Random) -> hostile_calls.Call:
    """All tensors on meta, and one dim of all that have its size beyond 31 bits."""
    batch, count = 4, draw.choice((0, 2**31 - 1, 2**31 + 3, 2**40))

    def moved(t: Any) -> Any:
        if isinstance(t, list):
            return [moved(item) for item in t]
        if not isinstance(t, Tensor):
            return t
        shape = [count if size == batch and draw.random() < 0.9 else size for size in t.shape]
        with contextlib.suppress(RuntimeError):  # more bytes than 63 bits count
            return torch.empty(shape, dtype=t.dtype, device="meta")
        return t.to("meta")

    call.arguments = {key: moved(value) for key, value in call.arguments.items()}
    call.spoiled.append(f"all on meta, {count}")
    return call


def tensors_of(value: Any, depth: int = 3) -> list[Tensor]:
    """The tensors in plain containers, whose bytes can be compared."""
    if type(value) is Tensor or type(value) is torch.nn.Parameter:
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_nested:
            return []
        return [value] if value.untyped_storage().nbytes() < 2**20 else []
    if type(value) in (list, tuple) and depth and len(value) < 100:
        return [t for item in value for t in tensors_of(item, depth - 1)]
    return (
        [t for v in value.values() for t in tensors_of(v, depth - 1)] if type(value) is dict else []
    )


def bytes_of(t: Tensor) -> bytes:
    storage = t.untyped_storage()
    return bytes(storage.tolist()) if storage.nbytes() < 64 else bytes_by_view(storage)


def bytes_by_view(storage: torch.UntypedStorage) -> bytes:
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes()


@contextlib.contextmanager
def other_thread_writes(call: hostile_calls.Call, draw: random.Random):
    """Integers of the arguments change while the call runs."""
    words = [t for v in call.arguments.values() for t in tensors_of(v)]
    words = [t for t in words if t.dtype in (torch.int32, torch.int64) and t.numel() < 2**16]
    words = [t for t in words if not t.is_inference() and not t.requires_grad]
    stop = threading.Event()
    wild = [t.clone().fill_(draw.choice((-(2**31), 2**31 - 1, 9))) for t in words]
    valid = [t.clone() for t in words]

    def write() -> None:
        while not stop.is_set():
            for t, bad, good in zip(words, wild, valid, strict=True):
                with contextlib.suppress(RuntimeError):  # memory that overlaps
                    t.copy_(bad)
                    t.copy_(good)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def check(call: hostile_calls.Call) -> str:
    """Run a case; return how it ended, or raise Found."""
    before = {k: [(t, bytes_of(t)) for t in tensors_of(v)] for k, v in call.arguments.items()}
    error = None
    with fm.backend(call.backend) if call.backend else contextlib.nullcontext():
        try:
            call.run()
        except Exception as raised:
            error = raised
    if error is not None and (not isinstance(error, REFUSED) or INTERNAL.search(str(error))):
        raise Found("".join(traceback.format_exception(error)[-6:]))
    for key, items in before.items():
        if error is None and (key in call.written or shares_written(call, items)):
            continue
        for t, data in items:
            if bytes_of(t) != data:
                after = (
                    f"after {type(error).__name__}: {error}" if error else "without being written"
                )
                raise Found(f"{key} has changed {after}")
    return type(error).__name__ if error else "taken"


def shares_written(call: hostile_calls.Call, items: list) -> bool:
    written = [t for k in call.written for t in tensors_of(call.arguments.get(k))]
    owned = {t.untyped_storage().data_ptr() for t in written}
    return any(t.untyped_storage().data_ptr() in owned for t, _ in items)


def run_case(seed: int, i: int, only: str | None = None) -> str:
    call = case(seed, i, only)
    draw = random.Random(f"{seed} {i} threads")
    if draw.random() < 0.02:
        with other_thread_writes(call, draw):
            for _ in range(10):
                with contextlib.suppress(*REFUSED):
                    call.run()
        return "written meanwhile"
    return check(call)


# ------------------------------------------------------------------ a process of cases


def work(seed: int, first: int, count: int, where: Path, only: str | None) -> None:
    """Run cases; the file ``where`` always holds the number of the case that runs."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    sys.setrecursionlimit(500)
    ends: Counter[str] = Counter()
    with open(where, "wb", buffering=0) as file:
        for i in range(first, first + count):
            file.seek(0)
            file.write(struct.pack("q", i))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends the process
            try:
                ends[run_case(seed, i, only)] += 1
            except Found as found:
                call = case(seed, i, only)
                print(f"FAILED {i} {call.name}: {', '.join(call.spoiled)}: {found}", flush=True)
                ends["failed"] += 1
    signal.setitimer(signal.ITIMER_PROF, 0)
    print("ENDS", dict(ends), flush=True)


def start(seed: int, first: int, count: int, sanitizer: str | None, only: str | None):
    """Run a batch in a process; return what it counted, and its failures."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder, "case")
        arguments = [PROGRAM, "--work", str(where), "--seed", str(seed)]
        arguments += ["--first", str(first), "--cases", str(count)]
        arguments += ["--call", only] if only else []
        if sanitizer:
            done = sanitized_run(sanitizer, arguments)
        else:
            done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        ends = re.search(r"^ENDS (.*)$", done.stdout, re.MULTILINE)
        parts = re.split(r"^(?=FAILED |ENDS )", done.stdout, flags=re.M)
        failures = [part.strip() for part in parts if part.startswith("FAILED ")]
        if ends is not None and done.returncode == 0 and not REPORT.search(done.stderr):
            return Counter(eval(ends[1])), failures, first + count
        at = struct.unpack("q", where.read_bytes())[0] if where.exists() else first
        call = case(seed, at, only)
        how = f"exit {done.returncode}" + (
            " (too long)" if done.returncode == -signal.SIGPROF else ""
        )
        said = REPORT.search(done.stderr)
        shown = done.stderr[max(said.start() - 300, 0) :][:4000] if said else done.stderr[-4000:]
        failures.append(f"FAILED {at} {call.name}: {', '.join(call.spoiled)}: {how}\n{shown}")
        return Counter({"not counted": at - first, "died": 1}), failures, at + 1


def sanitized_run(kind: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    from sanitized import build

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
        folder = build.module(kind, pool)
    more = f":allocator_may_return_null=1:max_allocation_size_mb={MEMORY >> 20}"
    options = build.KINDS[kind].options["ASAN_OPTIONS"] + more
    return build.run(kind, folder, arguments, ASAN_OPTIONS=options)


def batch(seed: int, first: int, count: int, sanitizer: str | None, only: str | None):
    """Run a batch, and go on behind a case at which the process died."""
    total: Counter[str] = Counter()
    found: list[str] = []
    at, end = first, first + count
    while at < end:
        ends, failures, at = start(seed, at, end - at, sanitizer, only)
        total += ends
        found += failures
        for failure in failures:
            print(failure, file=sys.stderr, flush=True)
    return total, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--sanitizer", default="address", help="address, avx512 or none")
    parser.add_argument("--call", choices=list(CALLS), help="only this one")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.seed, asked.first, asked.cases, asked.work, asked.call)
        return 0
    sanitizer = None if asked.sanitizer == "none" else asked.sanitizer
    started = time.monotonic()
    firsts = range(asked.first, asked.first + asked.cases, BATCH)
    end = asked.first + asked.cases
    total: Counter[str] = Counter()
    found: list[str] = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        runs = [
            pool.submit(batch, asked.seed, i, min(BATCH, end - i), sanitizer, asked.call)
            for i in firsts
        ]
        for run in runs:
            ends, failures = run.result()
            total += ends
            found += failures
            print(f"{total.total()} cases, {len(found)} failed", flush=True)
    minutes = (time.monotonic() - started) / 60
    under = f"under the sanitizer {sanitizer}" if sanitizer else "without a sanitizer"
    print(
        f"{total.total()} cases in {minutes:.1f} minutes {under}, seed {asked.seed}: {dict(total)}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
