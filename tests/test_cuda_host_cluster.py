"""Cross-entropy on clusters of blocks, run on the host (tests/host_cuda), against float64."""

from __future__ import annotations

import pytest
import torch
from comparing import same_bits
from host_cuda import build, cluster_grid, lib
from host_cuda import loss_ops as host
from host_cuda.batches import ORDERS
from host_cuda.cluster_grid import BLOCKS, CLASSES, DTYPES, check, check_values
from host_cuda.loss_grid import NO_IGNORE

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]

KIB = 1024


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows(dtype, classes):
    generator = torch.Generator().manual_seed(classes)
    for case in cluster_grid.cases(classes, step=4):
        check(dtype, classes, *case, generator)


@pytest.mark.parametrize("start", range(8))
def test_rows_that_start_anywhere(start):
    """Head, vectors and tail of a row at every place between two multiples of 16 bytes."""
    generator = torch.Generator().manual_seed(start)
    base = torch.randn(3, 160, generator=generator).bfloat16()
    labels = torch.tensor([0, 1, 2])
    sparse = (labels, labels.flip(0), torch.tensor([[0.3, 0.7]]).expand(3, 2), None)
    for classes in (8, 9, 31, 96, 97, 135):
        logits = base[:, start : start + classes]
        dense = torch.rand(3, 160, generator=generator).bfloat16()[:, 1 : classes + 1]
        for blocks in BLOCKS:
            for target in (sparse, (dense, None, None, None)):
                check_values(logits, *target, -100, 0.0, 0.0, 0.0, 0.0, 1, blocks=blocks)


@pytest.mark.parametrize(
    ("dtype", "classes", "wide", "blocks", "buffers"),
    [
        (torch.bfloat16, 16 * KIB, None, 0, 0),
        (torch.bfloat16, 16 * KIB + 1, None, 2, 2),
        (torch.bfloat16, 32 * KIB, None, 2, 2),
        (torch.bfloat16, 32 * KIB + 1, None, 4, 2),
        (torch.bfloat16, 64 * KIB, None, 4, 2),
        (torch.bfloat16, 128 * KIB, None, 8, 2),
        (torch.bfloat16, 256 * KIB, None, 8, 2),
        (torch.bfloat16, 500 * KIB, None, 8, 1),
        (torch.bfloat16, 1000 * KIB, None, 0, 0),
        (torch.float32, 8 * KIB, None, 0, 0),
        (torch.float32, 16 * KIB, None, 2, 2),
        (torch.float32, 32 * KIB, None, 4, 2),
        (torch.float32, 128 * KIB, None, 8, 2),
        (torch.float32, 250 * KIB, None, 8, 1),
        (torch.bfloat16, 16 * KIB, torch.bfloat16, 2, 2),
        (torch.bfloat16, 16 * KIB, torch.float32, 4, 2),
        (torch.float32, 16 * KIB, torch.float32, 4, 2),
        (torch.float32, 256 * KIB, torch.float32, 0, 0),
    ],
)
def test_the_blocks_of_a_row_follow_from_its_bytes(dtype, classes, wide, blocks, buffers):
    found, apart, shared = host.cluster_shape(dtype, classes, wide)
    assert found == blocks
    if not blocks:
        return
    assert (apart != 0) == (buffers == 2)
    row = classes * (dtype.itemsize + (wide.itemsize if wide else 0))
    assert 0 <= shared - buffers * row // blocks <= buffers * 256
    assert shared + 1024 <= host.SHARED_LIMIT
    # Shared memory that just holds them, and one byte less.
    assert host.cluster_shape(dtype, classes, wide, blocks, shared + 1024) == (
        blocks, apart, shared,
    )  # fmt: skip
    fewer = host.cluster_shape(dtype, classes, wide, blocks, shared + 1023)
    assert fewer == ((blocks, 0, shared // 2) if buffers == 2 else (0, 0, 0))


@pytest.mark.parametrize("wide", [torch.bfloat16, torch.float32], ids=str)
def test_a_buffer_holds_a_slice_and_its_target_wherever_they_start(wide):
    """A slice has the vectors of its block and the elements before or behind them: seven at most.

    Its vectors are those of the logits, so that the target of such a slice may start anywhere.
    """
    for classes in (40, 96, 97, 135, 1000):
        for blocks in BLOCKS:
            vectors = -(-(classes // 8) // blocks)
            logits = 16 * vectors + 16
            target = 16 - wide.itemsize + min(classes, 8 * vectors + 7) * wide.itemsize
            assert host.cluster_shape(torch.bfloat16, classes, wide, blocks)[1] >= logits + target


@pytest.mark.parametrize(("dtype", "classes"), [(torch.bfloat16, 21841), (torch.float32, 33003)])
def test_long_rows_choose_their_cluster(dtype, classes):
    """As in training; logits are not rounded, and every row of a batch differs."""
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(3, classes, generator=generator) * 4).to(dtype)
    labels = torch.randint(0, classes, (3,), generator=generator)
    sparse = (labels, labels.flip(0), torch.tensor([[0.3, 0.7]]).expand(3, 2), None)
    lib.forget_launches()
    check_values(logits, *sparse, -100, 0.0, 0.1, 0.0, 0.0, 0, blocks=host.CHOOSE_CLUSTER)
    launched = {name.split("(")[0].split("::")[1].split("<")[0] for name in lib.kernels()[1]}
    assert "cluster_kernel" in launched


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("resident", "batch"), [(1, 4), (3, 7), (8, 2)])
def test_clusters_go_through_many_rows(resident, batch, order):
    """The result does not depend on which cluster takes a row; each row has a label of its own."""
    lib.set_order(order)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(batch, 100, generator=generator)
    labels = torch.arange(batch)
    sparse = (labels, labels.flip(0), torch.tensor([[0.3, 0.7]]).expand(batch, 2), None)
    args = (*sparse, -100, 0.0, 0.1, 0.0, 0.0, 2)
    with lib.resident_clusters(1):
        want = host.soft_target_cross_entropy_grad(logits, *args, True, cluster=4)
    with lib.resident_clusters(resident):
        got = host.soft_target_cross_entropy_grad(logits, *args, True, cluster=4)
        check_values(logits, *args, blocks=4, ranks=True)
    assert all(same_bits(a, b) for a, b in zip(got, want, strict=True))


def test_a_gpu_that_holds_no_cluster_takes_rows():
    logits = torch.randn(3, 5000)
    labels = torch.arange(3)
    sparse = (labels, labels, torch.tensor([[0.3, 0.7]]).expand(3, 2), None)
    args = (*sparse, -100, 0.0, 0.1, 0.0, 0.0, 0, False)
    want = host.soft_target_cross_entropy_grad(logits, *args)
    with lib.resident_clusters(0):
        got = host.soft_target_cross_entropy_grad(logits, *args, cluster=8)
    assert all(same_bits(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hard_logits(dtype, blocks):
    """Whole slices of −inf, logits far from zero, and slices that know nothing of the maximum."""
    generator = torch.Generator().manual_seed(4)
    logits = (torch.randn(6, 500, generator=generator) * 3).to(dtype)
    logits[:, 100:450] = -torch.inf
    logits[2, 499] = 300.0
    logits[3, 0] = 300.0
    labels = torch.randint(0, 2, (6,), generator=generator)
    weight = torch.tensor([[1.0, 0.0], [0.25, 0.75]]).repeat(3, 1)
    target = torch.zeros(6, 500).to(dtype)
    target[:, :2] = 0.5
    for sparse in ((labels, labels.flip(0), weight, None), (target, None, None, None)):
        check_values(
            logits, *sparse, NO_IGNORE, 0.0, 0.0, 0.0, 0.0, 2, blocks=blocks,
            ranks=sparse[1] is not None,
        )  # fmt: skip
    everything = torch.full((2, 60), -torch.inf, dtype=dtype)
    args = (labels[:2], labels[:2], weight[:2], None, NO_IGNORE, 0.0, 0.0, 0.0, 0.0, 2, False)
    loss, grad, _ = host.soft_target_cross_entropy_grad(everything, *args, cluster=blocks)
    assert loss.isnan().all() and grad.isnan().all()


@pytest.mark.parametrize(("gamma", "z_loss"), [(0.0, 0.0), (2.0, 0.1)])
@pytest.mark.parametrize("bad", [-1, -100, 90, 2**40, -(2**31)])
def test_labels_out_of_range_poison_their_row(bad, gamma, z_loss):
    logits = torch.randn(4, 90)
    good = torch.tensor([0, 30, 60, 89])
    wrong = good.clone()
    wrong[2] = bad
    weight = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    for labels, partner in ((wrong, good), (good, wrong)):
        args = (labels, partner, weight, None, NO_IGNORE, 0.0, 0.0, gamma, z_loss, 2, True)
        loss, grad, ranks = host.soft_target_cross_entropy_grad(logits, *args, cluster=4)
        assert loss.isnan().tolist() == grad.isnan().any(1).tolist() == [False, False, True, False]
        assert grad[2].isnan().all() and ranks[0 if labels is wrong else 1, 2] == 90


def test_ignored_rows_do_not_count():
    logits = torch.randn(5, 90)
    logits[1] = torch.nan
    labels = torch.tensor([5, -100, 40, -100, 89])
    weight = torch.tensor([[0.5, 0.5]]).expand(5, 2)
    args = (labels, labels, weight, None, -100, 0.1, 0.1, 0.0, 0.1, 0, False)
    loss, grad, _ = host.soft_target_cross_entropy_grad(logits, *args, cluster=2)
    want, want_grad, _ = host.soft_target_cross_entropy_grad(logits, *args)
    torch.testing.assert_close((loss, grad), (want, want_grad))
    assert (grad[[1, 3]] == 0).all()


def test_positions_whose_classes_are_adjacent():
    generator = torch.Generator().manual_seed(6)
    base = torch.randn(2, 3, 70, generator=generator)
    labels = torch.randint(0, 70, (2, 3), generator=generator)
    weight = torch.tensor([[0.3, 0.7], [0.6, 0.4]])
    args = (labels, labels.flip(0), weight, None, -100, 0.0, 0.1, 0.0, 0.0, 2, True)
    want = host.soft_target_cross_entropy_grad(base.transpose(1, 2).contiguous(), *args)
    # channels_last, which a kernel of columns does not take
    got = host.soft_target_cross_entropy_grad(base.transpose(1, 2), *args, cluster=2)
    torch.testing.assert_close(got, want)


def test_other_calls_and_layouts_stay_with_rows():
    """Classes that are not adjacent, float64: bits are those of the kernel of rows."""
    labels = torch.arange(3)
    sparse = (labels, labels.flip(0), torch.tensor([[0.3, 0.7]]).expand(3, 2), None)
    dense = (torch.rand(500, 3).t(), None, None, None)
    for logits, target in (
        (torch.randn(500, 3).t(), sparse),
        (torch.randn(3, 500, dtype=torch.float64), sparse),
        (torch.randn(3, 500), dense),
    ):
        args = (*target, -100, 0.0, 0.1, 0.0, 0.0, 2, False)
        lib.forget_launches()
        got = host.soft_target_cross_entropy_grad(logits, *args, cluster=2)
        assert not any("cluster_kernel" in name for name in lib.kernels()[1])
        want = host.soft_target_cross_entropy_grad(logits, *args)
        assert all(same_bits(a, b) for a, b in zip(got, want, strict=True))
