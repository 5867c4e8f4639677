"""Random shapes, strides, dtypes, plans and targets, for every op on every backend that runs here.

A small run of ``properties.py``, of the same cases each time; ``make fuzz`` is the large one, each
time of others.
"""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis")
import properties
from hypothesis import Phase, given, settings

# Interpreted Triton takes some 20 ms a launch.
EXAMPLES = {"cpu-triton": 10}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy, of 0 * inf
@pytest.mark.parametrize("prop", properties.ALL, ids=lambda prop: prop.__name__)
@pytest.mark.parametrize("backend", properties.backend_parameters())
def test_random_cases(backend, prop):
    with properties.opened(backend) as on:
        # Interpreted Triton would take minutes to make a failing case smaller.
        phases = set(Phase) - ({Phase.shrink, Phase.explain} if backend in EXAMPLES else set())

        @settings(max_examples=EXAMPLES.get(backend, 100), derandomize=True, phases=phases)
        @given(properties.ALL[prop])
        def run(case):
            prop(on, case)

        run()
