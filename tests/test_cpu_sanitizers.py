"""The CPU kernels under sanitizers, on each instruction set, in separate processes.

tests/sanitized/build.py builds the module, tests/sanitized/grid.py runs every op against the
reference. FUSED_MIXUP_GRID=full takes the whole grid, and ThreadSanitizer for the baseline too.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from native_build import compiler
from sanitized import build

from fused_mixup import ops

GRID = str(build.HERE / "grid.py")
FULL = os.environ.get("FUSED_MIXUP_GRID") == "full"
CAPABILITY = torch.backends.cpu.get_cpu_capability()  # "DEFAULT", "AVX2", "AVX512"
HAS_AVX2 = "AVX" in CAPABILITY
X86 = os.uname().machine == "x86_64"

# Kind of build, instruction set. Races are in the walks, which are the same for each set.
RUNS = [("address", "avx512"), ("address", "avx2"), ("address", "baseline"), ("thread", "")]
RUNS += [("avx512", "avx512")]
RUNS += [("thread", "baseline")] if FULL else []

# The call in the process, given an array p of 64 floats; the text of the report.
PLANTED = {
    ("address", "read past a tensor"): ("c.planted_read(p, i64(64))", "heap-buffer-overflow"),
    ("address", "write before a tensor"): ("c.planted_write(p, i64(-1))", "heap-buffer-overflow"),
    ("address", "signed overflow"): (
        "c.planted_signed_overflow(2**31 - 1, 1)",
        "runtime error: signed integer overflow",
    ),
    ("address", "float cast"): (
        "c.planted_float_cast(ctypes.c_float(1e20))",
        "runtime error: 1e+20 is outside the range",
    ),
    ("address", "shift"): ("c.planted_shift(1, 40)", "runtime error: shift exponent 40"),
    ("address", "vector index"): ("c.planted_vector_index(i64(4))", "Assertion '__n < this->size"),
    ("thread", "race"): ("c.planted_race(p)", "ThreadSanitizer: data race"),
}
NOTHING = "c.planted_no_race(p); c.planted_read(p, i64(63)); c.planted_signed_overflow(1, 2)"
# Each call runs in a fork, so that PyTorch loads once; the report follows its line on stderr.
CALLS = """
import ctypes, os, sys, torch
from fused_mixup import _C
c, i64 = ctypes.CDLL(_C.__file__), ctypes.c_int64
print(_C.__file__, flush=True)
for call in sys.argv[1:]:
    print("CALL", call, file=sys.stderr, flush=True)
    if os.fork() == 0:
        x = torch.zeros(64)
        p = ctypes.c_void_p(x.data_ptr())
        exec(call)
        os._exit(0)
    print("ENDED", os.waitstatus_to_exitcode(os.wait()[1]), file=sys.stderr, flush=True)
"""


def why_not(kind: str, instruction_set: str = "") -> str | None:
    if kind == "avx512" and CAPABILITY != "AVX512":
        return "this CPU has no AVX-512; its source runs in the address build, on stand-ins"
    if instruction_set == "avx2" and not HAS_AVX2:
        return "this CPU has no AVX2"
    if kind == "address" and not X86:
        return "the choice among instruction sets that this build is about exists on x86-64 only"
    return build.launch(kind).why_not


class Jobs:
    """Builds and runs in parallel; each run starts when its build is ready."""

    def __init__(self, size: int) -> None:
        self.pool = ThreadPoolExecutor(size)
        # A build waits for its objects, which use the pool, so the wait must not occupy it.
        self.waiting = ThreadPoolExecutor(len(build.KINDS))
        kinds = [k for k in dict.fromkeys(kind for kind, _ in RUNS) if why_not(k) is None]
        self.started = {kind: self.waiting.submit(self._start, kind) for kind in kinds}

    def _start(self, kind: str) -> tuple[Path, dict[str, Future]]:
        """The module's folder, and the grid's runs with it by instruction set."""
        folder = build.module(kind, self.pool)
        return folder, {
            instruction_set: self.pool.submit(
                build.run, kind, folder, [GRID], FUSED_MIXUP_CPU=instruction_set
            )
            for k, instruction_set in RUNS
            if k == kind and why_not(k, instruction_set) is None
        }

    def folder(self, kind: str) -> Path:
        return self.started[kind].result()[0]

    def grid(self, kind: str, instruction_set: str):
        return self.started[kind].result()[1][instruction_set].result()

    def end(self) -> None:
        for pool in (self.waiting, self.pool):
            pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def jobs():
    made = Jobs(int(os.environ.get("MAX_JOBS") or min(os.cpu_count() or 1, 8)))
    yield made
    made.end()


@pytest.fixture(scope="module")
def planted(jobs):
    """kind -> (file of the module, call -> (exit status, report))"""

    @functools.cache
    def run(kind):
        calls = [NOTHING, *(call for (k, _), (call, _) in PLANTED.items() if k == kind)]
        done = build.run(kind, jobs.folder(kind), ["-c", CALLS, *calls])
        assert done.returncode == 0, done.stderr
        parts = re.findall(r"^CALL (.*?)\n(.*?)^ENDED (\S+)$", done.stderr, re.S | re.M)
        return Path(done.stdout.strip()), {c: (int(code), text) for c, text, code in parts}

    return run


@pytest.mark.proof
@pytest.mark.parametrize(("kind", "name"), PLANTED, ids=str)
def test_a_planted_bug_ends_the_process(planted, kind, name):
    if why_not(kind):
        pytest.skip(why_not(kind))
    call, report = PLANTED[kind, name]
    code, text = planted(kind)[1][call]
    assert code != 0 and report in text, text


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["address", "thread"])
def test_no_bug_no_report(jobs, planted, kind):
    if why_not(kind):
        pytest.skip(why_not(kind))
    module, ended = planted(kind)
    assert module.is_relative_to(jobs.folder(kind))
    assert ended[NOTHING] == (0, "")


@pytest.mark.proof
@pytest.mark.parametrize(("kind", "instruction_set"), RUNS, ids=str)
def test_every_op(jobs, kind, instruction_set):
    if why_not(kind, instruction_set):
        pytest.skip(why_not(kind, instruction_set))
    done = jobs.grid(kind, instruction_set)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["on"] == (instruction_set or result["on"])
    assert Path(result["module"]).is_relative_to(jobs.folder(kind))
    assert result["compared"].keys() == ops.SCHEMAS.keys()
    assert min(result["compared"].values()) > 200, result
    if kind == "thread":  # through the threads that the sanitizer sees
        assert result["split"] > 1000
    assert "Sanitizer" not in done.stderr, done.stderr


@pytest.fixture
def no_work(monkeypatch):
    """Builds and runs take no time; every one of RUNS is possible."""
    monkeypatch.setitem(globals(), "why_not", lambda *_: None)
    monkeypatch.setattr(build, "module", lambda kind, pool: Path(kind))
    monkeypatch.setattr(
        build, "run", lambda kind, folder, _, FUSED_MIXUP_CPU: (kind, folder, FUSED_MIXUP_CPU)
    )


def test_each_run_can_be_asked_for_as_soon_as_its_build_is_ready(no_work):
    for _ in range(200):  # threads: a race does not fail every time
        made = Jobs(2)
        for kind, instruction_set in RUNS:
            assert made.folder(kind) == Path(kind)
            assert made.grid(kind, instruction_set) == (kind, Path(kind), instruction_set)
        made.end()


def test_what_goes_wrong_in_a_build_or_run_reaches_the_test(no_work, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("does not compile")

    for name in ("run", "module"):
        monkeypatch.setattr(build, name, fail)
        made = Jobs(2)
        with pytest.raises(RuntimeError, match="does not compile"):
            made.grid(*RUNS[0])
        made.end()


# ------------------------------------------------------------------ the AVX-512 stand-ins


@pytest.fixture(scope="module")
def instructions():
    if not X86 or compiler() is None:
        pytest.skip("comparing with the CPU's instructions needs x86-64 and a C++ compiler")
    return ctypes.CDLL(str(build.stand_ins()))


def call(function, *inputs):
    """Call f(a, b, c, out) on arrays of 64-byte vectors; return the vectors that it writes."""
    inputs = [np.ascontiguousarray(a).view(np.uint8).reshape(-1, 64) for a in inputs]
    inputs += [inputs[0]] * (3 - len(inputs))
    out = np.zeros_like(inputs[0])
    for i in range(len(out)):
        function(*(ctypes.c_void_p(a[i].ctypes.data) for a in (*inputs, out)))
    return out


def random_bits(dtype, count=3):
    """Operands of random bits (all exponents, NaNs), with special values against each other."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    special = [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, -np.nan, info.tiny, info.max, info.min]
    special += [info.smallest_subnormal, 65504, 65519.996, 65520, 2**-24, 2**-25, 2**-14, 0.5, 1.5]
    special += [2.5, 255.5, 2.0**31, -(2.0**31), 2147483520.0, 1 + info.eps, 1 - info.eps]
    with np.errstate(over="ignore"):
        special = np.array(special, dtype)
    pairs = np.array([(a, b, c) for a in special for b in special for c in special[:9]])
    lanes = 64 // np.dtype(dtype).itemsize
    random = rng.integers(0, 256, (count, 3000, 64), np.uint8).view(dtype)
    # Operands of similar size, so that sums cancel and fused products differ from rounded ones.
    usual = rng.standard_normal((count, 3000, lanes)).astype(dtype)
    pairs = np.resize(pairs.T, (3, -(-pairs.shape[0] // lanes) * lanes)).reshape(3, -1, lanes)
    return [np.concatenate(parts) for parts in zip(random, usual, pairs, strict=True)]


def halfway(dtype):
    """Every half as a float32, and the points midway between neighbours and beside them."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    bits = halves.view(np.uint32)
    near = np.concatenate(
        [bits + np.uint32(d) for d in (0, 1, 2**32 - 1, 0xFFF, 0x1000, 0x1001, 0x800)]
    )
    denormal = np.arange(-4100, 4100, dtype=np.float32) * np.float32(2**-26)
    return np.concatenate([near.astype(np.uint32), np.resize(denormal, 8208).view(np.uint32)])


@pytest.mark.parametrize(
    "name",
    "max_ps min_ps max_pd fmadd_ps fmadd_pd sqrt_ps mul_epu32 cvtph_ps cvtps_ph "
    "cvtps_epi32 cvtepi32_ps cvtepu16_epi32 cvtepu8_epi32 slli_epi32 unpacklo_epi8 unpackhi_epi8 "
    "unpacklo_epi16 unpackhi_epi16 packs_epi32 packus_epi16 permutevar_ps blend_by_sign "
    "blend_by_nan".split(),
)
def test_a_stand_in_equals_the_instruction(instructions, name):
    if not HAS_AVX2:
        pytest.skip("this CPU has no AVX2 to compare with")
    dtype = np.float64 if name.endswith("pd") else np.float32
    inputs = random_bits(dtype)
    if name == "cvtps_ph":
        inputs = [np.concatenate([inputs[0].reshape(-1), halfway(dtype).view(np.float32)])]
    if name == "cvtph_ps":  # 32 bytes of each 64 are read
        inputs = [np.arange(2**16, dtype=np.uint16).reshape(-1, 16).repeat(2, 0).reshape(-1, 32)]
    got = call(getattr(instructions, f"stand_in_{name}"), *inputs)
    expected = call(getattr(instructions, f"real_{name}"), *inputs)
    if name.startswith("fmadd"):  # no rule says which of three NaNs the result is
        got, expected = (
            np.where(np.isnan(a), 0, a) for a in (got.view(dtype), expected.view(dtype))
        )
        got, expected = got.view(np.uint8), expected.view(np.uint8)
    wrong = np.flatnonzero((got != expected).any(1))
    assert not len(wrong), [a.reshape(len(got), -1)[wrong[0]] for a in inputs]


def test_narrowing_stand_ins_do_as_documented(instructions):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2**32, (5000, 16), np.uint32)
    a[::2] >>= rng.integers(0, 32, (2500, 16), np.uint32)
    a[0] = [0, 1, 254, 255, 256, 257, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, *range(5)]
    got = call(instructions.stand_in_cvtepi32_epi16, a)[:, :32].view(np.uint16)
    assert (got == a.astype(np.uint16)).all()
    got = call(instructions.stand_in_cvtusepi32_epi8, a)[:, :16]
    assert (got == np.minimum(a, 255)).all()


def test_the_stand_in_of_a_test_does_as_documented(instructions):
    rng = np.random.default_rng(0)
    a, b = (np.left_shift(np.uint64(1), rng.integers(0, 64, (2000, 8), np.uint64)) for _ in "ab")
    b[::2] = a[::2] | b[::2]
    got = call(instructions.stand_in_test_epi64, a, b)[:, 0]
    expected = (((a & b) != 0) << np.arange(8)).sum(1)
    assert (got == expected).all() and 0 < (expected == 255).sum() < 2000
