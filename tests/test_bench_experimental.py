"""benchmarks/experimental.py: what it says of two paths, and that wrong results fail."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import experimental, experimental_cases, rehearsal
from benchmarks.experimental import DEFAULT, OTHER
from benchmarks.experimental_cases import PathCase


def found(default, other, differs=""):
    names = ("low_ms", "median_ms", "high_ms")
    both = {DEFAULT: default, OTHER: other}
    times = {path: dict(zip(names, given, strict=True)) for path, given in both.items()}
    return {"case": "a case", "differs": differs, **times}


@pytest.mark.parametrize(
    ("default", "other", "differs", "expected"),
    [
        ((1.9, 2.0, 2.1), (0.9, 1.0, 1.1), "", "should become the default: 50% faster"),
        ((1.9, 2.0, 2.1), (0.9, 1.0, 1.1), "x", "the default stays: results differ x"),
        ((1.9, 2.0, 2.1), (1.7, 1.8, 1.95), "", "the default stays: the other takes -10%"),
        ((1.999, 2.0, 2.001), (1.97, 1.98, 1.99), "", "the default stays: the other takes -1%"),
        ((0.9, 1.0, 1.1), (1.9, 2.0, 2.1), "", "the default stays: the other takes +100%"),
    ],
)
def test_the_default_changes_for_a_clear_gain_alone(default, other, differs, expected):
    assert experimental.verdict(found(default, other, differs)) == expected


def run(case, flip, monkeypatch, *words):
    monkeypatch.setattr(experimental, "cases", lambda: iter([case]))
    monkeypatch.setattr(experimental, "find_switch", lambda device: (flip, 0))
    return experimental.main(["--device", "cpu", *words])


@pytest.mark.parametrize(
    ("tolerance", "change", "wrong"),
    [(None, 0.0, 0), (None, 1e-6, 1), ((1e-5, 0.0), 1e-6, 0), ((1e-5, 0.0), 1e-3, 1)],
)
def test_results_that_differ_fail(tolerance, change, wrong, monkeypatch, tmp_path, capsys):
    """The second path's result is off by ``change``."""
    state = {"on": False}

    def call(x):
        return lambda z: (1 + 0 * z + (change if state["on"] else 0.0), torch.arange(3))

    case = PathCase("a case", (4, 2), torch.float32, call, tolerance=tolerance)
    file = tmp_path / "experimental.json"
    assert run(case, lambda on: state.update(on=on), monkeypatch, "--json", str(file)) == wrong
    report = json.loads(file.read_text())
    (row,) = report["results"]
    assert bool(row["differs"]) == bool(report["different"]) == bool(wrong)
    assert row[OTHER]["runs"] == experimental.ROUNDS
    assert f"1 timed, {wrong} differ" in capsys.readouterr().out


def test_the_switch_is_off_in_the_end_and_between(monkeypatch):
    calls = []
    case = PathCase("a case", (4, 2), torch.float32, lambda x: lambda z: (z,))
    assert run(case, calls.append, monkeypatch) == 0
    assert calls[:6] == [False, True, False, False, True, False] and calls[-1] is False


def test_without_time_results_are_compared_all_the_same(monkeypatch, capsys):
    case = PathCase("a case", (4, 2), torch.float32, lambda x: lambda z: (z,))
    assert run(case, lambda on: None, monkeypatch, "--seconds", "0") == 0
    assert "1 cases compared, 0 timed, 0 differ" in capsys.readouterr().out


def test_every_case_runs_at_a_small_size(monkeypatch):
    monkeypatch.setenv("FUSED_MIXUP_REHEARSAL", "1")
    assert rehearsal.is_rehearsal()
    names = []
    for case in experimental_cases.cases():
        assert experimental.compare(case, "cpu", lambda on: None) == ""
        names.append(case.about)
    timed = [case.about for case in experimental_cases.cases() if case.timed]
    assert len(timed) == len(set(timed)) >= 20 and len(names) >= 50
