"""What the stages of `make gpu` printed or left, turned into verdicts."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gpu_run import FAILED, PASSED, ROOT, SKIPPED, Done, Verdict

sys.path.append(str(ROOT))
from benchmarks.goals import judge


def read_environment(done: list[Done]) -> Verdict:
    report = done[0].output
    chosen = re.search(r"^  mix_ +\S+ +(\S+)", report, re.M)
    compiled = re.search(r"^  _C_cuda +(.*)", report, re.M)
    answers = (re.search(r"^.+?, (\d[\d.]+), P\d", d.output, re.M) for d in done[1:])
    driver = next(filter(None, answers), None)
    detail = f"CUDA tensors: {chosen[1] if chosen else 'no answer'}"
    if chosen and chosen[1] != "native" and compiled:
        detail += f" (native: {compiled[1]})"
    detail += f"; driver {driver[1]}" if driver else ""
    # The queries beside it are there to be kept, not to be judged.
    return Verdict(PASSED if done[0].status == 0 and chosen else FAILED, detail)


# ------------------------------------------------------------------ tests


def lines_of(path: Path) -> Iterable[dict]:
    """The lines of all stages. One may have been cut short, with the machine."""
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(text)


def read_tests(done: list[Done], path: Path, stage: str) -> Verdict:
    """Counts of all processes together, the first failures, and the most frequent skip."""
    outcomes, reasons, failed, ended = Counter(), Counter(), [], 0
    for line in lines_of(path):
        if line.get("stage") != stage:
            continue
        if "ended" in line:
            ended += 1
            continue
        outcomes[line["outcome"]] += 1
        if line["outcome"] == "skipped":
            reasons[line.get("why") or "no reason"] += 1
        elif line["outcome"] == "failed":
            failed.append(line["test"].split("/")[-1])
    passed, skipped, lost = outcomes["passed"], outcomes["skipped"], len(done) - ended
    parts = [f"{len(failed)} failed ({', '.join(failed[:2])})"] if failed else []
    parts += [f"{lost} of {len(done)} processes did not come to their end"] if lost else []
    parts += [f"{passed} passed", f"{skipped} skipped"]
    often = "; most often: {0[0]} ({0[1]})".format(reasons.most_common(1)[0]) if reasons else ""
    detail = ", ".join(parts) + often
    data = {"passed": passed, "failed": failed, "skipped": dict(reasons.most_common(20))}
    if passed == 0 and skipped and not failed and not lost:
        return Verdict(SKIPPED, detail, data)
    # 5: a process whose share held no test.
    good = not failed and not lost and passed > 0 and all(d.status in (0, 5) for d in done)
    return Verdict(PASSED if good else FAILED, detail, data)


def read_calls(done: list[Done]) -> Verdict:
    """What tests/gpu_small.py and tests/smoke.py printed, in all their processes."""
    text = "\n".join(d.output for d in done)
    left_out = sorted(set(re.findall(r"left out: (.*)", text)))
    absent = {line.partition(":")[0] for line in left_out}
    calls = wrong = unfinished = 0
    for d in done:
        counts = re.search(r"(\d+) calls, (\d+) wrong", d.output)
        steps = re.findall(r"^smoke (\w+) \w+: (.*)", d.output, re.M)  # a backend, how it went
        if counts:
            calls, wrong = calls + int(counts[1]), wrong + int(counts[2])
        elif not steps:
            unfinished += d.status != 0
        for backend, how in steps:
            if backend not in absent:  # there it says what gpu_small has said
                calls, wrong = calls + 1, wrong + (not how.startswith("ok"))
    named = re.findall(r"^WRONG (.*)", text, re.M)
    named += re.findall(r"^smoke (\w+ \w+: (?!ok).*)", text, re.M)
    named = [line for line in named if line.partition(" ")[0] not in absent]
    detail = f"{calls} calls, {wrong} wrong"
    detail += f" ({named[0][:120]})" if named else ""
    detail += f"; {unfinished} of {len(done)} processes broke off" if unfinished else ""
    detail += f"; left out: {'; '.join(left_out)}" if left_out else ""
    good = calls > 0 and not wrong and not unfinished
    data = {"calls": calls, "wrong": wrong, "left_out": left_out}
    return Verdict(PASSED if good else FAILED, detail, data)


# ------------------------------------------------------------------ sanitizers


def read_sanitizer(tool: str, done: list[Done]) -> Verdict:
    text = "\n".join(d.output for d in done)
    if "Device not supported" in text:
        return Verdict(SKIPPED, "compute-sanitizer does not support this device or its driver")
    smoke = read_calls(done).data
    if not smoke["calls"] and not smoke["wrong"] and all(d.status == 3 for d in done):
        return Verdict(SKIPPED, f"no backend has kernels to watch: {'; '.join(smoke['left_out'])}")
    pattern = r"ERROR SUMMARY: (\d+) errors?"
    if tool == "racecheck":
        pattern = r"RACECHECK SUMMARY: \d+ hazards?.*?\((\d+) errors?, (\d+) warn"
    found = [re.search(pattern, d.output) for d in done if d.status != 3]
    silent = [d.status for d, f in zip(done, found, strict=False) if f is None]
    if silent:
        return Verdict(FAILED, f"{tool} printed no summary (exit status {silent[0]})", smoke)
    errors = sum(int(f[1]) for f in found)
    detail = f"{errors} {'hazards' if tool == 'racecheck' else 'errors'}"
    if tool == "racecheck":
        detail += f", {sum(int(f[2]) for f in found)} warnings"
    whole = all(re.search(r"\d+ calls, \d+ wrong", d.output) for d in done)
    detail += f" in {smoke['calls']} calls, {smoke['wrong']} wrong" if whole else "; cut short"
    names = [text.partition(":")[0] for text in smoke["left_out"]]
    detail += f"; without {', '.join(names)}" if names else ""
    clean = errors == 0 and whole and not smoke["wrong"]
    good = clean and all(d.status in (0, 3) for d in done)
    return Verdict(PASSED if good else FAILED, detail, {**smoke, "errors": errors})


# ------------------------------------------------------------------ hardware counters

NO_COUNTERS = ("ERR_NVGPUCTRPERM", "LibraryNotLoaded", "Failed to initialize the profiler")
OCCUPANCY = "sm__warps_active.avg.pct_of_peak_sustained_active"
MOST_STALLS = 4


def rows_of_ncu(text: str) -> list[dict[str, str]]:
    """The table of `ncu --csv --page raw`: a row for each kernel, the units taken out."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    rows = list(csv.DictReader(lines[start:])) if start is not None else []
    return [row for row in rows if (row.get("ID") or "").isdigit()]


def number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


def counters(rows: list[dict[str, str]], cases: list[dict]) -> list[dict]:
    """The kernels of each case: a marker's kernel begins the next one."""
    found: list[dict] = []
    for row in rows:
        name = row.get("Kernel Name", "")
        if "spin_kernel" in name:  # torch.cuda._sleep
            if len(found) < len(cases):
                found.append({**cases[len(found)], "kernels": []})
            continue
        if not found:
            continue
        stalls = {
            match[1]: value
            for key, text in row.items()
            if (match := re.search(r"issue_stalled_(\w+?)_per_issue_active", key or ""))
            and "not_issued" not in match[1]
            and (value := number(text))
        }
        worst = sorted(stalls, key=lambda k: -stalls[k])[:MOST_STALLS]
        bytes_moved = [number(row.get(f"dram__bytes_{way}.sum")) for way in ("read", "write")]
        found[-1]["kernels"].append(
            {
                "kernel": name[:160],
                "dram_read": bytes_moved[0],
                "dram_written": bytes_moved[1],
                "nanoseconds": number(row.get("gpu__time_duration.sum")),
                "occupancy_percent": number(row.get(OCCUPANCY)),
                "stalls": {k: stalls[k] for k in worst},
            }
        )
    return found


def read_counters(done: list[Done], table: Path, path: Path) -> Verdict:
    """ncu's table and the program's lines, together in ``path``."""
    text = done[0].output + (table.read_text(errors="replace") if table.exists() else "")
    for reason in NO_COUNTERS:
        if reason in text:
            return Verdict(SKIPPED, f"ncu cannot read this device's counters ({reason})")
    cases = [json.loads(m) for m in re.findall(r"^CASE (\{.*\})$", done[0].output, re.M)]
    found = counters(rows_of_ncu(text), cases)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    parts = []
    for case in found:
        moved = [k[way] or 0.0 for k in case["kernels"] for way in ("dram_read", "dram_written")]
        if case["bytes"] and moved:
            parts.append(f"{case['case']}: {sum(moved) / case['bytes']:.2f} of the counted bytes")
    whole = bool(cases) and len(found) == len(cases) and all(case["kernels"] for case in found)
    detail = f"{len(found)} of {len(cases)} cases; " + "; ".join(parts)
    good = whole and done[0].status == 0
    return Verdict(PASSED if good else FAILED, detail.rstrip("; "))


# ------------------------------------------------------------------ benchmarks


NO_TIME = 3  # exit status of benchmarks.run where its budget was too small for some


def read_benchmarks(done: list[Done], path: Path, until_the_limit: bool = False) -> Verdict:
    """``until_the_limit``: cases that no time was left for are named, and no failure."""
    stopped = until_the_limit and done[0].status in (None, NO_TIME)
    if not path.exists() and stopped:
        return Verdict(SKIPPED, "no time for one case")
    if not path.exists():
        lines = done[0].output.strip().splitlines() or ["no output"]
        return Verdict(FAILED, f"exit status {done[0].status}: {lines[-1]}")
    report = json.loads(path.read_text(encoding="utf-8"))
    detail = f"{len(report['results'])} cases"
    if report["copy_gb_per_s"]:
        detail += f", copy {report['copy_gb_per_s']:.0f} GB/s"
    first = next((r for r in report["results"] if "share_of_floor" in r["providers"]["ours"]), None)
    if first:
        detail += (
            f", {first['case']}: {first['providers']['ours']['share_of_floor']:.0%} of the floor"
        )
    failed, absent = report["failed"], report["not_measured"]
    detail += f"; failed: {', '.join(failed)}" if failed else ""
    if absent and until_the_limit:
        detail += f"; no time for {len(absent)} more"
    elif absent:
        detail += f"; not measured: {', '.join(absent)}"
    good = (done[0].status == 0 or stopped) and not failed and (stopped or not absent)
    data = {"cases": len(report["results"]), "failed": failed, "not_measured": absent}
    return Verdict(PASSED if good else FAILED, detail, data)


def figures(path: Path) -> str:
    """One line for each case: time, share of the floor, ratios, and the goals that go with them."""
    if not path.exists():
        return ""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return ""
    goals: dict[str, list[str]] = {}
    for goal in judge(report):
        if goal["case"] is not None:
            wants = [part["want"] for part in goal["parts"]]
            goals.setdefault(goal["case"], []).append(f"{goal['verdict']}: {', '.join(wants)}")
    lines = []
    for r in report["results"]:
        ours = r["providers"]["ours"]
        parts = [f"{ours['median_ms'] * 1e3:.1f} µs"]
        if "share_of_floor" in ours:
            parts.append(f"floor {ours['share_of_floor']:.2f}")
        parts += [
            f"{name} {figures['median_ms'] / ours['median_ms']:.1f}×"
            for name, figures in r["providers"].items()
            if name != "ours"
        ]
        said = "".join(f" ({text})" for text in goals.get(r["case"], ()))
        lines.append(f"{r['case']}: {', '.join(parts)}{said}")
    return "\n".join(lines)
