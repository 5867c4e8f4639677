"""Random shapes, strides, dtypes, plans and targets, for every op on every backend that runs here.

A small run of ``properties.py``, of the same cases each time, and a longer one in `make proofs`;
``make fuzz`` is the large one, each time of others.
"""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis")
import properties
from hypothesis import Phase, given, settings

FEW, MANY = 25, 200
SLOW = "cpu-triton"  # interpreted: some 20 ms a launch, so a tenth of the cases


@pytest.mark.parametrize(
    "examples", [FEW, pytest.param(MANY, marks=pytest.mark.proof)], ids=["few", "many"]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy, of 0 * inf
@pytest.mark.parametrize("prop", properties.ALL, ids=lambda prop: prop.__name__)
@pytest.mark.parametrize("backend", properties.backend_parameters())
def test_random_cases(backend, prop, examples):
    with properties.opened(backend) as on:
        # Interpreted Triton would take minutes to make a failing case smaller.
        phases = set(Phase) - ({Phase.shrink, Phase.explain} if backend == SLOW else set())
        count = max(examples // 10, 5) if backend == SLOW else examples

        @settings(max_examples=count, derandomize=True, phases=phases)
        @given(properties.ALL[prop])
        def run(case):
            prop(on, case)

        run()
