"""Only one file uses private names of PyTorch, and each of them may be missing."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fused_mixup as fm
from fused_mixup import tracing

ROOT = Path(fm.__file__).resolve().parent.parent
SOURCES = [
    p for of in ("fused_mixup", "triton_kernels") for p in sorted((ROOT / of).glob("**/*.py"))
]


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names(path: Path) -> tuple[set[str], set[tuple[str, int]]]:
    """(private names that the file defines, private names that it reads from other objects)."""
    defined, read = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Attribute):
            if isinstance(node.ctx, ast.Store):
                defined.add(node.attr)
            else:
                read.add((node.attr, node.lineno))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            read |= {(part, node.lineno) for part in parts}
        elif isinstance(node, ast.Import):
            read |= {(p, node.lineno) for alias in node.names for p in alias.name.split(".")}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            read |= {(a.value, a.lineno) for a in node.args[1:2] if isinstance(a, ast.Constant)}
    return defined, {(name, line) for name, line in read if private(name)}


def test_no_other_file_names_a_private_attribute_of_pytorch():
    assert len(SOURCES) > 40
    per_file = {path: names(path) for path in SOURCES}
    ours = set().union(*(defined for defined, _ in per_file.values()))
    ours |= {"_C", "_C_cuda", "_build_info"}  # torch._C is looked for below
    ours |= {"_fields", "_asdict", "_is_gil_enabled"}  # methods of namedtuples and of sys
    ours |= {"_check_mask_given"}  # a method that the classes of fused_mixup.kornia inherit
    foreign = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path, (_, read) in per_file.items()
        for name, line in read
        if name not in ours and path.name != "tracing.py"
    ]
    assert not foreign
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert path.name == "tracing.py" or not re.search(r"\btorch\._[a-zA-Z]", text), path


def documented() -> list[str]:
    """The names in the table of the module's docstring."""
    table = tracing.__doc__.split(":\n\n", 1)[1]
    return [name for line in table.splitlines() for name in line.strip().split("  ")[0].split(", ")]


# A training step and its surroundings, in a process where fused_mixup/tracing.py lacks one name
# after another. PyTorch itself keeps it.
STEPS = """
import importlib.machinery, importlib.util, json, os, sys, warnings
import torch

torch.set_num_threads(1)
ones = torch.ones(2)
torch.func.jvp(torch.func.grad(torch.sum), (ones,), (ones,))  # imports much, once for all forks
hidden = None


def hiding(thing, name, *default):
    if hidden and hidden.split(".")[-1] == name:
        if default:
            return default[0]
        raise AttributeError(name)
    return getattr(thing, name, *default)


class Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        module.getattr = hiding
        module.hasattr = lambda thing, name: hiding(thing, name, None) is not None
        super().exec_module(module)


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "fused_mixup.tracing":
            at = os.path.join(os.path.dirname(importlib.util.find_spec("fused_mixup").origin),
                              "tracing.py")
            return importlib.util.spec_from_file_location(name, at, loader=Loader(name, at))


sys.meta_path.insert(0, Finder)


def refused(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "ran"


def step():
    import fused_mixup as fm
    from fused_mixup import memory
    from torch.utils.checkpoint import checkpoint
    from fused_mixup.tracing import (
        in_backward, sample_beta, shared_storage, tree_flatten, tree_unflatten
    )

    torch.manual_seed(0)
    plan = fm.MixPlan.per_sample(torch.rand(8), torch.randperm(8))
    x = torch.randn(8, 3, 220, 220, requires_grad=True)
    labels = torch.arange(8)
    target = fm.MixedTarget.from_labels(labels, plan, 50)
    found = []
    for mode in ({}, {"grad_in_forward": True}, {"inplace_backward": True}):
        x.grad = None
        mixed = fm.mix(x, plan)
        z = mixed.flatten(1)[:, :50] * 1.5
        fm.soft_target_cross_entropy(z, target, **mode).backward()
        found.append(x.grad.double().sum().item())
    z = torch.randn(8, 50, requires_grad=True)
    loss = fm.soft_target_cross_entropy(z, target)
    (g,) = torch.autograd.grad(loss, z, create_graph=True)
    found += torch.autograd.grad(g.square().sum(), z)[0].sum(0).tolist()
    loss = fm.soft_target_cross_entropy(z, target, grad_in_forward=True)
    for _ in range(2):
        z.grad = None
        loss.backward(retain_graph=True)
        found += z.grad.sum(0).tolist()
    found += torch.func.grad(lambda z: fm.soft_target_cross_entropy(z, target))(z)[0].tolist()
    fm.linear_soft_target_cross_entropy(z, torch.eye(50), None, target).backward()
    found += z.grad[0].tolist()
    found += torch.func.jvp(lambda z: fm.mix(z, plan), (z,), (z,))[1].sum(0).tolist()
    with torch.autograd.forward_ad.dual_level():
        mixed = fm.mix(torch.autograd.forward_ad.make_dual(z, z), plan)
        found += torch.autograd.forward_ad.unpack_dual(mixed).tangent.sum(0).tolist()
    leaf_view = z.view(-1).view(8, 50)
    found.append(refused(
        lambda: fm.soft_target_cross_entropy(leaf_view, target, inplace_backward=True)))
    inside = []
    y = z * 1
    y.register_hook(lambda g: inside.append(in_backward()))
    y.sum().backward()
    found += [inside, in_backward()]
    found.append(sample_beta(torch.tensor([[0.3, 0.3]])))
    found.append([shared_storage(100).is_shared(), shared_storage(100).nbytes() == 100])
    found.append(fm.draw_plan(4, spatial=(8, 8), state=fm.plan_state(1)).weight.tolist())
    state = fm.plan_state(2)
    x.grad = None

    def region(x):
        return fm.mix(x, fm.draw_plan(8, state=state)).square() * weight

    weight = torch.arange(8.0).view(8, 1, 1, 1)
    found.append(refused(lambda: checkpoint(region, x, use_reentrant=False).sum().backward()))
    found += [] if x.grad is None else x.grad[:, 0, 0, 0].tolist()
    walked = refused(lambda: tree_unflatten(*tree_flatten({"a": [1, (2, 3)]})))
    return json.dumps(found), walked, memory.reason_off


for hidden in [None, *sys.argv[1:]]:
    sys.stdout.flush()
    if not os.fork():
        warnings.simplefilter("ignore")
        try:
            print(json.dumps([hidden, *step()]))
        except BaseException as error:
            print(json.dumps([hidden, f"{type(error).__name__}: {error}"]))
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def steps():
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *documented()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in lines] == [None, *documented()], done.stderr
    return {name: rest for name, *rest in lines}


def test_the_table_holds_what_the_module_looks_up():
    text = Path(tracing.__file__).read_text(encoding="utf-8").split('"""', 2)[2]
    for name in documented():
        assert name.split(".")[-1] in text
        assert (
            name == "Tensor._base"
            or tracing._private(name) is not None
            or name in ("_cdata",)
            or (
                name == "forward_ad._current_level"
                and torch.autograd.forward_ad._current_level == -1
            )
        )


@pytest.mark.parametrize("name", documented())
def test_a_step_gives_the_same_numbers_without(name, steps):
    numbers, walks, memory_off = steps[None]
    assert walks == "ran" and "ValueError" in numbers
    # PyTorch's own loss sums in another order.
    numbers, without = json.loads(numbers), json.loads(steps[name][0])
    if "_top_saved_tensors" in name:  # a checkpoint repeats this draw
        assert numbers[-9] == "ran" and without.pop() == "RuntimeError"
        numbers = numbers[:-9]
    for got, want in zip(without, numbers, strict=True):
        assert got == (pytest.approx(want, rel=1e-5, abs=1e-7) if type(want) is float else want)
    assert steps[name][1] == ("TypeError" if name.startswith("utils._pytree") else "ran")
    if name in ("_C._storage_Use_Count", "_cdata"):
        assert "does not tell" in steps[name][2]
    else:
        assert steps[name][2] == memory_off
