"""``dist_mode``: partners from the batches of all processes, as OpenMixup takes them."""

from __future__ import annotations

import pytest
from frameworks import run_ranks
from openmixup_ranks import run

from benchmarks import installed_openmixup

pytestmark = pytest.mark.proof


def test_two_ranks():
    if (reason := installed_openmixup.reason_missing()) is not None:
        pytest.skip(reason)
    ours, theirs = (run_ranks(run, theirs) for theirs in (False, True))
    assert ours == theirs
    assert len(ours) == 2 and ours[0] != ours[1]
