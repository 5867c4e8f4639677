"""Every op on a GPU beyond its values: streams, devices, CUDA graphs, synchronisation."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from gpu_places import GPU, run_on_gpu

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

# Cycles for which a stream is kept busy: some 10 ms, far longer than any op here.
BUSY = 20_000_000


# ------------------------------------------------------------------ streams and devices


@run_on_gpu(each_quick_case=True)
def test_runs_on_the_current_stream(kernel_backend, case):
    case.run(case.args("cuda"))  # this call compiles and loads
    staged, args = case.args("cuda"), case.args("cuda")
    for a in args:
        if isinstance(a, torch.Tensor) and a.is_cuda:
            a.zero_()
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    torch.cuda._sleep(4 * BUSY)  # an op on this stream would run too late for the copy below
    with torch.cuda.stream(side):
        torch.cuda._sleep(BUSY)  # and an op that does not wait would read zeros
        for a, right in zip(args, staged, strict=True):
            if isinstance(a, torch.Tensor) and a.is_cuda:
                a.copy_(right)
        got = [t.cpu() for t in case.run(args)]
    case.check(tuple(got))
    torch.cuda.synchronize()


@run_on_gpu(each_quick_case=True, gpus=2)
def test_second_device(kernel_backend, case):
    assert torch.cuda.current_device() == 0
    got = case.run(case.args("cuda:1"))
    assert all(t.device == torch.device("cuda:1") for t in got)
    assert torch.cuda.current_device() == 0
    case.check(got)


@run_on_gpu()
def test_tensors_of_two_devices_are_refused(kernel_backend):
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
        target, z = MixedTarget.from_labels(labels.to(device), plan, 5), x.flatten(1)[:, :5]
        for loss in (fm.soft_target_cross_entropy, fm.soft_target_binary_cross_entropy):
            with pytest.raises(ValueError, match="target: expected it on cuda:0"):
                loss(z, target)
            with pytest.raises(ValueError, match="weight: expected it on cuda:0"):
                loss(z, labels, weight=torch.rand(5, device=device))
        with pytest.raises(ValueError, match="target: expected it on cuda:0"):
            fm.mixed_accuracy(z, target)
        with pytest.raises(ValueError, match="out: expected"):
            fm.mix(x, MixPlan.uniform(4), out=x.to(device))


# ------------------------------------------------------------------ CUDA graphs


@run_on_gpu(each_quick_case=True)
def test_graph_replays_see_new_values(kernel_backend, case):
    """Each replay reads tensors anew; rows on the host are baked in, as Python numbers are."""
    args = case.args("cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        case.run(args)  # this call compiles and loads, which a capture must not
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


def of_logits(loss, **mode):
    return lambda x, head, target: loss(x @ head, target, **mode)


# The losses of a step, as functions of the last layer's inputs and weight.
LOSSES = {
    "separate": of_logits(fm.soft_target_cross_entropy),
    "grad_in_forward": of_logits(fm.soft_target_cross_entropy, grad_in_forward=True),
    "inplace_backward": of_logits(fm.soft_target_cross_entropy, inplace_backward=True),
    "binary": of_logits(fm.soft_target_binary_cross_entropy),
    "binary, inplace_backward": of_logits(
        fm.soft_target_binary_cross_entropy, inplace_backward=True, sum_classes=True
    ),
    "last layer": lambda x, head, target: fm.linear_soft_target_cross_entropy(
        x, head.t(), None, target, chunk_rows=4
    ),
}


def training_step(x, plan, labels, head, loss="separate"):
    fm.mix_(x, plan)
    target = MixedTarget.from_labels(labels, plan, 10, 0.1)
    return LOSSES[loss](fm.mix(x * head[0, 0], plan).flatten(1), head, target)


def step_inputs(device):
    torch.manual_seed(4)
    plans = [MixPlan.uniform(6, "flip", 0.3), MixPlan.uniform(6, "roll", 0.3, [1, 1, 3, 4])]
    plans += [MixPlan.per_sample(torch.rand(6), torch.randperm(6), [[0, 0, 2, 2]] * 6).to(device)]
    x = torch.randn(6, 3, 4, 5).to(device)
    labels = torch.randint(0, 10, (6,)).to(device)
    head = torch.randn(60, 10).to(device).requires_grad_()
    return plans, x, labels, head


@run_on_gpu()
def test_whole_step_in_a_graph(kernel_backend):
    """Forward and backward, through the public functions."""
    plans, first, labels, head = step_inputs("cuda")
    for plan, loss in itertools.product(plans, LOSSES):
        x = first.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                torch.autograd.grad(training_step(x, plan, labels, head, loss), head)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = training_step(x, plan, labels, head, loss)
            (grad,) = torch.autograd.grad(value, head)
        for batch in (first, first.flip(1) * 2):
            x.copy_(batch)
            graph.replay()
            eager = training_step(batch.clone(), plan, labels, head, loss)
            (expected,) = torch.autograd.grad(eager, head)
            torch.testing.assert_close(value, eager, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-5)


@run_on_gpu()
def test_each_replay_draws_anew(kernel_backend):
    """A step captured with its draw: the state moves on in the graph, and settings are read."""
    _, x, labels, head = step_inputs("cuda")
    settings = fm.plan_settings(cutmix_alpha=1.0, device="cuda")
    options = {"per": "sample", "pairing": "cross_class", "labels": labels, "settings": settings}
    states = [fm.plan_state(5, device="cuda") for _ in range(2)]

    def step(state):
        plan = fm.draw_plan(6, (4, 5), state=state, **options)
        return training_step(x.clone(), plan, labels, head), plan.weight, plan.partner

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(states[0].clone())
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(states[0])
    seen = set()
    for alpha in (0.2, 1.0, 5.0):
        settings.copy_(fm.plan_settings(mixup_alpha=alpha, cutmix_alpha=1.0))
        graph.replay()
        for got, expected in zip(captured, step(states[1]), strict=True):
            torch.testing.assert_close(got, expected)
        seen.add(tuple(captured[1].flatten().tolist()))
    assert len(seen) == 3
    assert torch.equal(*states)


# ------------------------------------------------------------------ synchronisation


@contextlib.contextmanager
def no_synchronisation():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="PyTorch sees no GPU")
def test_a_synchronisation_is_noticed():
    x = torch.ones(1, device="cuda")
    with pytest.raises(RuntimeError, match="synchroniz"), no_synchronisation():
        x.item()


@run_on_gpu(each_quick_case=True)
def test_ops_do_not_synchronise(kernel_backend, case):
    case.run(case.args("cuda"))
    args = case.args("cuda")
    with no_synchronisation():
        got = case.run(args)
    case.check(got)


@run_on_gpu()
def test_a_step_does_not_synchronise(kernel_backend):
    """A step with a plan drawn on the host or the device, from its copy to the gradient."""
    _, x, labels, head = step_inputs("cuda")
    state = fm.plan_state(1, device="cuda")
    mask = torch.randint(0, 9, (6, 4, 5), device="cuda")
    out = torch.empty_like(x)
    z_maps = torch.randn(6, 3, 4, 5, device="cuda", requires_grad=True)
    pixels = torch.randint(0, 3, (6, 4, 5), device="cuda")
    pixels[0] = -100
    weight = torch.rand(3, device="cuda")

    def step():
        drawn = MixPlan.per_sample(torch.rand(6), torch.randperm(6), [[0, 0, 2, 2]] * 6)
        there = fm.draw_plan(6, (4, 5), state=state, cutmix_alpha=1.0, pairing="shuffle")
        for plan in (MixPlan.uniform(6, "flip", 0.3), drawn.to("cuda"), there):
            for loss in LOSSES:
                torch.autograd.grad(training_step(x, plan, labels, head, loss), head)
            fm.mix(x, plan, out=out)
            dense = fm.mix_targets(labels, plan, 10, 0.1)
            z = x.flatten(1)[:, :10]
            fm.soft_target_cross_entropy(z, dense, reduction="sum")
            fm.soft_target_binary_cross_entropy(
                z, dense, pos_weight=weight[:1], target_threshold=0.2
            )
            fm.mixed_accuracy(z, MixedTarget.from_labels(labels, plan, 10))
        maps, ranked = fm.soft_target_cross_entropy(
            z_maps, pixels, weight=weight, return_accuracy=True
        )
        torch.autograd.grad(maps, z_maps)
        fm.paste_(mask, MixPlan.uniform(6, "roll", 0.5, [1, 1, 3, 4]))

    step()
    with no_synchronisation():
        step()
