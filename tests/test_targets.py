"""MixedTarget and mix_targets: sparse and dense labels of a mixed batch."""

from __future__ import annotations

import pickle
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.nn.functional as F
from cases import FLOATS, pairings

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan
from fused_mixup.arguments import is_host_row


def eager(labels, plan, num_classes, smoothing):
    """The target in float64, from one-hot labels."""
    dense = F.one_hot(labels, num_classes).double().movedim(-1, 1)
    dense = dense * (1 - smoothing) + smoothing / num_classes
    w = plan.weight.double().view(-1, 2, *[1] * (dense.ndim - 1))
    return dense * w[:, 0] + dense[plan.partner.long()] * w[:, 1]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_agrees_with_one_hot(device, dtype):
    for batch_size, inner, num_classes in ((0, (), 3), (1, (), 1), (7, (), 10), (4, (3, 5), 6)):
        labels = torch.randint(0, num_classes, (batch_size, *inner))
        for name, partner in pairings(batch_size):
            for plan in (
                MixPlan.uniform(batch_size, partner, 0.3),
                MixPlan.per_sample(torch.rand(batch_size), partner),
            ):
                for smoothing in (0.0, 0.1):
                    truth = eager(labels, plan, num_classes, smoothing)
                    moved = plan if device == "cpu" else plan.to(device)
                    on_device = labels.to(device)
                    got = fm.mix_targets(on_device, moved, num_classes, smoothing, dtype)
                    assert got.dtype == dtype and got.shape == truth.shape
                    tolerance = torch.finfo(dtype).eps if dtype != torch.float64 else 1e-7
                    assert (
                        (got.cpu().double() - truth).abs().max().item() <= tolerance
                        if (truth.numel())
                        else True
                    ), name
                    target = MixedTarget.from_labels(on_device, moved, num_classes, smoothing)
                    assert torch.equal(target.dense(dtype), got)


def test_float32_equals_timm_line_by_line(device):
    # off = s/K, on = 1-s+off, y·λ + flipped·(1-λ), each step in float32.
    labels = torch.randint(0, 1000, (64,), device=device)
    for lam in torch.rand(20, dtype=torch.float64).tolist():
        off = 0.1 / 1000
        one_hot = torch.full((64, 1000), off, device=device)
        one_hot.scatter_(1, labels[:, None], 1.0 - 0.1 + off)
        expected = one_hot * lam + one_hot.flip(0) * (1.0 - lam)
        got = fm.mix_targets(labels, MixPlan.uniform(64, "flip", lam), 1000, 0.1)
        assert torch.equal(got, expected)


def test_equal_labels_add_their_weights(device):
    labels = torch.tensor([2, 2], device=device)
    got = fm.mix_targets(labels, MixPlan.uniform(2, "flip", 0.25), 4)
    assert got.tolist() == [[0, 0, 1, 0]] * 2


def test_labels_in_any_layout(device):
    labels = torch.randint(0, 9, (6, 4, 5), device=device)
    plan = MixPlan.uniform(6, "roll", 0.3)
    expected = fm.mix_targets(labels, plan, 9)
    view = labels.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(fm.mix_targets(view, plan, 9), expected)


def test_dominant_label():
    labels = torch.tensor([[0], [1], [2], [3]])
    plan = MixPlan.per_sample(torch.tensor([0.9, 0.2, 0.5, 0.0]), "flip")
    target = MixedTarget.from_labels(labels, plan, 4)
    assert target.dominant.tolist() == [[0], [2], [2], [0]]


def test_target_moves_and_pickles():
    labels = torch.arange(4)
    target = MixedTarget.from_labels(labels, MixPlan.uniform(4, "flip", 0.3), 5, 0.1)
    same = pickle.loads(pickle.dumps(target))
    assert torch.equal(same.dense(), target.dense())
    assert target.to("meta").labels.device.type == "meta"
    assert target.to("meta").label_smoothing == 0.1


@pytest.mark.parametrize("large", [False, True])
def test_small_labels_are_sent_as_numbers(large):
    labels = torch.arange(4 * 3000 if large else 4).view(4, -1) % 5
    target = MixedTarget.from_labels(labels, MixPlan.uniform(4, "flip", 0.3), 5, 0.1, 7)
    same = pickle.loads(ForkingPickler.dumps(target))  # as from a data loader's worker
    assert torch.equal(same.dense(), target.dense()) and repr(same) == repr(target)
    assert is_host_row(same.weight) and same.labels_in_range
    assert target.labels.is_shared() == large and not target.weight.is_shared()
    if not large:  # separate, writable memory
        same.labels.fill_(1)
        assert not (target.labels == 1).all()


WITHOUT_NUMPY = """
import pickle, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numpy":
            raise ModuleNotFoundError(name, name="numpy")

sys.meta_path.insert(0, Missing())
from multiprocessing.reduction import ForkingPickler
import torch
import fused_mixup as fm

plan = fm.MixPlan.uniform(4, "flip", 0.3)
x = fm.mix(torch.rand(4, 3, 8, 8), plan)
target = fm.MixedTarget.from_labels(torch.arange(4), plan, 5)
same = pickle.loads(ForkingPickler.dumps(target))
logits = torch.randn(4, 5)
losses = [fm.soft_target_cross_entropy(logits, t) for t in (target, same)]
assert torch.equal(*losses) and "numpy" not in sys.modules
"""


def test_the_package_works_without_numpy():
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_NUMPY]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_labels_that_are_shared_stay_so():
    labels = torch.arange(4).share_memory_()
    target = MixedTarget.from_labels(labels, MixPlan.uniform(4, "flip", 0.3), 5)
    same = pickle.loads(ForkingPickler.dumps(target))
    labels[0] = 3
    assert same.labels[0] == 3


def test_saved_targets_load_where_they_are_wanted(tmp_path):
    target = MixedTarget.from_labels(torch.arange(4), MixPlan.uniform(4, "flip", 0.3), 5)
    torch.save(target, tmp_path / "target.pt")
    same = torch.load(tmp_path / "target.pt", map_location="meta", weights_only=True)
    assert same.labels.device.type == "meta" and same.num_classes == 5


def test_what_is_saved_names_public_paths():
    plan = MixPlan.uniform(4, "flip", 0.3)
    assert b"fused_mixup.plan\nMixPlan\n" in pickle.dumps(plan, protocol=0)
    target = MixedTarget.from_labels(torch.arange(4), plan, 5)
    assert b"fused_mixup.target\nMixedTarget\n" in pickle.dumps(target, protocol=0)


@pytest.mark.gpu
def test_passes_through_the_pinning_of_a_loader(monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory

    target = MixedTarget.from_labels(torch.arange(4), MixPlan.uniform(4, "flip", 0.3), 5, 0.1)
    pinned = []
    if not torch.cuda.is_available():  # these replace functions that need a GPU
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t.clone())
    passed = pin_memory({"target": target})["target"]
    assert torch.equal(passed.dense(), target.dense())
    assert len(pinned) == 3 or passed.labels.is_pinned()


def test_ignored_labels_are_legal_and_drop_out(device):
    plan = MixPlan.uniform(4, "flip", 0.25)
    for ignored in (-100, 2, 9):
        labels = torch.tensor([0, ignored, 1, 3], device=device)
        target = MixedTarget.from_labels(labels, plan, 4, 0.2, ignored)
        moved = pickle.loads(pickle.dumps(target)).to(device)
        assert moved.ignore_index == ignored
        kept = [[0.25, 0.75], [0.0, 0.75], [0.25, 0.0], [0.25, 0.75]]
        pairs = [[0, 3], [0, 1], [1, 0], [3, 0]]
        expected = torch.zeros(4, 4)
        for row, (labels_of_row, weights) in enumerate(zip(pairs, kept, strict=True)):
            for y, w in zip(labels_of_row, weights, strict=True):
                expected[row] += w * (0.8 * F.one_hot(torch.tensor(y), 4) + 0.2 / 4)
        torch.testing.assert_close(target.dense().cpu(), expected)


PLAN = MixPlan.uniform(4, "flip", 0.5)
LABELS = torch.arange(4)
WEIGHT_WITH_GRAD = torch.ones(4, 2, requires_grad=True)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fm.mix_targets(LABELS, PLAN, 3), IndexError, r"labels.*\[0, 3\), got 3"),
        (lambda: fm.mix_targets(LABELS - 1, PLAN, 4), IndexError, "got -1"),
        (lambda: fm.mix_targets(LABELS.int(), PLAN, 4), TypeError, "int64.*use .long"),
        (lambda: fm.mix_targets(LABELS[:3], PLAN, 4), ValueError, "labels: expected shape"),
        (lambda: fm.mix_targets(LABELS, PLAN, 0), ValueError, "num_classes"),
        (lambda: fm.mix_targets(LABELS, PLAN, 4, 1.5), ValueError, "label_smoothing"),
        (lambda: fm.mix_targets(LABELS, PLAN, 4, dtype=torch.int32), TypeError, "dtype"),
        (lambda: fm.mix_targets(LABELS, 0.3, 4), TypeError, "plan"),
        (lambda: MixedTarget.from_labels(LABELS, PLAN, 3), IndexError, "labels"),
        (lambda: MixedTarget.from_labels(LABELS[:2], PLAN, 4), ValueError, "as in plan"),
        (lambda: MixedTarget.from_labels(LABELS.float(), PLAN, 4), TypeError, "int64"),
        (lambda: MixedTarget(LABELS, LABELS[:2], PLAN.weight, 4), ValueError, "partner_labels"),
        (lambda: MixedTarget(LABELS, LABELS, PLAN.weight.half(), 4), TypeError, "weight"),
        (lambda: MixedTarget(LABELS, LABELS.to("meta"), PLAN.weight, 4), ValueError, "on cpu"),
        (lambda: MixedTarget(LABELS, LABELS, PLAN.weight / 0, 4), ValueError, "finite"),
        (lambda: MixedTarget(LABELS, LABELS, WEIGHT_WITH_GRAD, 4), ValueError, "detach"),
        (lambda: MixedTarget.from_labels(LABELS, None, 4), TypeError, "plan"),
        (lambda: MixedTarget.from_labels(LABELS, PLAN, 4).dense(torch.int64), TypeError, "dtype"),
        (lambda: MixedTarget(LABELS, LABELS, PLAN.weight, 4, None), TypeError, "label_smoothing"),
        (lambda: MixedTarget(LABELS, LABELS, PLAN.weight, 4.0), TypeError, "num_classes"),
        (lambda: MixedTarget(LABELS, LABELS, PLAN.weight[:2], 4), ValueError, "weight"),
        (lambda: MixedTarget(LABELS, LABELS + 1, PLAN.weight, 4), IndexError, "labels"),
        (lambda: MixedTarget(LABELS, LABELS, PLAN.weight, 4, -0.1), ValueError, "smoothing"),
        (lambda: MixedTarget(LABELS, LABELS, PLAN.weight, 3, 0.0, 2), IndexError, "got 3"),
        (lambda: MixedTarget(LABELS, LABELS, PLAN.weight, 4, 0.0, None), TypeError, "ignore_index"),
        (lambda: fm.mix_targets(LABELS - 100, PLAN, 4), IndexError, "got -100"),
    ],
)
def test_bad_input(call, error, says):
    with pytest.raises(error, match=says):
        call()
