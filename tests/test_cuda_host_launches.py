"""How many kernels the CUDA backend launches (on the host), and what the last block of one adds."""

from __future__ import annotations

import random

import pytest
import torch
from comparing import same_bits
from draw_cases import draw_case
from host_cuda import build, lib, loss_grid, ops, plan_grid
from host_cuda import loss_ops as host
from host_cuda.batches import FLIP, ORDERS

from fused_mixup import reference

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


def sparse_arguments(rows, classes, generator, ignore=-100):
    """Labels of which every seventh is ignored, weights, and the options of a mean."""
    labels = torch.randint(0, classes, (2, *rows), generator=generator)
    labels[:, ::7] = ignore
    weight = torch.rand(rows[0], 2, generator=generator)
    return (labels[0], labels[1], weight, None, ignore, 0.0, 0.1, 0.0, 0.0, 0)


def launches_of(call, *args):
    before = lib.launches()
    call(*args)
    return lib.launches() - before


def test_a_training_step_launches_five_kernels_at_most():
    """Drawing the plan, mixing, the loss with its gradient, and scaling that in the backward."""
    generator = torch.Generator().manual_seed(0)
    images, logits = torch.randn(16, 96), torch.randn(16, 1000, generator=generator)
    blend, box = torch.tensor([[0.25, 0.75]]).double().expand(16, 2), torch.empty(16, 0).int()
    settings = draw_case(random.Random(0), 16)
    loss_args = sparse_arguments((16,), 1000, generator)
    step = [
        launches_of(plan_grid.check, settings),
        launches_of(ops.mix_, images, None, blend, box, FLIP),
        launches_of(host.soft_target_cross_entropy_grad, logits, *loss_args, True),
        launches_of(host.scale_, logits, torch.tensor(0.5)),
    ]
    assert step == [1, 1, 1, 1]


def test_1024_rows_of_1000_classes_take_two_kernels():
    """The loss and its gradient, with the count of rows in the sweep; then a backward."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1024, 1000, generator=generator).bfloat16()
    args = sparse_arguments((1024,), 1000, generator)
    assert launches_of(host.soft_target_cross_entropy_grad, logits, *args, False) == 1
    loss, grad, _ = host.soft_target_cross_entropy_grad(logits, *args, False)
    want, want_grad, _ = reference.soft_target_cross_entropy_grad(logits.double(), *args, False)
    loss_grid.close(loss, want, 3e-6, 1e-5)
    loss_grid.close_gradient(grad, want_grad, logits)
    assert launches_of(host.scale_, grad, torch.tensor(0.5)) == 1
    assert launches_of(host.soft_target_cross_entropy, logits, *args, False) == 1
    _, stats, count, _ = host.soft_target_cross_entropy(logits, *args, False)
    upstream = (torch.ones(()), logits, stats, count, *args)
    assert launches_of(host.soft_target_cross_entropy_backward, *upstream) == 1
    binary = (args[0].clamp(min=0), args[1].clamp(min=0), args[2], None, None, 0.0, None, 0.0, 0)
    both = host.soft_target_binary_cross_entropy_grad
    assert launches_of(both, logits, *binary, False) == 1


def test_more_blocks_than_the_last_one_should_add():
    """Another kernel adds their sums; one before counts the rows, in several blocks."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(16400, 3, generator=generator)
    args = sparse_arguments((16400,), 3, generator)
    assert launches_of(host.soft_target_cross_entropy_grad, logits, *args, False) == 3
    loss, grad, _ = host.soft_target_cross_entropy_grad(logits, *args, False)
    want, want_grad, _ = reference.soft_target_cross_entropy_grad(logits.double(), *args, False)
    torch.testing.assert_close(loss.double(), want, rtol=1e-6, atol=0)
    torch.testing.assert_close(grad.double(), want_grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("shape", [(40, 9), (9, 3000), (3, 19, 96)], ids=str)
def test_any_block_may_be_the_last(shape):
    """The loss has the same bits whichever block adds the sums, and with a ticket of its own."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(shape, generator=generator)
    args = sparse_arguments((shape[0], *shape[2:]), shape[1], generator)
    binary = (args[0].clamp(min=0), args[1].clamp(min=0), args[2], None, None, 0.0, None, 0.0, 0)

    def losses():
        loss, _, count, _ = host.soft_target_cross_entropy(logits, *args, False)
        both = host.soft_target_cross_entropy_grad(logits, *args, False)[0]
        bce = host.soft_target_binary_cross_entropy(logits, *binary, False)
        return torch.stack([loss, count, both, bce])

    lib.set_order(0)
    first = losses()
    for order in ORDERS:
        lib.set_order(order)
        assert same_bits(losses(), first)
    with lib.all_tickets_taken():
        assert same_bits(losses(), first)
