"""Compiled modules that may not be loaded, and source trees that hide an installed package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import native_build
import pytest
import torch

import fused_mixup
from fused_mixup import gpus

HERE = Path(fused_mixup.__file__).resolve().parent
BUILD_INFO = """
TORCH, COMPILER, CUDA_TOOLKIT, ARCH_LIST = "2.14.1+cu130", "c++", "{cuda}", "5.0+PTX"
DEBUG, MODULES, LEFT_OUT, FINGERPRINT = False, ["_C_cuda"], {{}}, ""
TORCH_CUDA = "{cuda}"
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of the sources without compiled files, as in a fresh checkout."""
    left_out = shutil.ignore_patterns("*.so", "*.pyd", "_build_info.py", "__pycache__")
    shutil.copytree(HERE, tmp_path / "tree" / "fused_mixup", ignore=left_out)
    triton = next(p for p in (HERE, HERE.parent) if (p / "triton_kernels").is_dir())
    shutil.copytree(
        triton / "triton_kernels", tmp_path / "tree" / "triton_kernels", ignore=left_out
    )
    (tmp_path / "tree" / "csrc").mkdir()
    return tmp_path / "tree"


# Runs each program of its input in a fork of a process that has imported only PyTorch.
SERVER = """
import contextlib, io, json, os, sys, traceback
import numpy, torch, torch.distributed

# The tests' own environment may have an editable install.
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in str(f).lower()]
for line in sys.stdin:
    code, cwd, path = json.loads(line)
    back, there = os.pipe()
    if not (child := os.fork()):
        os.chdir(cwd)
        sys.path[:] = ["", *path, *(p for p in sys.path if "site-packages" in p or "/lib" in p)]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            with contextlib.redirect_stderr(io.StringIO()) as err:
                try:
                    exec(compile(code, "<string>", "exec"), {})
                except BaseException:
                    traceback.print_exc()
        with open(there, "w") as pipe:
            json.dump([out.getvalue(), err.getvalue()], pipe)
        os._exit(0)
    os.close(there)
    with open(back) as pipe:
        print(json.dumps(pipe.read()), flush=True)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def run():
    """A function that runs a program in a folder as ``python -c`` does, with a longer path."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:

        def run(cwd, code, path=()):
            server.stdin.write(json.dumps([code, str(cwd), [str(p) for p in path]]) + "\n")
            server.stdin.flush()
            return json.loads(json.loads(server.stdout.readline()))

        yield run
        server.stdin.close()


# ------------------------------------------------------------------ compiled modules


LOAD = """
import torch
torch.version.cuda = "{here}"
from fused_mixup import backends, env
print("chosen", backends.chosen("CUDA"))
print(env.report())
"""


@pytest.mark.parametrize(
    ("built", "here", "loads"),
    [("13.0", "12.8", False), ("12.8", "13.0", False), ("12.4", "12.8", True), ("", "12.8", True)],
)
def test_a_module_for_another_cuda_is_not_loaded(built, here, loads, tree, run):
    package = tree / "fused_mixup"
    (package / "_C_cuda.py").write_text("print('loaded')")  # it would register kernels
    if built:
        (package / "_build_info.py").write_text(BUILD_INFO.format(cuda=built))
    out, err = run(tree, LOAD.format(here=here))
    assert ("loaded" in out.splitlines()) == loads
    assert ("chosen native" in out) == loads
    why = f"_C_cuda is built for CUDA {built} (with PyTorch 2.14.1+cu130), and this PyTorch"
    assert (why in out) != loads
    remedy = f"for CUDA {here}; build it for this one, with an nvcc of CUDA {here[:2]}: pip install"
    assert (remedy in out) != loads


@pytest.mark.parametrize(
    ("arch_list", "gpu", "form"),
    [
        ("8.0;9.0;10.0+PTX", (9, 0), "binary"),
        ("8.0;9.0;10.0+PTX", (8, 6), "binary"),  # of the same major version
        ("8.0;9.0;10.0+PTX", (12, 0), "PTX"),
        ("8.0;9.0;10.0+PTX", (7, 5), None),
        ("8.0 9.0", (10, 0), None),
        ("8.9", (8, 6), None),  # older than the binary
        ("9.0a", (9, 0), "binary"),
        ("10.0a+PTX", (10, 3), None),  # for that one alone
        ("10.0f", (10, 3), "binary"),
        ("Hopper", (7, 5), "binary"),  # a name, which is not looked up
        ("", (9, 0), None),
    ],
)
def test_what_a_gpu_runs_of_a_build(arch_list, gpu, form):
    assert gpus.form_of(arch_list, gpu) == form


NVML = """
extern "C" {{
int nvmlInit_v2() {{ return {error}; }}
int nvmlShutdown() {{ return 0; }}
int nvmlDeviceGetCount_v2(unsigned* count) {{ *count = {count}; return 0; }}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** gpu) {{ *gpu = (void*)(i + 1l); return 0; }}
int nvmlDeviceGetCudaComputeCapability(void* gpu, int* major, int* minor) {{
  *major = {major} + ((long)gpu - 1); *minor = 0; return 0;
}}
}}
"""


@pytest.mark.parametrize(
    ("major", "count", "error", "loads"),
    [(10, 1, 0, False), (9, 1, 0, True), (8, 2, 0, True), (10, 0, 0, True), (10, 1, 9, True)],
    ids=["newer", "built for", "one of two", "none there", "no answer"],
)
def test_a_module_without_kernels_for_this_gpu_is_not_loaded(
    major, count, error, loads, tree, run, tmp_path
):
    """NVIDIA's library is asked, as CUDA may not be initialised by an import: here a small one."""
    if native_build.compiler() is None or sys.platform != "linux":
        pytest.skip("needs a C++ compiler, and Linux")
    source, library = tmp_path / "nvml.cpp", tmp_path / "libnvidia-ml.so.1"
    source.write_text(NVML.format(major=major, count=count, error=error))
    name = f"-Wl,-soname,{library.name}"
    native_build.compile_with("-shared", "-fPIC", name, source, "-o", library)
    (tree / "fused_mixup" / "_C_cuda.py").write_text("print('loaded')")
    info = BUILD_INFO.format(cuda="12.8").replace("5.0+PTX", "9.0")
    (tree / "fused_mixup" / "_build_info.py").write_text(info)
    load = LOAD.format(here="12.8") + "assert not torch.cuda.is_initialized()"
    out, err = run(tree, f"import ctypes; ctypes.CDLL({str(library)!r})\n" + load)
    assert not err and ("loaded" in out.splitlines()) == ("chosen native" in out) == loads
    why = "fused_mixup._C_cuda is built for 9.0, and the GPU here is 10.0; build it for this GPU"
    assert (why in out) != loads


def test_a_build_without_cuda_says_that_this_pytorch_has_it(tree, run):
    info = BUILD_INFO.format(cuda="").replace("{}", "{'_C_cuda': 'it had no CUDA'}")
    info = info.replace('TORCH_CUDA = ""', "TORCH_CUDA = None")
    (tree / "fused_mixup" / "_build_info.py").write_text(info)
    out, err = run(tree, LOAD.format(here="12.8"))
    said = (
        f"_C_cuda was left out when built: it had no CUDA. This PyTorch ({torch.__version__}) has"
    )
    assert out.count(said) == 2, out + err
    (tree / "fused_mixup" / "_build_info.py").write_text(info.replace("= None", '= "12.8"'))
    out, err = run(tree, LOAD.format(here="12.8"))
    assert "left out when built: it had no CUDA" in out and "has it" not in out


@pytest.mark.parametrize(
    "fault",
    ["raise OSError('libcudart.so.13: cannot open')", "import nothing_of_this_name", "1 / 0"],
)
def test_a_module_that_fails_says_why(fault, tree, run):
    (tree / "fused_mixup" / "_C.py").write_text(fault)
    out, err = run(tree, "from fused_mixup import env; print(env.report())")
    error = {"r": "OSError: libcudart", "i": "ModuleNotFoundError: No", "1": "ZeroDivisionError"}
    why = f"fused_mixup._C does not load: {error[fault[0]]}"
    assert out.count(why) == 2, out  # in the builds; why native is not chosen
    assert "build it again for this PyTorch" in out


# ------------------------------------------------------------------ sources that hide a package


IMPORT = "import fused_mixup; print(fused_mixup.backends.chosen('CPU'))"


@pytest.fixture
def installed(tmp_path):
    """A folder of site-packages with an installed package; its modules are not loaded here."""
    package = tmp_path / "site" / "fused_mixup"
    package.mkdir(parents=True)
    for name in ("__init__.py", "_C.abi3.so", "_C_cuda.abi3.so"):
        (package / name).touch()
    return tmp_path / "site"


def test_a_source_tree_that_hides_an_installed_package_says_so(tree, installed, run):
    out, err = run(tree, IMPORT, [installed])
    assert out.strip() == "reference" and err.count("UserWarning") == 1
    for part in (
        "<string>:1: UserWarning",  # the line that imports it
        f"imported from {tree / 'fused_mixup'}, without the compiled _C and _C_cuda",
        f"hides the one installed in {installed / 'fused_mixup'}",
        "Run Python from another directory",
        "pip install --no-build-isolation -e .",
    ):
        assert part in err


def test_the_report_says_what_is_hidden_and_child_processes_stay_silent(tree, installed, run):
    out, err = run(tree, "from fused_mixup import env; print(env.report())", [installed])
    assert out.count(f"which hides the one installed in {installed / 'fused_mixup'}") >= 2
    assert "install with" not in out
    child = "import multiprocessing\nmultiprocessing.parent_process = lambda: 1\n"
    out, err = run(tree, child + IMPORT, [installed])
    assert out.strip() == "reference" and not err


def test_one_compiled_module_of_two_is_hidden(tree, installed, run):
    (tree / "fused_mixup" / "_C.py").touch()
    out, err = run(tree, IMPORT, [installed])
    assert "without the compiled _C_cuda, and hides" in err


EDITABLE = """
import importlib.util, os, sys


class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        file = os.path.join(sys.argv[1], *name.split(".")) + ".py"
        return importlib.util.spec_from_file_location(name, file) if "_C" in name else None


sys.meta_path.append(Editable)
"""


def test_a_module_of_another_checkout_is_not_loaded(tree, tmp_path, run):
    other = tmp_path / "other" / "fused_mixup"
    other.mkdir(parents=True)
    (other / "_C.py").write_text("print('loaded')")
    code = EDITABLE.replace("sys.argv[1]", repr(str(other.parent))) + IMPORT
    out, err = run(tree, code)
    assert out.strip() == "reference", err
    assert f"hides the one installed in {other}" in err


def test_nothing_is_said_where_nothing_is_hidden(tree, installed, tmp_path, run):
    for path in [], [tmp_path / "nowhere", tree, tree / "fused_mixup"]:
        out, err = run(tree, IMPORT, path)
        assert out.strip() == "reference" and not err
    (installed / "fused_mixup" / "_C.abi3.so").unlink()  # installed without compiled modules
    (installed / "fused_mixup" / "_C_cuda.abi3.so").unlink()
    assert not run(tree, IMPORT, [installed])[1]
    for name in ("_C", "_C_cuda"):  # the hiding tree has these modules too
        (tree / "fused_mixup" / f"{name}.py").touch()
        (installed / "fused_mixup" / f"{name}.abi3.so").touch()
    assert not run(tree, IMPORT, [installed])[1]
