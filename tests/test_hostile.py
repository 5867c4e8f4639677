"""Hostile arguments: a short run of ``hostile.py``, and what it must see.

The long run is ``make hostile``, under the address and undefined-behaviour sanitizers.
"""

from __future__ import annotations

import os
import random
import time

import hostile
import hostile_calls
import pytest
import torch
from hostile_values import hostile as spoil
from sanitized import build

FEW, MANY = 1500, 4000


def test_every_public_name_has_a_call():
    assert not hostile_calls.public_names_left_out()


@pytest.mark.parametrize("name", hostile.CALLS)
def test_a_call_that_nobody_spoils_is_taken(name):
    for seed in range(8):
        hostile.CALLS[name](random.Random(seed)).run()


def test_a_seed_and_a_number_name_a_case():
    cases = [[hostile.case(3, i) for i in range(50)] for _ in range(2)]
    assert [(c.name, c.spoiled) for c in cases[0]] == [(c.name, c.spoiled) for c in cases[1]]
    assert len({(c.name, *c.spoiled) for c in cases[0]}) > 40


def test_a_few_cases():
    counts, failures = hostile.batch(0, 0, FEW, None, None)
    assert not failures
    assert counts.total() == FEW and counts["taken"] > 100 and counts["TypeError"] > 200


@pytest.mark.proof
def test_many_cases_under_sanitizers():
    if build.launch("address").why_not:
        pytest.skip(build.launch("address").why_not)
    counts, failures = hostile.batch(1, 0, MANY, "address", None)
    assert not failures and counts.total() == MANY


# ------------------------------------------------------------------ what a run must see


def changes_before_it_raises(x):
    x.add_(1)
    raise ValueError("x: too late")


def changes_what_it_reads(x):
    x.add_(1)


def is_internal(x):
    raise RuntimeError("x INTERNAL ASSERT FAILED at somewhere")


def is_no_error_of_ours(x):
    raise SystemError("returned NULL without setting an exception")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (changes_before_it_raises, "x has changed after ValueError: x: too late"),
        (changes_what_it_reads, "x has changed without being written"),
        (is_internal, "INTERNAL ASSERT"),
        (is_no_error_of_ours, "SystemError"),
    ],
)
def test_a_fault_is_found(function, says):
    call = hostile_calls.Call("planted", function, {"x": torch.zeros(3)})
    with pytest.raises(hostile.Found, match=says):
        hostile.check(call)


DIES = """
import os, sys, time
import hostile, hostile_calls
def planted(draw):
    def function(x):
        if draw.random() < 0.4:
            {how}
    return hostile_calls.Call("planted", function, {{"x": 1}})
hostile.SECONDS = 1
hostile.CALLS = {{"planted": planted}}
sys.exit(hostile.main())
"""


@pytest.mark.parametrize(
    ("how", "says"), [("os.abort()", "exit -6"), ("while True: pass", "too long")]
)
def test_a_case_at_which_a_process_dies_is_named(how, says, monkeypatch, tmp_path, capsys):
    script = tmp_path / "planted.py"
    script.write_text(DIES.format(how=how))
    monkeypatch.setattr(hostile, "PROGRAM", str(script))
    monkeypatch.setattr(
        hostile, "CALLS", {"planted": lambda draw: hostile_calls.Call("planted", print, {"x": 1})}
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hostile.HERE), str(hostile.HERE.parent)]))
    started = time.monotonic()
    counts, failures = hostile.batch(0, 0, 3, None, None)
    assert counts["died"] == len(failures) >= 1
    assert all(f.startswith("FAILED ") and says in f for f in failures), failures
    assert time.monotonic() - started < 300


def test_values_beyond_31_bits_need_no_memory():
    draw = random.Random(0)
    made = [spoil(torch.zeros(4, 3), draw) for _ in range(300)]
    large = [t for way, t in made if way == "beyond_31_bits"]
    assert large and all(t.numel() > 2**31 and t.untyped_storage().nbytes() < 2**10 for t in large)
