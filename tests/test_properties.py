"""Random shapes, strides, dtypes, plans and targets, for every op on every backend that runs here.

This is a small run of ``properties.py`` with the same cases each time, and a longer one in `make
proofs`; ``make fuzz`` is the large run, with new cases each time.
"""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis")
import properties
from hypothesis import Phase, given, settings

FEW, MANY = 25, 200
SLOW = "cpu-triton"  # the interpreter takes some 20 ms a launch: a tenth of the cases
SLOWEST = ("cross_entropy", "binary_cross_entropy")  # the interpreter takes 10 s a case


def runs() -> list:
    """Each property on each backend with few cases; in `make proofs` with many."""
    found = []
    for backend in properties.backend_parameters():
        for name, prop in ((prop.__name__, prop) for prop in properties.ALL):
            for size, examples in (("few", FEW), ("many", MANY)):
                slowest = backend.values[0] == SLOW and name in SLOWEST
                proof = [pytest.mark.proof] if size == "many" or slowest else []
                marks, label = [*backend.marks, *proof], f"{backend.values[0]}-{name}-{size}"
                found.append(pytest.param(*backend.values, prop, examples, marks=marks, id=label))
    return found


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's NumPy warns of 0 * inf
@pytest.mark.parametrize(("backend", "prop", "examples"), runs())
def test_random_cases(backend, prop, examples):
    with properties.open_backend(backend) as on:
        # Interpreted Triton would take minutes to make a failing case smaller.
        phases = set(Phase) - ({Phase.shrink, Phase.explain} if backend == SLOW else set())
        count = max(examples // 10, 5) if backend == SLOW else examples

        @settings(max_examples=count, derandomize=True, phases=phases)
        @given(properties.ALL[prop])
        def run(case):
            prop(on, case)

        run()
