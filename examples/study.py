"""What mixing does to accuracy, calibration and robustness, on digits that scikit-learn ships.

    python -m examples.study [--seeds 5] [--epochs 16] [--results FILE] [--out build/study.png]

It trains one small network without mixing, with MixUp, CutMix, both and Manifold Mixup, on labels
of which 0, 20 and 40 % are corrupted, for each seed; then it prints a table, says which of the
papers' claims hold at this size, and draws a picture. Nothing is downloaded. ``--from FILE``
trains nothing and reports the results in a file. docs/study.md shows the full run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from . import study_picture, study_report
from .study_train import METHODS, Job, digits
from .study_train import run as train_and_measure

CORRUPTED = (0.0, 0.2, 0.4)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    args = parse(argv)
    if args.read is None:
        results = study(args.seeds, args.epochs, args.processes)
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(dumps(results), encoding="utf-8")
        print(f"results: {args.results}")
    else:
        results = json.loads(args.read.read_text(encoding="utf-8"))
    print(study_report.text(results))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    study_picture.save(args.out, results)
    print(f"picture: {args.out}")
    return results


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.study", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=16, help="of each training")
    parser.add_argument("--processes", type=int, default=cores, help="0 trains in this one")
    parser.add_argument("--results", type=Path, default=Path("build", "study.json"))
    parser.add_argument("--from", dest="read", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("build", "study.png"))
    args = parser.parse_args(argv)
    for name, least in (("seeds", 2), ("epochs", 1), ("processes", 0)):
        if getattr(args, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(args, name)}")
    return args


def study(seeds: int, epochs: int, processes: int) -> dict[str, Any]:
    """All trainings, and what they ran on."""
    jobs = [
        Job(method, corrupted, seed, epochs)
        for seed in range(seeds)
        for corrupted in CORRUPTED
        for method in METHODS
    ]
    start, runs = time.perf_counter(), []
    # disable=None: silent where the error output is no terminal.
    with tqdm(total=len(jobs), unit="training", disable=None) as bar:
        for run in run_all(jobs, processes):
            runs.append(rounded(run))  # as they are saved
            bar.set_postfix_str(f"{run['method']}, accuracy {run['accuracy']:.3f}", refresh=False)
            bar.update()
    return {
        "machine": machine(),
        "seeds": seeds,
        "epochs": epochs,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(sum(run.pop("cpu_seconds") for run in runs), 1),
        "runs": runs,
    }


def run_all(jobs: Iterable[Job], processes: int) -> Iterator[dict[str, Any]]:
    """The results in the order of the jobs."""
    if processes == 0:
        data = digits()
        yield from (train_and_measure(job, data) for job in jobs)
        return
    # Spawned, as a fork of a process in which PyTorch has started threads may hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(train_and_measure, jobs)


def machine() -> dict[str, Any]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"processor": platform.machine(), "cores": len(os.sched_getaffinity(0)), **versions}


def dumps(results: dict[str, Any]) -> str:
    """JSON with a line for each training."""
    head = {key: value for key, value in results.items() if key != "runs"}
    runs = ",\n".join(json.dumps(run) for run in results["runs"])
    return json.dumps(head)[:-1] + ', "runs": [\n' + runs + "\n]}\n"


def rounded(run: dict[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        return round(value, 5) if isinstance(value, float) else value

    return {
        key: [short(v) for v in value] if isinstance(value, list) else short(value)
        for key, value in run.items()
    }


if __name__ == "__main__":
    main()
