"""Every CUDA kernel under the race detector and the sanitizers, and every barrier left out once."""

from __future__ import annotations

import re

import pytest
import torch
from host_cuda import (
    build,
    cluster_grid,
    grid,
    lib,
    mask_grid,
    neighbor_ops,
    normalize_grid,
    plan_grid,
    variant_ops,
)
from host_cuda import loss_ops as losses
from host_cuda import ops as host
from host_cuda.batches import FLIP, ORDERS, ROLL, TENSOR, make_blend, make_box

from fused_mixup import reference

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)")

needs_races = pytest.mark.skipif(bool(build.why_not("races")), reason=str(build.why_not("races")))
needs_asan = pytest.mark.skipif(bool(build.why_not("asan")), reason=str(build.why_not("asan")))

CUDA = build.ROOT / "csrc" / "cuda"
SOURCES = sorted(p for p in CUDA.iterdir() if p.suffix in (".cuh", ".cu", ".h", ".cpp"))
# Constructs that a host compiler rejects, or runs differently from a GPU.
DEVICE_ONLY = re.compile(
    r"\basm\b|<<<|>>>|cudaLaunch|__CUDA_ARCH__|__CUDACC__|__shared__|FUSED_MIXUP_HOST\b"
    r"|cudaFuncSetAttribute|__cvta|__nanosleep|__builtin_"
)
# Where such constructs may stand, each with the file of the host that replaces them.
REPLACED = {
    "launch.cuh": "cuda_host.h", "bulk.cuh": "bulk.h", "cluster.cuh": "clusters.h",
    "dependent.cuh": "dependent.h",
}  # fmt: skip
ORDERING = re.compile(
    r"\b(__syncthreads|__syncwarp|__threadfence|copies_done"
    r"|cluster_arrive|cluster_wait|await_earlier"
    r"|barrier_wait|fence_proxy_async)(?:<\w+>)?\("
)

# Orders atomics among themselves: they never race, so that the detector cannot miss it.
AMONG_ATOMICS = {("draw_neighbors.cuh", "__threadfence")}


def code_of(path):
    """[(line number, line without comment)]"""
    lines = path.read_text().splitlines()
    return [(k, line.split("//")[0]) for k, line in enumerate(lines, 1)]


@pytest.fixture(autouse=True)
def one_thread():
    """PyTorch runs in one thread: on small tensors more threads cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.proof
@needs_races
def test_no_kernel_races():
    """grid.run also checks that every instantiation of every kernel has run."""
    with lib.variant("races"):
        assert grid.run() > 500


@pytest.mark.proof
@needs_asan
def test_no_kernel_leaves_its_memory():
    """The test runs in a separate process: the address sanitizer must load first."""
    done = build.run_sanitized("host_cuda.grid")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 500


# ------------------------------------------------------------------ barriers of real kernels


def run_everything(file=""):
    """Call each kernel that has a barrier, with enough work that the barrier is needed.

    ``file`` selects the kernels that use its barriers: draws of many samples take the most time.
    """
    if file.startswith("plan"):
        for args in plan_grid.barrier_cases():
            plan_grid.check(args)
        return
    if file.startswith(("loss_cluster", "loss_slices")):
        cluster_grid.run_barriers()
        return
    if file.startswith("mix_normalize"):
        normalize_grid.several_passes()
        return
    if file.startswith("draw_variants"):
        for args in variant_ops.barrier_cases():
            variant_ops.check_variants(args)
        return
    if file.startswith("mask_mean"):
        mask_grid.run_mean_barrier()
        return
    if file.startswith("draw_erasing"):
        plan_grid.check_erasing(plan_grid.erasing_barrier_case())
        return
    if file.startswith("draw_neighbors"):
        neighbor_ops.check_neighbors(neighbor_ops.barrier_case())
        return
    if file.startswith("mix_ring"):
        run_ring()
        return
    generator = torch.Generator().manual_seed(0)
    batch = 40
    x = torch.randn(batch, 72, generator=generator)
    blend = torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(batch, 2)
    boxes = torch.tensor([[8, 40]], dtype=torch.int32).expand(batch, 2).contiguous()
    half = torch.arange(batch).div(2, rounding_mode="floor").int()
    for partner, rule, limit in (
        (None, ROLL, host.SHARED_LIMIT),
        (half, TENSOR, 0),
        (None, FLIP, 0),
    ):
        for box in (boxes[:, :0], boxes):
            y = x.clone()
            host.mix_(y, partner, blend, box, rule, shared_limit=limit)
            assert torch.equal(y, reference.mix(x, partner, blend, box, rule))
    with lib.dependent_launches():
        for rule, box in ((FLIP, boxes[:, :0]), (FLIP, boxes), (ROLL, boxes[:, :0])):
            y = x.clone()
            host.mix_(y, None, blend, box, rule)
            assert torch.equal(y, reference.mix(x, None, blend, box, rule))
            assert torch.equal(host.mix(x, None, blend, box, rule), y)
    many = torch.randn(300, 4, generator=generator)  # more rows than a walk stages at once
    args = (torch.arange(300).roll(1).int(), blend[:1].expand(300, 2), boxes[:1, :0].expand(300, 0))
    y = many.clone()
    host.mix_(y, *args, TENSOR, shared_limit=0)
    assert torch.equal(y, reference.mix(many, *args, TENSOR))
    labels = torch.arange(batch)
    for shape, gamma in (
        ((2000,), 0.0),
        ((60, 16), 0.0),
        ((2000,), 2.0),
        ((60,), 2.0),  # a warp takes a row
    ):  # rows and columns; the positions of a row share its label
        logits = torch.randn(batch, *shape, generator=generator)
        rest = [1] * (logits.ndim - 2)
        own = labels.view(-1, *rest).expand(batch, *shape[1:]).contiguous()
        sparse = (own, own.flip(0), torch.full((1, 2), 0.5).expand(batch, 2))
        cross_entropy = (*sparse, None, -100, 0.0, 0.0, gamma, 0.0, 0, True)
        loss, grad, ranks = losses.soft_target_cross_entropy_grad(logits, *cross_entropy)
        want = reference.soft_target_cross_entropy_grad(logits, *cross_entropy)
        torch.testing.assert_close((loss, grad), want[:2])
        assert torch.equal(ranks, want[2])
        # A separate backward has no sum, and so no barrier, between labels and gradient.
        _, stats, count, _ = losses.soft_target_cross_entropy(logits, *cross_entropy)
        upstream = (torch.ones(()), logits, stats, count, *cross_entropy[:-1])
        grad = losses.soft_target_cross_entropy_backward(*upstream)
        torch.testing.assert_close(grad, want[1])
        over = logits.clone()
        losses.soft_target_cross_entropy_backward_(upstream[0], over, *upstream[2:])
        torch.testing.assert_close(over, grad, rtol=0, atol=0)
        binary = (*sparse, None, None, 0.0, None, gamma, 0, False)
        loss = losses.soft_target_binary_cross_entropy(logits, *binary)
        torch.testing.assert_close(
            loss, reference.soft_target_binary_cross_entropy(logits, *binary)
        )


def run_ring():
    """Rows with boxes, in more tiles than there are stages."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 16, 64, generator=generator)
    blend, box = (make(kind, 40, *more, generator) for make, kind, more in (
        (make_blend, "rows", ()), (make_box, "rows", ([16, 64],)),
    ))  # fmt: skip
    y = x.clone()
    with lib.dependent_launches():
        host.mix_(y, None, blend, box, ROLL, ring_blocks=1)
    assert torch.equal(y, reference.mix(x, None, blend, box, ROLL))


def orderings():
    return [
        pytest.param(path.name, number, id=f"{path.name}-{number}")
        for path in SOURCES
        if path.name not in REPLACED
        for number, line in code_of(path)
        if (found := ORDERING.search(line)) and (path.name, found[1]) not in AMONG_ATOMICS
    ]


OF_FILES = ("mix", "plan", "mix_normalize", "draw_erasing", "draw_neighbors", "draw_variants")
OF_FILES += ("mask_mean", "loss_cluster", "mix_ring")


@pytest.mark.proof
@pytest.mark.parametrize("file", OF_FILES)
def test_nothing_is_accused_with_all_barriers_in_place(file):
    for variant in ("plain", *(["races"] if build.why_not("races") is None else [])):
        with lib.variant(variant):
            run_everything(file)


@pytest.mark.proof
@needs_races
@pytest.mark.parametrize(("file", "line"), orderings())
def test_the_race_detector_misses(file, line):
    """The race detector misses a race without the barrier, warp barrier or wait of this line."""
    expected = r"race|has written|before copies_done\(\)|cluster's barrier|before it has started"
    expected += r"|has awaited|without fence_proxy_async\(\)"
    with lib.variant("races"):
        lib.set_order(0)
        with lib.drop_barrier(file, line), pytest.raises(lib.LaunchError, match=expected):
            run_everything(file)
        run_everything(file)


@pytest.mark.parametrize("file", ["mix_tile.cuh", "loss_rows.cuh", "loss_columns.cuh"])
def test_without_its_first_barrier_a_kernel_leans_on_the_order(file):
    line = next(k for k, code in code_of(CUDA / file) if "__syncthreads(" in code)
    wrong = []
    for order in ORDERS:
        with lib.variant("plain"), lib.drop_barrier(file, line):
            lib.set_order(order)
            try:
                run_everything()
            except AssertionError:
                wrong.append(order)
    assert wrong


# ------------------------------------------------------------------ limits of the host


def test_what_the_host_cannot_run_stands_in_one_place():
    found = {
        (path.name, number, line.strip())
        for path in SOURCES
        for number, line in code_of(path)
        if DEVICE_ONLY.search(line)
    }
    assert {name for name, _, _ in found} == {*REPLACED}, sorted(found)


@pytest.mark.parametrize("file", REPLACED)
def test_a_file_names_everything_the_host_replaces(file):
    text = (CUDA / file).read_text()
    comment, code = text.split("#endif  // FUSED_MIXUP_HOST")[0].split("#pragma once")
    named = set(re.findall(r"^//   (\w+) ", comment, re.M))
    defined = set(
        re.findall(
            r"^(?:__device__ __forceinline__ .*?|(?:.*static )?cudaError_t )(\w+)\(", code, re.M
        )
    )
    assert named == defined, named ^ defined
    host_names = (build.HERE / REPLACED[file]).read_text()
    for name in named:
        assert re.search(rf"\b{name}\(", host_names), f"{REPLACED[file]} has no {name}"


@pytest.mark.proof
@needs_races
def test_the_drivers_know_every_kernel():
    """test_no_kernel_races runs every instantiation that the drivers have."""
    text = re.sub(r"//.*", "", "\n".join(path.read_text() for path in SOURCES))
    names = set(
        re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^{;]*?\)\s+)?(\w+)\(", text)
    )
    assert text.count("__global__ void") == len(names), sorted(names)
    with lib.variant("races"):
        compiled, _ = lib.kernels()
    assert {re.search(r"(\w+_kernel)\b", name).group(1) for name in compiled} == names
