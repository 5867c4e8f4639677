"""The layout for the kernel hub of Hugging Face, which the package `kernels` itself loads."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "tools" / "hub.py").exists():
    pytest.skip("needs the source tree", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))

import build_support  # noqa: E402
import hub  # noqa: E402

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

ALLOWED = {*sys.stdlib_module_names, "torch", "triton"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "project"
    hub.project(out)
    return out


def imported_at_once(body: list[ast.stmt]) -> set[str]:
    """Other packages that importing a module imports; `try` may fail, TYPE_CHECKING is false."""
    found = set()
    for node in body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.ClassDef):
            found |= imported_at_once(node.body)
    return found


def test_the_kernel_imports_pytorch_triton_and_itself_alone(project):
    paths = [*(project / "torch-ext").rglob("*.py")]
    assert len(paths) > 150
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert imported_at_once(tree.body) <= ALLOWED, path
        absolute = {
            name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in imported_at_once([node])
        }
        assert "fused_mixup" not in absolute, path  # the hub gives the package another name


def test_no_name_of_the_package_is_left_in_what_runs(project):
    """Namespaces and modules by name; messages and documentation may say fused_mixup."""
    by_name = re.compile(r'import_module\(f?"fused_mixup|torch\.ops\.fused_mixup|"fused_mixup::')
    for path in (project / "torch-ext").rglob("*.py"):
        code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
        code = re.sub(r'""".*?"""', "", code, flags=re.S).replace("'", '"')
        assert not by_name.search(code), path
    for path in (project / "csrc").rglob("*.c*"):
        assert "IMPL(fused_mixup" not in path.read_text(encoding="utf-8"), path


def test_the_build_names_every_source_and_the_flags_of_setup(project):
    said = tomllib.loads((project / "build.toml").read_text(encoding="utf-8"))
    assert said["general"]["edition"] == 5
    common, cuda = said["torch"], said["kernel"]["fused_mixup_cuda"]
    there = {p.relative_to(project).as_posix() for p in (project / "csrc").rglob("*.*")}
    assert there - {*common["src"], *cuda["src"]} == {"csrc/cuda/module.cpp"}
    # One library has one PyInit_; that of the CPU kernels is in both.
    assert "csrc/cpu/module.cpp" in common["src"] and "csrc/cuda/module.cpp" not in cuda["src"]
    assert {"-ffp-contract=off", hub.NAMESPACE} <= {*common["cxx-flags"]}
    assert hub.NAMESPACE in cuda["cuda-flags"]
    major, minor = map(int, said["torch"]["stable-abi"]["cpu"].split("."))
    target = dict(build_support.MACROS)["TORCH_TARGET_VERSION"]
    assert int(target, 16) == major << 56 | minor << 48


LOAD = """
import sys
from pathlib import Path
import torch
from kernels import get_local_kernel
from kernels._rust import Build, Digest, DigestAlgorithm, Metadata

import fused_mixup
folder = Path(sys.argv[1])
assert [str(b) for b in Build.open(folder).general.backends] == ["cpu", "cuda"]
(variant,) = (folder / "build").iterdir()
said = Metadata.read_from_file(variant / "metadata.json")
said.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))
kernel = get_local_kernel(folder, backend="cpu")
assert kernel.__name__ == said.id

x, labels = torch.rand(8, 3, 40, 40), torch.arange(8)
logits = torch.randn(8, 10)
results = []
for k in (fused_mixup, kernel):
    ours = __import__(k.__name__ + ".backends", fromlist=["backends"])
    assert ours.reason_unavailable("native", "CPU") is None
    assert ours.reason_unavailable("native", "CUDA") is not None
    plan = k.MixPlan.uniform(8, "roll", 0.3)
    mixed = torch.compile(k.mix, backend="eager", fullgraph=True)(x, plan)
    target = k.MixedTarget.from_labels(labels, plan, num_classes=10)
    own = logits.clone().requires_grad_()
    k.soft_target_cross_entropy(own, target).backward()
    alphas = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}
    drawn = k.draw_plan(8, (40, 40), state=k.plan_state(5), pairing="shuffle", **alphas)
    results.append([mixed, own.grad, drawn.partner, drawn.blend, drawn.box])
assert all(map(torch.equal, *results))
assert torch._C._dispatch_has_kernel_for_dispatch_key(f"{said.id}::mix_", "CPU")
print("loaded", said.id)
"""


@pytest.mark.proof
def test_a_build_and_the_package_share_a_process(tmp_path):
    """`kernels` finds, checks and loads what is built; its ops are its own, their bits the same."""
    if "kernels" not in importlib.metadata.packages_distributions():  # tools/kernels.py is no such
        pytest.skip("needs kernels 0.17; transformers, in the same environment, would use it")
    hub.project(tmp_path)
    variant = hub.build_cpu(tmp_path)
    assert variant.name.startswith("torch-stable-abi210-cpu-")
    run = [sys.executable, "-c", LOAD, str(tmp_path)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("loaded _fused_mixup_cpu_")
