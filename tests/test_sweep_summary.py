"""What a sweep says of its runs: warnings of under-fitting, and the table."""

from __future__ import annotations

import statistics

import pytest

from fused_mixup.sweep.summary import table, warnings_of


def records(alpha, train, val):
    names = ("seed", "train_accuracy", "val_accuracy")
    return [
        {"alpha": alpha, "train_loss": 0.1, "val_loss": 0.5, "val_ece": 0.02}
        | dict(zip(names, row, strict=True))
        for row in zip(range(len(train)), train, val, strict=True)
    ]


BASE = records(0.0, [0.90, 0.92, 0.94], [0.80, 0.81, 0.82])


@pytest.mark.parametrize(
    ("train", "val", "warned"),
    [
        ([0.80, 0.81, 0.84], [0.78, 0.80, 0.81], True),  # both worse
        ([0.80, 0.81, 0.84], [0.83, 0.84, 0.85], False),  # validation better: it regularises
        ([0.95, 0.95, 0.95], [0.70, 0.70, 0.70], False),  # fits, but generalises worse
        ([0.80, 1.00, 0.94], [0.80, 0.81, 0.82], False),  # within the noise of the seeds
        ([0.80, 0.81, 0.84], [0.90, 0.75, 0.79], True),  # better within the noise alone
    ],
)
def test_under_fitting_is_said_where_training_and_validation_say_so(train, val, warned):
    lines = warnings_of(BASE + records(4.0, train, val))
    assert len(lines) == warned
    if warned:
        assert lines[0].startswith("warning: alpha 4 under-fits: training accuracy 0.8167 against")
        assert "0.9200 without mixing" in lines[0] and "--epochs" in lines[0]


def test_one_seed_and_a_run_that_is_missing():
    assert warnings_of(BASE[:1] + records(1.0, [0.8], [0.7]))
    assert warnings_of(records(1.0, [0.8], [0.7])) == []  # nothing to compare with
    lost = {**BASE[1], "train_loss": None, "train_accuracy": None, "val_accuracy": None}
    lines = warnings_of([BASE[0], lost, BASE[2], *records(1.0, [0.5] * 3, [0.5] * 3)])
    assert "alpha 0: 1 of 3 runs diverged" in lines[0] and "alpha 1 under-fits" in lines[1]


def test_the_table_has_means_and_deviations():
    lines = table(records(2.0, [0.5], [0.25]) + BASE).splitlines()
    assert lines[0].split() == "alpha runs train accuracy val accuracy val loss val ece".split()
    deviation = statistics.stdev([0.80, 0.81, 0.82])
    assert f"0.8100 ± {deviation:.4f}" in lines[1] and lines[1].split()[:2] == ["0", "3"]
    assert "0.2500 ± 0.0000" in lines[2]
