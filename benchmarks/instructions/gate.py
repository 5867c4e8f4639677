"""Compares instruction counts with counts.json, which has one record for each compiler."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Collection
from pathlib import Path

from . import SKIPPED, callgrind, stepping

COUNTS = Path(__file__).with_name("counts.json")
TOLERANCE = 0.03  # counts vary with patch levels of the compiler and PyTorch's headers
TOOLS = {"stepping": stepping, "callgrind": callgrind}


def compiler(module: Path) -> str:
    """The compiler that the module names: "GCC: (Debian 12.2.0-14) 12.2.0"."""
    found = re.search(rb"GCC: \([^)\0]*\) [\d.]+|clang version [^\0]+", module.read_bytes())
    return found[0].decode(errors="replace") if found else "unknown"


def measure(tool: str, capability: str = "", skipped: Collection[str] = ()) -> dict:
    """One record. ``capability`` limits the kernels to an instruction set."""
    from fused_mixup import _C

    environment = {SKIPPED: json.dumps([*skipped])}
    if capability:
        environment["FUSED_MIXUP_CPU"] = capability
    chosen, counts = TOOLS[tool].count(environment)
    return {
        "compiler": compiler(Path(_C.__file__)),
        "machine": platform.machine(),
        "capability": chosen,
        "tool": tool,
        "counts": counts,
    }


def same_build(a: dict, b: dict) -> bool:
    return all(a[key] == b[key] for key in ("compiler", "machine", "capability"))


def load(path: Path = COUNTS) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def save(record: dict, path: Path = COUNTS) -> None:
    kept = [old for old in load(path) if not same_build(old, record)]
    text = json.dumps([*kept, record], indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def longer_than(instructions: int, committed: list[dict]) -> set[str]:
    """The calls that take more, by some record: a step takes 90 microseconds."""
    return {
        name for old in committed for name, count in old["counts"].items() if count > instructions
    }


def compare(
    record: dict, committed: list[dict], skipped: Collection[str] = ()
) -> tuple[bool, list[str]]:
    """Whether the record passes, and lines to print.

    More instructions than recorded fail. Fewer pass, with a request to record them. A compiler or
    an instruction set without a record passes too: other code is no regression.
    """
    old = next((old for old in committed if same_build(old, record)), None)
    if old is None:
        name = f"{record['compiler']}, {record['machine']}, {record['capability']}"
        return True, [f"no counts are recorded for {name}: nothing to compare with"]
    passed, said = True, []
    for name, count in record["counts"].items():
        before = old["counts"].get(name)
        if before is None:
            said.append(f"{name}: {count}, not recorded yet")
        elif count > before * (1 + TOLERANCE):
            passed = False
            said.append(f"{name}: {count} instructions, recorded {before} ({count / before:.2f}×)")
        elif count < before * (1 - TOLERANCE):
            said.append(f"{name}: {count} instructions, recorded {before}: fewer, record them")
    missing = sorted(set(old["counts"]) - set(record["counts"]) - {*skipped})
    if missing:
        passed = False
        said.append(f"recorded, but no longer counted: {', '.join(missing)}")
    return passed, said
