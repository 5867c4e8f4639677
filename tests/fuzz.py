"""The large run of the property tests: ``make fuzz``, or ``python tests/fuzz.py --minutes 30``.

One process for each core draws random cases for every property on every backend that runs here,
until the time is over or a property fails; the failing case is printed as small as hypothesis can
make it, and the exit status is 1. Each process has a seed of its own, which is printed with its
failure: ``--seed`` with it and ``--jobs 1`` draws the same cases in the same order.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pathlib
import queue
import random
import sys
import time
import traceback
import warnings
from collections import Counter

# Waiting threads must not keep the core from another process.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # set before anything imports Triton

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

# Cases of one property in a turn; interpreted Triton is slow.
TURN = {"cpu-triton": 20}
DEFAULT_TURN = 200


def turn(on, prop, cases, examples: int, seed: int) -> tuple[int, str | None]:
    """Run random cases of one property; return their number and the failure, if any."""
    import hypothesis

    count = 0

    # No database: the failure is printed, and every turn draws new cases.
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.seed(seed)
    @hypothesis.given(cases)
    def run(case):
        nonlocal count
        count += 1
        prop(on, case)

    try:
        run()
    except KeyboardInterrupt:
        raise
    except BaseException:  # any failure is printed and ends the run
        return count, traceback.format_exc()
    return count, None


def work(seed: int, until: float, names: list[str], chosen: list[str], reports) -> None:
    """Run each property on each backend in turn; report (backend, property, cases, error)."""
    import properties

    warnings.simplefilter("ignore")
    torch.set_num_threads(2)  # two threads, so that kernels split their work
    draw = random.Random(seed)
    while True:
        for name in names:
            for prop, cases in properties.ALL.items():
                if prop.__name__ not in chosen:
                    continue
                if time.time() > until:
                    return
                examples = TURN.get(name, DEFAULT_TURN)
                with properties.open_backend(name) as on:
                    count, error = turn(on, prop, cases, examples, draw.getrandbits(64))
                if error is not None:
                    error = f"{prop.__name__} on {name}, --seed {seed} --jobs 1:\n{error}"
                reports.put((name, prop.__name__, count, error))
                if error is not None:
                    return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first process")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--backend", action="append", help="only this one; may be repeated")
    parser.add_argument("--property", action="append", help="only this one; may be repeated")
    options = parser.parse_args()
    import properties

    known = [prop.__name__ for prop in properties.ALL]
    for prop in options.property or ():
        if prop not in known:
            parser.error(f"--property: expected one of {known}, got {prop!r}")
    chosen = options.property or known
    reasons = properties.reasons()
    for name in options.backend or ():
        if name not in reasons:
            parser.error(f"--backend: expected one of {sorted(reasons)}, got {name!r}")
    names = []
    for name in options.backend or reasons:
        if reasons[name] is None:
            names.append(name)
        else:
            print(f"left out: {name}: {reasons[name]}")
    if not names:
        print("no backend can run here", file=sys.stderr)
        return 1
    if "cuda-on-host" in names:
        from host_cuda import build

        build.build()  # built once, before every process needs it
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    start = time.time()
    until = start + 60 * options.minutes
    context = multiprocessing.get_context("spawn")  # a fork inherits threads and CUDA
    reports = context.Queue()
    workers = [
        context.Process(target=work, args=(seed + i, until, names, chosen, reports), daemon=True)
        for i in range(options.jobs)
    ]
    for worker in workers:
        worker.start()
    counts: Counter = Counter()
    failures, minute = [], 0.0
    while any(worker.is_alive() for worker in workers) or not reports.empty():
        if any(worker.exitcode for worker in workers):
            break  # a process has crashed
        try:
            name, prop, count, error = reports.get(timeout=1)
        except queue.Empty:
            continue
        counts[name, prop] += count
        if error is not None:
            failures.append(error)
            break
        spent = time.time() - start
        line = f"{spent / 60:5.1f} of {options.minutes:g} min, {counts.total()} cases, no failure"
        if sys.stdout.isatty():
            print(f"\r{line}, last: {prop} on {name}".ljust(100), end="", flush=True)
        elif spent // 60 > minute:  # a log needs no more lines
            minute = spent // 60
            print(line, flush=True)
    if sys.stdout.isatty():
        print()
    crashed = [f"{w.exitcode}, --seed {seed + i}" for i, w in enumerate(workers) if w.exitcode]
    for worker in workers:
        worker.terminate()
    for name in names:
        shown = ", ".join(f"{p} {n}" for (b, p), n in sorted(counts.items()) if b == name)
        print(f"{name}: {shown}")
    print(f"{counts.total()} cases in {(time.time() - start) / 60:.1f} minutes, seed {seed}")
    for failure in failures:
        print(f"\nFAILED: {failure}", file=sys.stderr)
    for which in crashed:
        print(f"\nFAILED: a process died with {which} --jobs 1", file=sys.stderr)
    return 1 if failures or crashed else 0


if __name__ == "__main__":
    sys.exit(main())
