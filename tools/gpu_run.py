"""Runs stages within a time limit, and leaves what they printed and a summary in a folder.

The stages of `make gpu` stand in gpu_stages.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GRACE = 5.0  # seconds that a process has to end by itself once it is told to
LEAST_SECONDS = 1.0  # with less left a stage is not begun
LEAST_TO_FILL = 20.0  # of a stage that fills the time: below, it would only start up
LOG_BYTES = 120_000  # kept of one stage's output: the first quarter and the end


@dataclass(frozen=True)
class Done:
    """How one command ended. ``status`` is None where it ran out of time."""

    status: int | None
    output: str


PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"


@dataclass(frozen=True)
class Verdict:
    """What a stage's output says. ``data`` goes into summary.json beside it."""

    result: str  # PASSED, FAILED, SKIPPED
    detail: str = ""
    data: dict = field(default_factory=dict)


Reader = Callable[[list[Done]], Verdict]


def by_status(done: list[Done]) -> Verdict:
    bad = [d.status for d in done if d.status != 0]
    return Verdict(FAILED, f"exit status {bad[0]}") if bad else Verdict(PASSED)


@dataclass(frozen=True)
class Stage:
    """Commands that run side by side, and one line in the table.

    ``missing`` is the reason to skip it, None to run it. ``read`` turns what the commands printed
    and left into a verdict; ``limit`` is the most that the stage may take, in seconds. "{seconds}"
    in a command stands for what remains of it for a command that watches the clock itself. A stage
    that ``fills`` takes what time the others have left, and may be without any.
    """

    name: str
    commands: Sequence[Sequence[str]]
    log: str
    limit: float
    missing: str | None = None
    read: Reader = by_status
    env: dict[str, str] = field(default_factory=dict)
    leaves: tuple[str, ...] = ()  # files that the commands write beside the log
    cwd: Path = ROOT
    fills: bool = False


@dataclass
class Result:
    stage: str
    result: str
    seconds: float
    detail: str
    data: dict = field(default_factory=dict)


# ------------------------------------------------------------------ running


class Children:
    """The processes that are running, so that an interrupted run leaves none behind."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a second signal comes while the first is handled
        self._running: set[subprocess.Popen] = set()
        self.stopped = False

    def run(
        self,
        command: Sequence[str],
        env: dict[str, str],
        deadline: float,
        log: Path,
        cwd: Path = ROOT,
    ) -> Done:
        # To a file, not a pipe: what a stopped command had written must not be lost.
        with log.open("wb") as file:
            if self.stopped:  # spares starting it; what counts is asked below
                return Done(None, "")
            try:
                process = subprocess.Popen(
                    list(command),
                    cwd=cwd,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group of its own, which can be stopped as one
                )
            except OSError as error:
                return Done(127, f"cannot run {command[0]}: {error.strerror}")
            with self._lock:
                self._running.add(process)
                late = self.stopped  # then stop_all may have looked before it was there
            if late:
                stop(process)
            try:
                status: int | None = process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                stop(process)
                status = None
            finally:
                with self._lock:
                    self._running.discard(process)
        return Done(status, log.read_text(encoding="utf-8", errors="replace"))

    def stop_all(self) -> None:
        with self._lock:
            self.stopped = True
            running = list(self._running)
        stop(*running)


def stop(*processes: subprocess.Popen) -> None:
    """End the groups of all. The second signal is for children too, which may ignore the first."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)
        until = time.monotonic() + GRACE
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(until - time.monotonic(), 0.0))


def run_stage(stage: Stage, seconds: float, out: Path, children: Children) -> Result:
    """Run one stage within ``seconds`` and add its output to its log in ``out``. Never raises."""
    if stage.missing is not None:
        return Result(stage.name, SKIPPED, 0.0, stage.missing)
    if seconds < (LEAST_TO_FILL if stage.fills else LEAST_SECONDS):
        return Result(stage.name, SKIPPED if stage.fills else FAILED, 0.0, "no time was left")
    print(f"gpu: {stage.name} … (at most {seconds:.0f} s)", flush=True)
    start = time.monotonic()
    try:
        return _run_stage(stage, seconds, out, children, start)
    except Exception as error:  # a full disk, say: the other stages still run
        why = f"cannot be run ({error.__class__.__name__}: {error})"
        return Result(stage.name, FAILED, time.monotonic() - start, why)


def _run_stage(stage: Stage, seconds: float, out: Path, children: Children, start: float) -> Result:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(stage.commands)) as pool:
        logs = [Path(folder, str(i)) for i in range(len(stage.commands))]
        deadline = start + seconds
        own = str(round(seconds * 0.85))  # with room to start up and to write results
        commands = [[word.replace("{seconds}", own) for word in c] for c in stage.commands]
        done = list(
            pool.map(
                lambda command, log: children.run(command, stage.env, deadline, log, stage.cwd),
                commands,
                logs,
            )
        )
    spent = time.monotonic() - start
    append_log(out / stage.log, stage.name, done, (ROOT, stage.cwd))
    try:
        verdict = stage.read(done)
    except Exception as error:  # a crash leaves files cut short, or none
        verdict = Verdict(FAILED, f"no result to read ({error.__class__.__name__}: {error})")
    crash = next((d.status for d in done if d.status is not None and d.status < 0), None)
    why = ""
    if children.stopped:
        why = "interrupted"
    elif any(d.status is None for d in done) and not stage.fills:
        why = f"ran out of time after {spent:.0f} s"
    elif crash is not None:
        why = f"crashed ({signal.Signals(-crash).name})"
    detail = "; ".join(text for text in (why, verdict.detail) if text)
    return Result(stage.name, FAILED if why else verdict.result, spent, detail, verdict.data)


def append_log(path: Path, name: str, done: list[Done], roots: Sequence[Path] = (ROOT,)) -> None:
    with path.open("a", encoding="utf-8") as file:
        for i, d in enumerate(done):
            text = d.output
            for root in roots[::-1]:  # the longer one first: a copy lies inside the checkout
                text = text.replace(str(root), ".")
            most = LOG_BYTES // len(done)
            if len(text) > most:
                text = f"{text[: most // 4]}\n… cut …\n{text[-most * 3 // 4 :]}"
            ended = "ran out of time" if d.status is None else f"exit status {d.status}"
            part = f" {i + 1} of {len(done)}" if len(done) > 1 else ""
            file.write(f"===== {name}{part}: {ended}\n{text.rstrip()}\n\n")


def run_all(
    groups: Sequence[Sequence[Stage]], out: Path, head: dict, deadline: float
) -> list[Result]:
    """Run group after group, the stages of a group side by side, each within its limit.

    The groups come in order of importance: where a set-up took long, the last ones go without.
    ``deadline``: time.monotonic().
    """
    out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    children = Children()

    def interrupt(*_args) -> None:
        children.stop_all()

    main_thread = threading.current_thread() is threading.main_thread()
    before = {s: signal.signal(s, interrupt) for s in SIGNALS} if main_thread else {}
    write_summary(out, head, results, groups)
    try:
        for group in groups:
            left = deadline - time.monotonic()
            with ThreadPoolExecutor(max(len(group), 1)) as pool:
                running = [
                    pool.submit(run_stage, stage, min(stage.limit, left), out, children)
                    for stage in group
                    if not children.stopped
                ]
                for future in running:
                    result = future.result()
                    results.append(result)
                    print(
                        f"gpu: {result.stage}: {result.result} after {result.seconds:.0f} s"
                        + (f", {result.detail}" if result.detail else ""),
                        flush=True,
                    )
                    write_summary(out, head, results, groups)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return results


SIGNALS = (signal.SIGINT, signal.SIGTERM)


# ------------------------------------------------------------------ what is left behind


def write_summary(
    out: Path, head: dict, results: list[Result], groups: Sequence[Sequence[Stage]]
) -> None:
    ran = {r.stage for r in results}
    summary = {
        **head,
        "finished": all(s.name in ran for group in groups for s in group),
        "failed": [r.stage for r in results if r.result == FAILED],
        "stages": [
            {
                "stage": r.stage,
                "result": r.result,
                "seconds": round(r.seconds, 1),
                "detail": r.detail,
                **r.data,
            }
            for r in results
        ],
        "not_run": [s.name for group in groups for s in group if s.name not in ran],
    }
    # Replaced in one step: who looks during a run, or after it broke off, finds a whole file.
    part = out / "summary.json.part"
    part.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(out / "summary.json")


def table(results: Sequence[Result], width: int = 110) -> str:
    rows = [("stage", "result", "time", "detail")]
    rows += [(r.stage, r.result, f"{r.seconds:.0f} s", r.detail) for r in results]
    sizes = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = []
    for row in rows:
        head = "  ".join(cell.ljust(size) for cell, size in zip(row[:3], sizes, strict=True))
        detail = row[3] if len(row[3]) <= width else row[3][: width - 1] + "…"
        lines.append(f"{head}  {detail}".rstrip())
    return "\n".join(lines)


def slug(name: str) -> str:
    """A folder's name of letters, digits and hyphens: "NVIDIA H200" -> "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "gpu"
