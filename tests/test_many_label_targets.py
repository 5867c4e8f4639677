"""MixedTarget with more than two labels a row as a batch of labels."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.nn.functional as F
from many_labels import CLASSES, columns, one_hot, rows

from fused_mixup import MixedTarget


def test_as_a_batch_of_labels():
    target = rows(7, 4, (3,), smoothing=0.1)
    torch.testing.assert_close(target.dense(torch.float64), one_hot(target))
    assert target.num_labels == 4 and "num_labels=4" in repr(target)
    labels, weight, _ = columns(target)
    for i in range(7):
        assert torch.equal(target.dominant[i], labels[i, weight[i, :, 0].argmax()])
    part = target[2:5]
    assert torch.equal(part.dense(), target.dense()[2:5])
    assert torch.equal(torch.cat([t.dense() for t in target.chunk(3)]), target.dense())
    for copy in (
        pickle.loads(pickle.dumps(target)),
        pickle.loads(ForkingPickler.dumps(target)),
        target.clone(),
        target.to("cpu"),
    ):
        assert copy == target
    assert target != rows(7, 4, (3,))


def test_saved(tmp_path):
    torch.save(target := rows(), tmp_path / "target.pt")
    assert torch.load(tmp_path / "target.pt", weights_only=True) == target


def test_of_one_and_of_two_labels():
    labels, weight = torch.randint(0, CLASSES, (5, 2)), torch.rand(5, 2)
    two = MixedTarget.of_labels(labels, weight, CLASSES)
    assert two == MixedTarget(labels[:, 0], labels[:, 1], weight, CLASSES)
    one = MixedTarget.of_labels(labels[:, :1], weight[:, :1], CLASSES)
    assert one.num_labels == 2
    assert torch.equal(one.dense(), F.one_hot(labels[:, 0], CLASSES) * weight[:, :1])


@pytest.mark.parametrize(
    ("labels", "weight", "match"),
    [
        (
            torch.zeros(3, dtype=torch.int64),
            torch.ones(3, 1),
            r"labels: expected shape \[B, k, …\]",
        ),
        (
            torch.zeros(3, 4, dtype=torch.int64),
            torch.ones(3, 2),
            r"weight: expected shape \[3, 4\]",
        ),
        (torch.zeros(3, 4, dtype=torch.int32), torch.ones(3, 4), "labels: expected an int64"),
        (torch.full((3, 4), 9), torch.ones(3, 4), "labels: expected class indices"),
        (torch.zeros(3, 4, dtype=torch.int64), torch.full((3, 4), torch.nan), "weight: .*finite"),
    ],
)
def test_bad_labels(labels, weight, match):
    with pytest.raises((TypeError, ValueError, IndexError), match=match):
        MixedTarget.of_labels(labels, weight, CLASSES)
