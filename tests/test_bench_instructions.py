"""The gate on instruction counts, and the ways of counting."""

from __future__ import annotations

import json

import pytest

from benchmarks.instructions import callgrind, gate, stepping
from fused_mixup import backends

RECORD = {
    "compiler": "GCC: (x) 12.2.0",
    "machine": "x86_64",
    "capability": "avx2",
    "tool": "stepping",
    "counts": {"flip": 1000, "loss": 2000},
}


def counted(**counts: int) -> dict:
    return {**RECORD, "counts": {**RECORD["counts"], **counts}}


@pytest.mark.parametrize(
    ("record", "passed", "says"),
    [
        (RECORD, True, ""),
        (counted(flip=1020), True, ""),
        (counted(flip=1050), False, "flip: 1050 instructions, recorded 1000 (1.05×)"),
        (counted(loss=1500), True, "fewer, record them"),
        (counted(new=7), True, "new: 7, not recorded yet"),
        ({**RECORD, "counts": {"flip": 1000}}, False, "no longer counted: loss"),
        ({**counted(flip=9999), "compiler": "clang version 18"}, True, "nothing to compare with"),
        ({**counted(flip=9999), "capability": "avx512"}, True, "nothing to compare with"),
    ],
)
def test_what_the_gate_lets_pass(record, passed, says):
    got, said = gate.compare(record, [RECORD])
    assert got == passed
    assert says in "\n".join(said) and bool(said) == bool(says)


def test_records_of_other_builds_are_kept(tmp_path):
    path = tmp_path / "counts.json"
    gate.save(RECORD, path)
    gate.save({**RECORD, "compiler": "clang"}, path)
    gate.save(counted(flip=7), path)
    kept = json.loads(path.read_text())
    assert [r["compiler"] for r in kept] == ["clang", RECORD["compiler"]]
    assert kept[1]["counts"]["flip"] == 7


def test_compilers_are_read_from_the_module(tmp_path):
    path = tmp_path / "m.so"
    path.write_bytes(b"\x7fELF\0GCC: (Debian 12.2.0-14+deb12u1) 12.2.0\0rest")
    assert gate.compiler(path) == "GCC: (Debian 12.2.0-14+deb12u1) 12.2.0"
    path.write_bytes(b"\x7fELF\0")
    assert gate.compiler(path) == "unknown"


def test_callgrind_counts_the_module_alone():
    dump = """events: Ir
ob=(1) /lib/python3.11
fn=(1) main
16 100
cob=(2) /x/fused_mixup/_C.abi3.so
cfn=(2) mix
calls=1 0
16 5000
ob=(2)
fn=(2)
+3 40
* 2
cob=(1)
cfn=(3) malloc
calls=2 0
-1 900
-2 8
ob=(1)
fn=(3)
* 900
"""
    assert callgrind.module_instructions(dump) == 50


def test_calls_that_take_long_are_known_from_the_records():
    assert gate.longer_than(1500, [RECORD]) == {"loss"}
    assert gate.longer_than(1500, [RECORD, counted(flip=1501)]) == {"flip", "loss"}
    short = {**RECORD, "counts": {"flip": 1000}}
    assert gate.compare(short, [RECORD], {"loss"}) == (True, [])


def count_and_compare(skipped=()):
    why = backends.reason_unavailable("native", "CPU") or stepping.why_not()
    if why is not None:
        pytest.skip(f"nothing to count: {why}")
    record = gate.measure("stepping", skipped=skipped)
    assert not record["counts"].keys() & {*skipped}
    assert all(count > 100 for count in record["counts"].values())
    passed, said = gate.compare(record, gate.load(), skipped)
    assert passed, "\n".join(said)


def test_short_calls_execute_no_more_instructions_than_recorded():
    count_and_compare(gate.longer_than(21_000, gate.load()))


@pytest.mark.proof
def test_kernels_execute_no_more_instructions_than_recorded():
    count_and_compare()
