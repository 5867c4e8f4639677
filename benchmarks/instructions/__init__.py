"""Instructions that the CPU kernels execute: a measure without noise, and a gate on it.

A timing on a shared machine moves by a third from run to run; the number of instructions that a
kernel executes on the same input does not move at all. It says nothing of memory or of stalls, but
a loop that is no longer vectorised, or a check that moved inside, shows at once.

    calls.py      what is counted: the public ops on small inputs, one thread
    stepping.py   counts by single steps (ptrace): no tool, no rights, the built module as it is
    callgrind.py  the same by valgrind's callgrind, where it is installed: minutes, not seconds
    gate.py       compares with counts.json; ``python -m benchmarks.instructions``

What is counted are the instructions inside the compiled module alone: not Python's, not PyTorch's.
"""
