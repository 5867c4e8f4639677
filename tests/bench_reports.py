"""Made-up results files for the tests of the code that reads results."""

from __future__ import annotations

import copy

import torch

from benchmarks import results
from benchmarks.registry import FLOOR, OURS, Case

HEAD = {
    "date": "2026-01-02",
    "machine": {"device": "a CPU", "cpu": "a CPU", "cores": 2, "capability": "AVX2"},
    "versions": {"fused_mixup": "0.1.0", "torch": "2.13.0"},
    "settings": {
        "device": "cpu", "full": False, "seconds": 1.0, "threads": 2, "pinned": "", "backend": "x",
    },
}  # fmt: skip


def fail(case, device):
    raise AssertionError("the tests read a case's name and never build it")


def case(op: str, variant: str = "flip", **rest) -> Case:
    return Case(op, variant, (64, 10), torch.float32, fail, op, **rest)


SWEPT = [
    Case("mix_", "flip", (n, 10), torch.float32, fail, "sweep", ("peer",), sweep=("batch size", n))
    for n in (8, 32)
]
CASES = [
    case(FLOOR, "all"),
    case("mix_", peers=("timm's lines", "copy of N", "Kornia"), goals=("cpu flip",)),
    case("loss", peers=("timm's lines",), goals=("cpu cross-entropy",)),
    case("training step", peers=("eager",)),
    case("loader", peers=("timm",)),
    *SWEPT,
]
N = 1_000_000


def line(case: Case, provider: str, ms: float, **rest) -> dict:
    """The line of one turn, whose seconds scatter by one percent."""
    seconds = [ms / 1e3 * (1 + (i % 5 - 2) / 200) for i in range(20)]
    counts = {"extra_mib": 0.0, "operators": 1, "profile": [["fused_mixup::mix_", 0.9, 1]]}
    sizes = {"read": N, "written": N, "threads": None}
    head = {"case": case.name, "provider": provider, "turn": 0}
    return {**head, "seconds": seconds, "counts": counts, **sizes, **rest}


def lines() -> list[dict]:
    copied, mixing, loss, step, loader, *swept = CASES
    parts = {"augmentation": [0.001] * 5, "loss": [0.002] * 5, "network": [0.003] * 5}
    names = ("decode", "augment", "collate", "between processes", "normalise")
    loading = {name: [0.001 * (i + 1)] * 5 for i, name in enumerate(names)}
    found = [
        line(copied, OURS, 1.0),
        line(mixing, OURS, 0.5),
        line(mixing, "timm's lines", 10.0),
        line(mixing, "copy of N", 1.0),
        {"case": mixing.name, "provider": "Kornia", "turn": 0, "skipped": "not installed"},
        line(loss, OURS, 2.0),
        line(loss, "timm's lines", 14.0),
        line(step, OURS, 6.0, parts=parts),
        line(step, "eager", 7.0, parts=parts),
        line(loader, OURS, 20.0, parts=loading),
        line(loader, "timm", 30.0, parts=loading),
    ]
    for one in swept:
        found += [line(one, OURS, 0.1), line(one, "peer", 0.9)]
    return found


def report(slower: float = 1.0, finished: bool = True) -> dict:
    """The report of a run; ``slower`` multiplies our time in the loss."""
    changed = lines()
    for one in changed:
        if one["case"] == CASES[2].name and one["provider"] == OURS:
            one["seconds"] = [s * slower for s in one["seconds"]]
    return results.report(copy.deepcopy(HEAD), changed, CASES, finished)
