"""Every op from 16 Python threads at once gives what it gives in one thread."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from comparing import same_bits
from smoke import call, op_inputs

from fused_mixup import ops

THREADS, ROUNDS = 16, 6
CALLS = op_inputs()


@pytest.fixture
def many_switches():
    """Threads take turns a thousand times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("name", CALLS)
def test_an_op_in_many_threads(name, many_switches, one_thread):
    op = ops.default_op(name)
    wanted = [call(op, name, arguments) for arguments in CALLS[name]]
    ready = threading.Barrier(THREADS)

    def run(_) -> bool:
        ready.wait(60)
        return all(
            all(map(same_bits, call(op, name, arguments), want))
            for _ in range(ROUNDS)
            for arguments, want in zip(CALLS[name], wanted, strict=True)
        )

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(run, range(THREADS)))


def test_all_ops_side_by_side(many_switches, one_thread):
    """Each thread begins with another op, so that different ops run together."""
    wanted = {n: [call(ops.default_op(n), n, a) for a in calls] for n, calls in CALLS.items()}
    names = list(CALLS)

    def run(first: int) -> list[str]:
        wrong = []
        for name in names[first:] + names[:first]:
            for arguments, want in zip(CALLS[name], wanted[name], strict=True):
                got = call(ops.default_op(name), name, arguments)
                wrong += [] if all(map(same_bits, got, want)) else [name]
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        assert not any(pool.map(run, range(0, 2 * THREADS, 2)))
