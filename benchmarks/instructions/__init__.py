"""Counts the instructions that the CPU kernels execute, and fails where a count grows.

A timing on a shared machine varies by a third from run to run; the number of instructions that a
kernel executes on the same input does not vary at all. It says nothing about memory or stalls, but
it shows at once that a loop is no longer vectorised, or that a check has moved into it.

    calls.py      the calls that are counted: public ops on small inputs, one thread
    stepping.py   counts by single steps (ptrace); needs no tool and no rights
    callgrind.py  counts with valgrind's callgrind; takes minutes, not seconds
    gate.py       compares with counts.json; ``python -m benchmarks.instructions``

Only instructions inside the compiled module count: not Python's, not PyTorch's.
"""

SKIPPED = "FUSED_MIXUP_CALLS_SKIPPED"  # a JSON list of names of calls that are not counted
