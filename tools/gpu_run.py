"""Runs stages one after another under a deadline, and writes a log and a summary.

tools/gpu.py defines the stages.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GRACE = 10.0  # seconds in which an interrupted command may end by itself
LEAST = 1.0  # with fewer seconds left a stage is not started
LEAST_TO_FILL = 20.0  # a stage that fills the time needs more than its start-up
LOG, LOG_BYTES = "stages.log", 1_000_000  # a longer log loses its middle
SUMMARY = "summary.json"
PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"
NO_TIME = 3  # exit status of benchmarks.run where its budget was too small for some cases


@dataclass(frozen=True)
class Stage:
    """Commands that run side by side, and one line in the summary.

    "{seconds}" in a command becomes the seconds it has, for one that watches the clock itself.
    """

    name: str
    commands: Sequence[Sequence[str]]
    limit: float  # seconds
    missing: str = ""  # why the stage is skipped
    unsupported: str = ""  # a pattern: with such output the stage is skipped
    leaf: str = ""  # a file that the commands write, in the log's folder
    fills: bool = False  # takes the time that is left, and may be stopped
    shown: bool = False  # its output goes to the terminal too
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = ROOT


@dataclass(frozen=True)
class Result:
    result: str
    detail: str = ""
    seconds: float = 0.0


def stop(processes: Sequence[subprocess.Popen]) -> None:
    """Interrupts each, gives it time to report, then kills it with all its children."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)  # not to its children: pytest waits for them
    until = time.monotonic() + GRACE
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(until - time.monotonic(), 0.0))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(text: str) -> str:
    return next((line.strip("= ") for line in reversed(text.splitlines()) if line.strip("= ")), "")


class Run:
    """The stages of one run, with their results so far."""

    def __init__(self, out: Path, head: dict, earlier: Mapping[str, dict]) -> None:
        self.out, self.head = out, head
        self.known = dict(earlier)  # results by stage, with those of an earlier run that continues
        self.interrupted = False

    def run_all(self, stages: Sequence[Stage], deadline: float) -> dict[str, Result]:
        """Runs each stage within its limit and until ``deadline``, a time.monotonic()."""
        results: dict[str, Result] = {}
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {s: signal.signal(s, self._interrupt) for s in signals}
        try:
            for k, stage in enumerate(stages):
                self.save([s.name for s in stages[k:]])
                if self.interrupted:
                    return results
                seconds = min(stage.limit, deadline - time.monotonic())
                result = results[stage.name] = self.run_one(stage, seconds)
                self.known[stage.name] = asdict(result)
                print(f"gpu: {line(stage.name, result)}", flush=True)
            self.save([])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return results

    def _interrupt(self, *_args: object) -> None:
        self.interrupted = True  # the waiting loop reads it, so no stage is half started

    def run_one(self, stage: Stage, seconds: float) -> Result:
        if stage.missing:
            return Result(SKIPPED, stage.missing)
        if seconds < (LEAST_TO_FILL if stage.fills else LEAST):
            return Result(SKIPPED if stage.fills else FAILED, "no time was left")
        print(f"gpu: {stage.name} … (at most {seconds:.0f} s)", flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            processes: list[subprocess.Popen] = []
            # Files, not pipes, keep the output of a stopped command.
            logs = [Path(folder, str(i)) for i in range(len(stage.commands))]
            try:
                for command, log in zip(stage.commands, logs, strict=True):
                    processes.append(start(stage, command, seconds, log))
                while self._any_running(processes) and time.monotonic() - started < seconds:
                    time.sleep(0.05)
                late = [p for p in processes if p.poll() is None]
                stop(late)
                statuses = [None if p in late else p.returncode for p in processes]
                texts = self._keep(stage, statuses, logs)
            except OSError as error:  # no such program, a full disk: the other stages still run
                stop([p for p in processes if p.poll() is None])
                return Result(FAILED, f"cannot be run: {error}")
        spent = round(time.monotonic() - started, 1)
        result, detail = self._judge(stage, statuses, texts, spent)
        return Result(result, detail, spent)

    def _any_running(self, processes: Sequence[subprocess.Popen]) -> bool:
        return not self.interrupted and any(p.poll() is None for p in processes)

    def _keep(self, stage: Stage, statuses: list[int | None], logs: Sequence[Path]) -> list[str]:
        """Adds the output to the log, with this machine's folders replaced."""
        folders = (os.path.relpath(self.out, stage.cwd), self.out, stage.cwd, ROOT)

        def plain(text: str) -> str:
            for folder in folders:
                text = text.replace(f"{folder}/", "./")
            return text

        texts = []
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            for log, status, command in zip(logs, statuses, stage.commands, strict=True):
                text = plain(log.read_text(encoding="utf-8", errors="replace"))
                if len(text) > LOG_BYTES:
                    text = f"{text[: LOG_BYTES // 4]}\n… shortened …\n{text[-LOG_BYTES * 3 // 4 :]}"
                ended = "stopped" if status is None else f"exit status {status}"
                words = plain(" ".join(word for word in command if "\n" not in word))
                file.write(f"===== {stage.name}: {ended}: {words}\n{text.rstrip()}\n\n")
                if stage.shown:
                    print(text.rstrip(), flush=True)
                texts.append(text)
        return texts

    def _judge(
        self, stage: Stage, statuses: list[int | None], texts: list[str], spent: float
    ) -> tuple[str, str]:
        said = "; ".join(dict.fromkeys(filter(None, map(last_line, texts))))
        good = (0, NO_TIME, None) if stage.fills else (0,)
        bad = next((s for s in statuses if s not in good), 0)
        unsupported = stage.unsupported and re.search(stage.unsupported, "\n".join(texts), re.M)
        if self.interrupted and None in statuses:
            return FAILED, f"interrupted; {said}"
        if bad is None:
            return FAILED, f"ran out of time after {spent:.0f} s; {said}"
        if unsupported:
            return SKIPPED, unsupported[0].strip("= ")
        if bad:
            return FAILED, f"exit status {bad}; {said}"
        if stage.leaf and not (self.out / stage.leaf).exists():
            return (SKIPPED if stage.fills else FAILED), f"{stage.leaf} was not written; {said}"
        return PASSED, said

    def save(self, not_run: Sequence[str]) -> None:
        failed = [name for name, known in self.known.items() if known["result"] == FAILED]
        report = {**self.head, "finished": not not_run, "failed": failed, "stages": self.known}
        report["not_run"] = list(not_run)
        # The file is replaced in one step, so that a reader never sees half a file.
        part = self.out / f"{SUMMARY}.part"
        part.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(self.out / SUMMARY)


def start(stage: Stage, command: Sequence[str], seconds: float, log: Path) -> subprocess.Popen:
    own = str(round(seconds * 0.85))  # with room to start up and to write results
    with log.open("wb") as file:
        return subprocess.Popen(
            [word.replace("{seconds}", own) for word in command],
            cwd=stage.cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **stage.env},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, which can be stopped as one
        )


def line(name: str, result: Result) -> str:
    return f"{name:12} {result.result:8} {result.seconds:4.0f} s  {result.detail[:120]}".rstrip()
