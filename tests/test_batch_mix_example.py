"""The training loop of examples/train_batchmix.py, on small images."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn", reason="the examples need scikit-learn; make demo installs it")

from examples import train_batchmix

pytestmark = pytest.mark.usefixtures("one_thread")


def test_resuming_repeats_every_loss(capsys):
    options = ["--epochs", "3", "--off-epoch", "2", "--device", "cpu"]
    losses = train_batchmix.main(options, image_size=24)
    assert losses[2] < losses[1] - 0.1  # the last epoch is not mixed, so its loss is lower
    assert "no mixing" in capsys.readouterr().out.splitlines()[-1]
    assert train_batchmix.main([*options, "--resume-after", "1"], image_size=24) == losses
    assert "resumed from a checkpoint" in capsys.readouterr().out
