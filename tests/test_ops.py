"""Registration: schemas, fake implementations, opcheck, torch.compile, loading."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from op_samples import sample_inputs

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, backends, forcing, ops, reference
from fused_mixup.schemas import (
    SCHEMAS,
    BinaryCrossEntropyArguments,
    CrossEntropyArguments,
)

QUICK = ("test_schema", "test_autograd_registration", "test_faketensor")
TRACED = "test_aot_dispatch_dynamic"  # takes 9 tenths of opcheck's time


def traced_alike(args):
    """What tells apart the graphs of an op: which arguments are tensors, and of what kind."""
    tensors = (a if isinstance(a, torch.Tensor) else None for a in args)
    return tuple(t is None or (t.dtype, t.ndim, t.requires_grad) for t in tensors)


def is_default(device, name):
    forced = forcing.forced()
    with fm.backend("auto"):
        return backends.chosen(device.upper(), name) == forced


@pytest.mark.parametrize("name", list(ops.SCHEMAS))
def test_opcheck(device, name):
    """Both ops of a name trace the same fake implementation and formula, so the default one is
    traced with a sample of each kind, the chosen one with the last: it adds its memory of the
    backend."""
    samples, seen = sample_inputs(device)[name], set()
    for k, args in enumerate(samples):
        if is_default(device, name):  # no forced backend reaches this op: it needs no other test
            traced = () if traced_alike(args) in seen else (TRACED,)
            seen.add(traced_alike(args))
            torch.library.opcheck(ops.default_op(name), args, test_utils=(*QUICK, *traced))
        traced = (TRACED,) if k == len(samples) - 1 else ()
        torch.library.opcheck(ops.chosen_op(name), args, test_utils=(*QUICK, *traced))


@pytest.mark.proof
@pytest.mark.parametrize("name", list(ops.SCHEMAS))
def test_opcheck_traces_every_sample(device, name):
    if is_default(device, name):
        for args in sample_inputs(device)[name]:
            torch.library.opcheck(ops.default_op(name), args, test_utils=(TRACED,))


def test_each_op_is_in_every_backend():
    for name in ops.SCHEMAS:
        assert callable(getattr(reference, name))
        for namespace in (ops.NAMESPACE, ops.CHOSEN):
            for key in ("Meta", "CompositeExplicitAutograd"):
                assert torch._C._dispatch_has_kernel_for_dispatch_key(f"{namespace}::{name}", key)


# ------------------------------------------------------------------ torch.compile


RECTANGLES, PATCHES = fm.resize_into(6, (4, 5), (1, 0, 3, 4)), fm.PatchPlan([[[1], [0]]] * 6)


def step(x, weight, plan, labels, mask):
    """A training step that uses every public op of the package."""
    fm.mix_(x, plan)
    x = fm.mix_rectangles(fm.mix_patches(x, PATCHES.to(x.device)), RECTANGLES.to(x.device))
    again = fm.mix(x * weight, plan)
    fm.paste_(mask, plan) if not plan.blends else mask
    target = MixedTarget.from_labels(labels, plan, 10, 0.1)
    logits = again.flatten(1)[:, :10]
    loss = fm.soft_target_cross_entropy(logits, target, label_smoothing=0.05)
    dense = fm.mix_targets(labels, plan, 10)
    return loss + fm.soft_target_cross_entropy(logits, dense, reduction="none").mean()


def compile_plans(device):
    return [
        MixPlan.uniform(6, "flip", 0.3),
        MixPlan.uniform(6, "flip", 0.3, [1, 1, 3, 4]),
        MixPlan.per_sample(torch.rand(6), torch.randperm(6), [[0, 0, 2, 2]] * 6).to(device),
    ]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile_gives_the_same_numbers(device, dynamic):
    """Inductor compiles C++ (or Triton) for each graph, which takes most of the time. What it makes
    of our ops differs by their arguments: by host rows and a box, as by tensors and a partner.
    ``aot_eager`` traces the other graphs, and runs them as they are given to Inductor. A backend
    that is forced changes what the ops call, not the graph: one plan shows that it is called."""
    torch._dynamo.reset()
    by_default = is_default(device, "mix")
    for k, plan in enumerate(compile_plans(device)):
        if k != 1 + dynamic and not by_default:
            continue
        compiler = "inductor" if k == 1 + dynamic and by_default else "aot_eager"
        x = torch.randn(6, 3, 4, 5, device=device)
        labels = torch.randint(0, 10, (6,), device=device)
        mask = torch.randint(0, 5, (6, 4, 5), device=device)
        results = []
        compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend=compiler)
        for run in (step, compiled):
            weight = torch.full((), 1.5, device=device, requires_grad=True)
            mixed, pasted = x.clone(), mask.clone()
            loss = run(mixed, weight, plan, labels, pasted)
            loss.backward()
            results.append((loss.detach(), weight.grad, mixed, pasted))
        for expected, got in zip(*results, strict=True):
            # On a GPU compiled code sums the gradient in another order.
            margin = 1e-6 if device == "cpu" else 1e-5
            torch.testing.assert_close(got, expected, rtol=margin, atol=margin)


def test_a_new_lam_does_not_recompile():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(lambda x, p: fm.mix(x, p), backend=counter, fullgraph=True)
    x = torch.randn(4, 3, 8, 8)
    for lam in (0.1, 0.2, 0.35, 0.9):
        for box in ([0, 0, 3, 3], [2, 1, 8, 7]):
            for plan in (MixPlan.uniform(4, "flip", lam), MixPlan.uniform(4, "flip", lam, box)):
                assert torch.equal(compiled(x, plan), fm.mix(x, plan))
    assert counter.frame_count == 2  # one graph without boxes, one with


# ------------------------------------------------------------------ loading


def run_python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(
    backends.reason_unavailable("native", "CPU") is not None,
    reason="the CPU extension is not built",
)
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_numbers(name):
    sets = {"DEFAULT": 1, "AVX2": 2, "AVX512": 3}.get(torch.backends.cpu.get_cpu_capability(), 1)
    if name not in ["baseline", "avx2", "avx512"][:sets]:
        pytest.skip(f"this CPU has no {name}; test_cpu_sanitizers.py runs its source all the same")
    if name == importlib.import_module("fused_mixup._C").cpu_capability():
        pytest.skip(f"every other test runs {name}, and test_cpu_sanitizers.py this grid with it")
    grid = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sanitized", "grid.py")
    root = os.path.dirname(os.path.dirname(fm.__file__))
    done = subprocess.run(
        [sys.executable, grid],
        # test_cpu_sanitizers.py runs the whole grid, with each instruction set.
        env={**os.environ, "FUSED_MIXUP_CPU": name, "FUSED_MIXUP_GRID": "thin", "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["on"] == name
    assert result["compared"].keys() == ops.SCHEMAS.keys()
    assert min(result["compared"].values()) > 30, result


@pytest.mark.parametrize("mode", ["", "_grad", "_backward", "_backward_"])
@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("soft_target_cross_entropy", CrossEntropyArguments),
        ("soft_target_binary_cross_entropy", BinaryCrossEntropyArguments),
    ],
)
def test_named_arguments_of_the_losses_are_those_of_their_schemas(op, arguments, mode):
    names = re.findall(r"(\w+)[,)]", SCHEMAS[op + mode].split("->")[0])
    start = names.index("target")
    assert tuple(names[start:][: len(arguments._fields)]) == arguments._fields
    assert names[start:][len(arguments._fields) :] in ([], ["ranks"])


def test_an_unknown_instruction_set_is_an_error():
    done = run_python("import fused_mixup", FUSED_MIXUP_CPU="avx")
    assert "FUSED_MIXUP_CPU: expected one of" in done.stderr


def test_import_does_not_start_cuda():
    # A process that has started CUDA cannot be forked by a data loader.
    code = (
        "import torch; torch.cuda.is_available = torch.cuda.init = "
        "lambda *a: (_ for _ in ()).throw(AssertionError('asked')); import fused_mixup; print('ok')"
    )
    done = run_python(code)
    assert done.stdout.strip() == "ok", done.stderr


def test_arguments_that_would_crash_a_kernel_are_refused():
    plan = MixPlan.identity(2)
    with pytest.raises(RuntimeError):
        ops.mix_(torch.ones(2, 3), None, plan.blend, plan.box[:1], 0)


def test_bare_name_of_the_triton_package_is_refused():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not os.path.isdir(os.path.join(root, "triton_kernels")):
        pytest.skip("needs the source tree")
    done = subprocess.run(
        [sys.executable, "-c", "import triton_kernels"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode != 0 and "fused_mixup.triton_kernels" in done.stderr


def test_public_names():
    assert sorted(fm.__all__) == [
        "BatchMix", "Erasing", "ManifoldMixup", "MixPlan", "MixedTarget", "PatchPlan", "Prefetcher",
        "RectanglePlan",
        "SoftTargetBinaryCrossEntropy", "SoftTargetCrossEntropy", "backend", "cutmix_box",
        "decoupled_mixup_cross_entropy", "draw_plan", "draw_resizemix", "draw_variants",
        "erasing_settings",
        "linear_soft_target_cross_entropy", "mix", "mix_", "mix_boxes", "mix_keypoints",
        "mix_labels", "mix_normalize", "mix_patches", "mix_rectangles", "mix_samples",
        "mix_targets", "mixed_accuracy", "mixed_criterion", "mosaic_plan", "paste_",
        "plan_settings", "plan_state", "random_erasing", "resize_into", "ricap_plan",
        "shifted_cutmix", "soft_target_binary_cross_entropy", "soft_target_cross_entropy",
        "variant_settings",
    ]  # fmt: skip
    assert all(hasattr(fm, name) for name in fm.__all__)
