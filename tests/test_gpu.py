"""Every op on a GPU, as a program meets it: values, streams, CUDA graphs, synchronisation, memory.

The cases stand in gpu_cases.py. They run on the CPU too, which proves the table itself; a test that
needs a GPU is skipped where there is none, once for all of its cases. Large batches are in
test_gpu_large.py.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os

import pytest
import torch
import torch.nn.functional as F
from conftest import _places
from gpu_cases import CASES, EXACT, QUICK, cases_of, same_bits

import fused_mixup as fm
from benchmarks.timing import extra_bytes
from fused_mixup import MixedTarget, MixPlan, backends, ops

GPU = torch.cuda.is_available()
LOSSES = [name for name in ops.SCHEMAS if name.startswith("soft_target")]
# Cycles that a stream is kept busy for: some 10 ms, far longer than any op here takes.
BUSY = 20_000_000


def left_out(why: str, name: str, values: int):
    """The one skipped test that stands for all cases that cannot run."""
    return pytest.param(*[None] * values, marks=pytest.mark.skip(reason=why), id=name)


def on_a_gpu(each_quick_case: bool = False, gpus: int = 1):
    """Runs a test with each backend that has kernels of its own, ``fused``, and maybe each case.

    The reference is left out. It is written to be read: it moves rows from the host with ordinary
    copies, which wait, and makes full-size temporaries.
    """
    names = ("fused", "case") if each_quick_case else ("fused",)
    found = []
    if torch.cuda.device_count() < gpus or not GPU:
        why = "needs a second GPU" if GPU else "PyTorch sees no GPU"
        found.append(left_out(why, "none", len(names)))
    else:
        for name in ("native", "triton"):
            why = backends.reason_unavailable(name, "CUDA")
            if why is not None:
                found.append(left_out(f"{name} on cuda: {why}", f"cuda-{name}", len(names)))
            elif each_quick_case:
                found += [pytest.param(name, c, id=f"cuda-{name}-{c}") for c in QUICK]
            else:
                found.append(pytest.param(name, id=f"cuda-{name}"))
    return pytest.mark.parametrize(names, found, indirect=["fused"])


@pytest.fixture
def fused(request):
    """A backend with kernels for CUDA tensors, forced for the test."""
    with fm.backend(request.param):
        yield request.param


def devices_and_cases() -> list:
    """Every case for every place that the fixture ``device`` knows."""
    found = []
    for place in _places():
        if place.marks:
            found.append(pytest.param(*place.values, None, marks=place.marks, id=place.id))
            continue
        # The reference on the CPU is what results are compared with: a few cases prove the table.
        cases = QUICK if place.values[0] == ("cpu", "reference") else CASES
        found += [pytest.param(*place.values, c, id=f"{place.id}-{c}") for c in cases]
    return found


def interpreted_cases() -> list:
    if os.environ.get("TRITON_INTERPRET") != "1":
        return [left_out("Triton runs on the GPU, not interpreted", "none", 1)]
    if importlib.util.find_spec("triton") is None:
        return [left_out("Triton is not installed", "none", 1)]
    return [pytest.param(case, id=str(case)) for case in QUICK]


# ------------------------------------------------------------------ the table itself


@pytest.mark.parametrize(
    "op", [name for name in ops.SCHEMAS if name not in getattr(ops, "CPU_ONLY", frozenset())]
)
def test_every_op_has_cases(op):
    quick = cases_of(op)
    assert quick, f"{op}: add cases to tests/gpu_cases.py, or no GPU test will see it"
    args = [case.args("meta") for case in quick]
    tensors = [[a for a in some if isinstance(a, torch.Tensor)] for some in args]
    devices = [{t.device.type for t in some} for some in tensors]
    assert {"meta"} in devices, "none has a row for each sample, on the device"
    if op not in ("mix_backward", *LOSSES[1:]):
        assert {"meta", "cpu"} in devices, "none has its rows on the host"


def test_the_cases_notice_a_wrong_result():
    assert len(CASES) >= 350 and len({str(case) for case in CASES}) == len(CASES)
    for case in QUICK:
        got = [t.clone() for t in case.run(case.args())]
        last = (-1,) * got[0].ndim
        got[0][last] = got[0][last].nan_to_num() * 1.1 + 0.1
        with pytest.raises(AssertionError):
            case.check(tuple(got))


def test_the_cases_notice_a_wrong_dtype():
    for case in QUICK:
        got = case.run(case.args())
        for i, right in enumerate(got):
            dtype = torch.float64 if right.dtype != torch.float64 else torch.float32
            with pytest.raises(AssertionError, match=str(dtype)):
                case.check((*got[:i], right.to(dtype), *got[i + 1 :]))


def test_the_cases_notice_saturation():
    assert same_bits(torch.tensor([torch.nan, torch.inf]), torch.tensor([torch.nan, torch.inf]))
    most = torch.finfo(torch.float32).max
    for wrong in (most, -torch.inf, torch.nan):
        assert not same_bits(torch.tensor(wrong), torch.tensor(torch.inf))
        assert not same_bits(torch.tensor(torch.inf), torch.tensor(wrong))
    cases = [case for case in CASES if " infinite " in str(case)]
    assert {case.op for case in cases} == {*EXACT} - {"mix_targets"}
    for case in cases:
        got = case.run(case.args())
        x = got[0]
        assert x.isinf().any() and x.isfinite().any()
        most = torch.finfo(x.dtype).max
        with pytest.raises(AssertionError, match="differs"):
            case.check((x.clamp(-most, most),))


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(("device", "case"), devices_and_cases(), indirect=["device"])
def test_values(device, case):
    case.check(case.run(case.args(device)))


@pytest.mark.parametrize("case", interpreted_cases())
def test_values_in_tritons_interpreter(case):
    with fm.backend("triton"):
        case.check(case.run(case.args()))


def test_mixed_precision(device):
    torch.manual_seed(3)
    model = torch.nn.Linear(20, 50).to(device)
    x = torch.randn(8, 20, device=device)
    plan = MixPlan.uniform(8, "flip", 0.3)
    target = MixedTarget.from_labels(torch.randint(0, 50, (8,), device=device), plan, 50, 0.1)
    grads = []
    for loss in (fm.soft_target_cross_entropy, lambda z, t: F.cross_entropy(z.float(), t.dense())):
        model.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            z = model(fm.mix(x, plan))
            assert z.dtype == torch.bfloat16
            value = loss(z, target)
        assert value.dtype == torch.float32
        value.backward()
        grads.append(model.weight.grad.clone())
    # Both round the gradient of the logits to bfloat16 once, each from sums of its own: entries of
    # up to 1/8 may differ by a unit in the last place, and eight of them are summed.
    torch.testing.assert_close(*grads, rtol=2**-7, atol=2**-10)


# ------------------------------------------------------------------ streams and devices


@on_a_gpu(each_quick_case=True)
def test_runs_on_the_current_stream(fused, case):
    case.run(case.args("cuda"))  # compiles, loads
    staged, args = case.args("cuda"), case.args("cuda")
    for a in args:
        if isinstance(a, torch.Tensor) and a.is_cuda:
            a.zero_()
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    torch.cuda._sleep(4 * BUSY)  # work on this stream would come too late for the copy below
    with torch.cuda.stream(side):
        torch.cuda._sleep(BUSY)  # and work that does not wait would read zeros
        for a, right in zip(args, staged, strict=True):
            if isinstance(a, torch.Tensor) and a.is_cuda:
                a.copy_(right)
        got = [t.cpu() for t in case.run(args)]
    case.check(tuple(got))
    torch.cuda.synchronize()


@on_a_gpu(each_quick_case=True, gpus=2)
def test_second_device(fused, case):
    assert torch.cuda.current_device() == 0
    got = case.run(case.args("cuda:1"))
    assert all(t.device == torch.device("cuda:1") for t in got)
    assert torch.cuda.current_device() == 0
    case.check(got)


@on_a_gpu()
def test_tensors_of_two_devices_are_refused(fused):
    x = torch.randn(4, 3, 8, 8, device="cuda")
    labels = torch.arange(4, device="cuda")
    elsewhere = ["cpu", *(f"cuda:{i}" for i in range(1, torch.cuda.device_count()))]
    for device in elsewhere:
        plan = MixPlan.per_sample(torch.rand(4)).to(device)
        for call in (
            lambda p=plan: fm.mix_(x, p),
            lambda p=plan: fm.mix(x, p),
            lambda p=plan: fm.mix_targets(labels, p, 5),
        ):
            with pytest.raises(ValueError, match="plan: expected it on cuda:0"):
                call()
        target = MixedTarget.from_labels(labels.to(device), plan, 5)
        with pytest.raises(ValueError, match="target: expected it on cuda:0"):
            fm.soft_target_cross_entropy(torch.randn(4, 5, device="cuda"), target)
        with pytest.raises(ValueError, match="out: expected"):
            fm.mix(x, MixPlan.uniform(4), out=x.to(device))


# ------------------------------------------------------------------ CUDA graphs


@on_a_gpu(each_quick_case=True)
def test_graph_replays_see_new_values(fused, case):
    """Each replay reads tensors anew; rows on the host are baked in, as Python numbers are."""
    args = case.args("cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        case.run(args)  # compiles and loads, which a capture may not
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = case.run(args)
    for seed in (1, 2):
        for a, fresh in zip(args, case.args("cuda", seed), strict=True):
            if isinstance(a, torch.Tensor) and a.is_cuda:
                a.copy_(fresh)
        graph.replay()
        case.check(got, seed)


def training_step(x, plan, labels, head):
    fm.mix_(x, plan)
    target = MixedTarget.from_labels(labels, plan, 10, 0.1)
    z = fm.mix(x * head[0, 0], plan).flatten(1) @ head
    return fm.soft_target_cross_entropy(z, target)


def step_inputs(device):
    torch.manual_seed(4)
    plans = [MixPlan.uniform(6, "flip", 0.3), MixPlan.uniform(6, "roll", 0.3, [1, 1, 3, 4])]
    plans += [MixPlan.per_sample(torch.rand(6), torch.randperm(6), [[0, 0, 2, 2]] * 6).to(device)]
    x = torch.randn(6, 3, 4, 5).to(device)
    labels = torch.randint(0, 10, (6,)).to(device)
    head = torch.randn(60, 10).to(device).requires_grad_()
    return plans, x, labels, head


@on_a_gpu()
def test_whole_step_in_a_graph(fused):
    """Forward and backward, through the public functions."""
    plans, first, labels, head = step_inputs("cuda")
    for plan in plans:
        x = first.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                torch.autograd.grad(training_step(x, plan, labels, head), head)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = training_step(x, plan, labels, head)
            (grad,) = torch.autograd.grad(loss, head)
        for batch in (first, first.flip(1) * 2):
            x.copy_(batch)
            graph.replay()
            eager = training_step(batch.clone(), plan, labels, head)
            (expected,) = torch.autograd.grad(eager, head)
            torch.testing.assert_close(loss, eager, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ synchronisation and launches


@contextlib.contextmanager
def no_synchronisation():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not GPU, reason="PyTorch sees no GPU")
def test_a_synchronisation_is_noticed():
    x = torch.ones(1, device="cuda")
    with pytest.raises(RuntimeError, match="synchroniz"), no_synchronisation():
        x.item()


@on_a_gpu(each_quick_case=True)
def test_ops_do_not_synchronise(fused, case):
    case.run(case.args("cuda"))
    args = case.args("cuda")
    with no_synchronisation():
        got = case.run(args)
    case.check(got)


@on_a_gpu()
def test_a_step_does_not_synchronise(fused):
    """From a plan drawn on the host, with its copy to the device, to the gradient."""
    _, x, labels, head = step_inputs("cuda")
    mask = torch.randint(0, 9, (6, 4, 5), device="cuda")
    out = torch.empty_like(x)

    def step():
        drawn = MixPlan.per_sample(torch.rand(6), torch.randperm(6), [[0, 0, 2, 2]] * 6)
        for plan in (MixPlan.uniform(6, "flip", 0.3), drawn.to("cuda")):
            torch.autograd.grad(training_step(x, plan, labels, head), head)
            fm.mix(x, plan, out=out)
            dense = fm.mix_targets(labels, plan, 10, 0.1)
            fm.soft_target_cross_entropy(x.flatten(1)[:, :10], dense, reduction="sum")
        fm.paste_(mask, MixPlan.uniform(6, "roll", 0.5, [1, 1, 3, 4]))

    step()
    with no_synchronisation():
        step()


def kernels_of(run) -> list[str]:
    """The names of what ``run`` starts on the device: kernels, copies, fills."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    events = profiler.profiler.kineto_results.events()
    return [e.name() for e in events if e.device_type() == torch.autograd.DeviceType.CUDA]


@on_a_gpu(each_quick_case=True)
def test_one_launch_of_our_own_kernel(fused, case):
    """No copy of an argument, no fill, and no other backend's kernel."""
    # Asked twice: the first session of a process may start too late to see what it should.
    if all(len(kernels_of(lambda: torch.ones(1, device="cuda"))) != 1 for _ in range(2)):
        pytest.skip("PyTorch's profiler sees no kernels here (CUPTI)")
    case.run(case.args("cuda"))
    args = case.args("cuda")
    names = kernels_of(lambda: case.run(args))
    assert 1 <= len(names) <= case.launches, names
    for name in names:
        if fused == "native":
            assert "fused_mixup" in name, name  # the namespace of csrc/cuda
        else:
            assert name in TRITON_KERNELS, name


# Kernels of triton_kernels/, by their names alone: importing them needs Triton.
TRITON_KERNELS = (
    "pair_kernel", "tile_kernel", "mix_backward_kernel", "targets_kernel",
    "loss_forward_kernel", "loss_backward_kernel",
)  # fmt: skip


# ------------------------------------------------------------------ memory

MIB = 2**20


@on_a_gpu()
def test_extra_memory(fused):
    x = torch.randn(64, 3, 224, 224, device="cuda")
    size = x.numel() * 4
    assert extra_bytes(lambda: x.clone(), "cuda") >= size  # what a copy would show
    corners = [50, 50, 200, 200]
    plans = [
        MixPlan.uniform(64, "flip", 0.3),
        MixPlan.uniform(64, "roll", 0.3, corners),
        MixPlan.uniform(64, torch.randperm(64), 0.3, device="cuda"),
        MixPlan.per_sample(torch.rand(64), torch.arange(64) // 2, [corners] * 64).to("cuda"),
    ]
    for plan in plans:
        assert extra_bytes(lambda p=plan: fm.mix_(x, p), "cuda") <= MIB
        assert size <= extra_bytes(lambda p=plan: fm.mix(x, p), "cuda") <= size + MIB
        out = torch.empty_like(x)
        assert extra_bytes(lambda p=plan, o=out: fm.mix(x, p, out=o), "cuda") <= MIB
        if not plan.blends:
            assert extra_bytes(lambda p=plan: fm.paste_(x, p), "cuda") <= MIB
    z = torch.randn(512, 20_000, device="cuda", requires_grad=True)
    size = z.numel() * 4
    labels = torch.randint(0, 20_000, (512,), device="cuda")
    target = MixedTarget.from_labels(labels, MixPlan.uniform(512, "flip", 0.3), 20_000, 0.1)

    def both():
        torch.autograd.grad(fm.soft_target_cross_entropy(z, target), z)

    assert extra_bytes(lambda: fm.soft_target_cross_entropy(z, target), "cuda") <= MIB
    assert size <= extra_bytes(both, "cuda") <= size + MIB
