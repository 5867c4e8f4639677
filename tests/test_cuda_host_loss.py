"""The loss kernels of csrc/cuda, run on the host (tests/host_cuda), against float64."""

from __future__ import annotations

import pytest
import torch
from comparing import same_bits
from host_cuda import build
from host_cuda import ops as host
from host_cuda.loss_grid import CLASSES, cases, check, check_values

from fused_mixup import reference

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", host.DTYPES[:4], ids=str)
def test_loss(dtype, classes):
    generator = torch.Generator().manual_seed(classes)
    for case in cases():
        check(dtype, classes, case, generator)


@pytest.mark.parametrize("classes", [5, 1000, 5000])
@pytest.mark.parametrize("dtype", host.DTYPES[:4], ids=str)
def test_loss_of_hard_logits(dtype, classes):
    """−inf where no label stands, whole stretches of it, and logits far from zero."""
    generator = torch.Generator().manual_seed(4)
    logits = (torch.randn(6, classes, generator=generator) * 3).to(dtype)
    labels = torch.randint(0, 2, (6,), generator=generator)
    weight = torch.tensor([[1.0, 0.0], [0.25, 0.75]]).repeat(3, 1)
    target = torch.zeros(6, classes).to(dtype)
    target[:, :2] = 0.5
    masked = logits.clone()
    masked[:, 2::2] = -torch.inf
    masked[1:, 2 : classes - 1] = -torch.inf
    partner = labels.clone()
    partner[::2] = classes - 1  # weight 0: its logit may be −inf
    masked[::2, -1] = -torch.inf
    check_values(masked, labels, partner, weight, 0.0, 0.0, generator)
    check_values(masked, target, None, None, 0.0, 0.0, generator)
    if dtype != torch.float16:  # 1e4 leaves float16 nothing to tell logits apart by
        shifted = (logits.double() + 1e4).to(dtype)
        for ts in (0.0, 0.1):
            check_values(shifted, labels, partner, weight, ts, 0.0, generator)
        check_values(shifted, target, None, None, 0.0, 0.1, generator)


@pytest.mark.parametrize("bad", [-1, -100, 9, 2**40])
def test_labels_out_of_range_poison_their_row(bad):
    logits = torch.randn(4, 9)
    good = torch.tensor([0, 1, 2, 3])
    wrong = good.clone()
    wrong[2] = bad
    weight = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    for labels, partner in ((wrong, good), (good, wrong)):
        args = (labels, partner, weight, 0.0, 0.0, 2)
        loss, stats = host.soft_target_cross_entropy(logits, *args)
        grad = host.soft_target_cross_entropy_backward(torch.ones(4), logits, stats, *args)
        for t in (loss, grad.sum(1)):
            assert t.isnan().tolist() == [False, False, True, False]
        assert grad[2].isnan().all()
        loss, _ = host.soft_target_cross_entropy(logits, *args[:-1], 0)
        assert loss.isnan()


def test_loss_of_an_empty_batch():
    empty = torch.empty(0, dtype=torch.int64)
    args = (torch.empty(0, 5), empty, empty, torch.empty(0, 2), 0.0, 0.0)
    for reduction in (0, 1):
        got, _ = host.soft_target_cross_entropy(*args, reduction)
        assert same_bits(got, reference.soft_target_cross_entropy(*args, reduction)[0])


def test_all_minus_infinity_is_nan():
    logits = torch.full((2, 9), -torch.inf)
    labels = torch.tensor([0, 1])
    weight = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    loss, _ = host.soft_target_cross_entropy(logits, labels, labels, weight, 0.0, 0.0, 2)
    assert loss.isnan().all()
