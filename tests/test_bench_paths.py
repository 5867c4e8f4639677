"""benchmarks/paths.py: what it says of two paths, and that wrong results fail."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import paths
from benchmarks.paths import DEFAULT, OTHER, PathCase


def found(default, other, differs=""):
    named = zip((DEFAULT, OTHER), (default, other), strict=True)
    shown = {
        path: dict(zip(("low_ms", "median_ms", "high_ms"), v, strict=True)) for path, v in named
    }
    return {"case": "a case", "differs": differs, **shown}


@pytest.mark.parametrize(
    ("default", "other", "differs", "expected"),
    [
        ((1.9, 2.0, 2.1), (0.9, 1.0, 1.1), "", "experimental, 50% faster"),
        ((1.9, 2.0, 2.1), (0.9, 1.0, 1.1), "other bits", "default: results differ, other bits"),
        ((1.9, 2.0, 2.1), (1.7, 1.8, 1.95), "", "default, the other is -10%"),  # not apart
        ((1.999, 2.0, 2.001), (1.97, 1.98, 1.99), "", "default, the other is -1%"),
        ((0.9, 1.0, 1.1), (1.9, 2.0, 2.1), "", "default, the other is +100%"),
    ],
)
def test_the_default_changes_for_a_clear_gain_alone(default, other, differs, expected):
    assert paths.verdict(found(default, other, differs)) == expected


def case(tolerance, change):
    """A call whose result changes by ``change`` where the other path runs."""
    state = {"on": False}

    def make(device):
        def call(x):
            return x + (change if state["on"] else 0.0), torch.arange(3)

        return [torch.ones(4, 2)], call

    return PathCase("a case", make, 2.0, tolerance), lambda on: state.update(on=on)


@pytest.mark.parametrize(
    ("tolerance", "change", "wrong"),
    [(None, 0.0, 0), (None, 1e-7, 1), ((1e-5, 0.0), 1e-6, 0), ((1e-5, 0.0), 1e-3, 1)],
)
def test_results_that_differ_fail(tolerance, change, wrong, monkeypatch, tmp_path, capsys):
    one, flip = case(tolerance, change)
    monkeypatch.setattr(paths, "cases", lambda: iter([one]))
    monkeypatch.setattr(paths, "switch", lambda device: flip)
    file = tmp_path / "paths.json"
    words = ["--device", "cpu", "--seconds", "0.001", "--json", str(file)]
    assert paths.main(words) == wrong
    (row,) = json.loads(file.read_text())["results"]
    assert bool(row["differs"]) == bool(wrong) and row[OTHER]["runs"] >= 5
    assert f"1 cases, {wrong} differ" in capsys.readouterr().out


def test_without_time_cases_are_named(capsys):
    assert paths.main(["--device", "cpu", "--budget", "0"]) == 0
    assert "no time for: loss and gradient" in capsys.readouterr().out


def test_the_switch_is_put_back(monkeypatch):
    calls = []
    monkeypatch.setattr(paths, "switch", lambda device: calls.append)
    one, _ = case(None, 0.0)
    paths.measure(one, "cpu", 0.001)
    assert calls[:4] == [False, True, False, True] and calls[-1] is False
