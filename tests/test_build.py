"""What setup.py decides to build, on simulated machines."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "tools" / "build_support.py").exists():
    pytest.skip("needs the source tree", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))

import build_probes as probes  # noqa: E402
import build_support as support  # noqa: E402

CPU_TORCH = probes.Torch("2.13.0+cpu", None)
CUDA_TORCH = probes.Torch("2.11.0+cu130", "13.0")


def make_toolkit(home: Path, release: str = "13.0", archs: str = "80 90 100 120") -> Path:
    """A CUDA home whose nvcc answers the two queries of the build: version and architectures."""
    (home / "bin").mkdir(parents=True)
    (home / "include").mkdir()
    (home / "include" / "cuda_runtime.h").touch()
    listed = "".join(f"echo compute_{arch}\n" for arch in archs.split())
    script = f'#!/bin/sh\n[ "$1" = --version ] && echo "release {release}, V{release}.0"\n'
    write_program(home / "bin" / "nvcc", script + f'[ "$1" = --list-gpu-arch ] && {{ {listed} }}\n')
    return home


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """The settings, a dict, of a machine with a C++ compiler, a CUDA PyTorch, sources, no GPU."""
    monkeypatch.setattr(support, "find_torch", lambda: CUDA_TORCH)
    monkeypatch.setattr(support, "find_compiler", lambda env: ("c++", "c++ 12.2"))
    monkeypatch.setattr(support, "visible_gpus", list)
    monkeypatch.setattr(probes.find_toolkit, "__defaults__", (tmp_path / "none",))
    monkeypatch.setattr(
        support, "_sources", lambda folder, *suffixes: [f"csrc/{folder}/mix{suffixes[0]}"]
    )
    return {"PATH": "", "CUDA_HOME": str(make_toolkit(tmp_path / "cuda"))}


# ------------------------------------------------------------------ architectures


def toolkit(*archs: tuple[int, int]) -> probes.Toolkit:
    return probes.Toolkit(Path("cuda"), "13.0", archs)


@pytest.mark.parametrize(
    ("archs", "visible", "expected"),
    [
        (((8, 0), (9, 0), (10, 0), (12, 0)), [], "8.0;9.0;10.0+PTX"),
        (((8, 0), (9, 0)), [], "8.0;9.0+PTX"),  # a toolkit from before 10.0
        (((9, 0), (10, 0)), [], "9.0;10.0+PTX"),  # a toolkit that has dropped 8.0
        ((), [], "8.0;9.0;10.0+PTX"),  # a toolkit that does not list them
        (((8, 0), (9, 0)), [(9, 0), (9, 0)], "9.0"),
        (((8, 0), (9, 0)), [(9, 0), (8, 0)], "8.0;9.0"),
        (((8, 0), (9, 0)), [(12, 0)], "9.0+PTX"),  # the GPU is newer than the toolkit
    ],
)
def test_arch_list(archs, visible, expected):
    assert probes.arch_list({}, toolkit(*archs), visible)[0] == expected


def test_arch_list_of_the_user_wins():
    env = {"TORCH_CUDA_ARCH_LIST": "8.6"}
    assert probes.arch_list(env, toolkit((8, 0)), [(9, 0)]) == ("8.6", "TORCH_CUDA_ARCH_LIST")


# ------------------------------------------------------------------ toolkit


def test_toolkit_is_asked_for_version_and_archs(tmp_path):
    home = make_toolkit(tmp_path / "cuda", "12.4", "75 80 90")
    found, why, notes = probes.find_toolkit({"CUDA_HOME": str(home)})
    assert (found.home, found.version, why, notes) == (home, "12.4", None, [])
    assert found.archs == ((7, 5), (8, 0), (9, 0))


def test_wrapper_script_on_the_path_is_not_trusted(tmp_path):
    wrapper = write_program(tmp_path / "local" / "bin" / "nvcc", "#!/bin/sh\n")
    home = make_toolkit(tmp_path / "cuda")
    found, _, notes = probes.find_toolkit({"PATH": str(wrapper.parent)}, default=home)
    assert found.home == home
    assert "not taken" in notes[0]
    assert "cuda_runtime.h" in notes[0]


def test_link_on_the_path_is_followed(tmp_path):
    home = make_toolkit(tmp_path / "cuda")
    link = tmp_path / "bin" / "nvcc"
    link.parent.mkdir()
    link.symlink_to(home / "bin" / "nvcc")
    found, _, _ = probes.find_toolkit({"PATH": str(link.parent)}, default=tmp_path / "none")
    assert found.home == home


def test_wrong_cuda_home_is_not_replaced_by_a_guess(tmp_path):
    home = make_toolkit(tmp_path / "cuda")
    found, why, _ = probes.find_toolkit({"CUDA_HOME": str(tmp_path)}, default=home)
    assert found is None
    assert "CUDA_HOME" in why


def test_versions_of_toolkit_and_pytorch():
    assert probes.version_mismatch(CUDA_TORCH, probes.Toolkit(Path("c"), "13.2", ())) is None
    why = probes.version_mismatch(CUDA_TORCH, probes.Toolkit(Path("c"), "12.4", ()))
    assert "13.0" in why
    assert "12.4" in why


# ------------------------------------------------------------------ the settings


def test_both_modules_without_a_gpu(machine):
    settings = support.find_settings(machine)
    assert sorted(settings.modules) == ["_C", "_C_cuda"]
    assert settings.arch_list == "8.0;9.0;10.0+PTX"
    text = support.summary(settings)
    for word in ("2.11.0+cu130", "c++ 12.2", "13.0", settings.arch_list, machine["CUDA_HOME"]):
        assert word in text


def test_cuda_0_leaves_it_out(machine):
    settings = support.find_settings({**machine, "FUSED_MIXUP_CUDA": "0"})
    assert list(settings.modules) == ["_C"]
    assert "FUSED_MIXUP_CUDA=0" in settings.left_out["_C_cuda"]


def no_cuda_torch(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(support, "find_torch", lambda: CPU_TORCH)
    return "without CUDA"


def no_toolkit(machine, monkeypatch, tmp_path):
    del machine["CUDA_HOME"]
    return "no CUDA toolkit"


def other_major(machine, monkeypatch, tmp_path):
    machine["CUDA_HOME"] = str(make_toolkit(tmp_path / "old", "12.4"))
    return "is CUDA 12.4"


def no_compiler(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(support, "find_compiler", lambda env: (None, "no C++ compiler found"))
    return "no C++ compiler"


@pytest.mark.parametrize("lack", [no_cuda_torch, no_toolkit, other_major, no_compiler])
def test_what_lacks_for_cuda_is_named_and_fatal_only_where_asked_for(
    lack, machine, monkeypatch, tmp_path
):
    reason = lack(machine, monkeypatch, tmp_path)
    settings = support.find_settings(machine)
    assert "_C_cuda" not in settings.modules
    assert reason in settings.left_out["_C_cuda"]
    assert reason in support.summary(settings)
    with pytest.raises(probes.BuildError, match=re.escape(reason)):
        support.find_settings({**machine, "FUSED_MIXUP_CUDA": "1"})


@pytest.mark.parametrize(
    ("name", "value"), [("FUSED_MIXUP_CUDA", "yes"), ("DEBUG", "full"), ("MAX_JOBS", "all")]
)
def test_settings_that_mean_nothing_are_refused(machine, name, value):
    with pytest.raises(probes.BuildError, match=f"{name}.*{value}"):
        support.find_settings({**machine, name: value})


@pytest.mark.parametrize("env", [{"CXX": "/nonexistent", "PATH": os.defpath}, {"PATH": ""}])
def test_no_compiler_builds_plain_python(monkeypatch, env):
    monkeypatch.setattr(support, "find_torch", lambda: CPU_TORCH)
    settings = support.find_settings(env)
    assert settings.modules == {}
    assert "plain Python" in support.summary(settings)


def test_compiler_that_does_not_compile_is_none(tmp_path):
    broken = write_program(tmp_path / "c++", "#!/bin/sh\necho broken >&2\nexit 1\n")
    command, why = probes.find_compiler({"CXX": str(broken), "PATH": ""})
    assert command is None
    assert "broken" in why or "Python.h" in why


def test_no_pytorch_is_an_error_with_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for soabi, remedy in (
        ("cpython-312-x86_64-linux-gnu", "pip install torch first, or leave --no-build-isolation"),
        (
            "cpython-312-x86_64-linux-musl",
            "no wheels of it for musl (Alpine); use a system with glibc",
        ),
    ):
        monkeypatch.setattr(sysconfig, "get_config_var", {"SOABI": soabi}.get)
        with pytest.raises(probes.BuildError, match=re.escape(remedy)) as error:
            probes.find_torch()
        assert "\n" not in str(error.value)


def test_old_pytorch_is_refused(monkeypatch, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.9.1'\ncuda = None\n")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(probes.BuildError, match=r"2\.9\.1"):
        probes.find_torch()


@pytest.mark.parametrize(
    ("modules", "cores", "free", "jobs"),
    [
        (["_C"], 64, 200_000, 64),
        (["_C"], 64, 3900, 7),
        (["_C", "_C_cuda"], 64, 3900, 3),
        (["_C"], 8, 100, 1),
        (["_C"], 8, None, 8),  # unknown
        ([], 8, 4000, 8),
    ],
)
def test_jobs_are_capped_by_free_memory(modules, cores, free, jobs):
    assert probes.compile_jobs(modules, cores, free) == jobs


CGROUPS = {
    "none": ({}, 8000),
    "v2": ({"memory.max": 3000, "memory.current": 1000, "memory.stat": 500}, 2500),
    "v2, no limit": ({"memory.max": "max", "memory.current": 1000}, 8000),
    "v1": ({"memory/memory.limit_in_bytes": 3000, "memory/memory.usage_in_bytes": 1000}, 2000),
    "v1, no limit": (
        {"memory/memory.limit_in_bytes": 2**43, "memory/memory.usage_in_bytes": 9},
        8000,
    ),
}


@pytest.mark.parametrize("cgroup", CGROUPS)
def test_free_memory_is_that_of_the_container(cgroup, tmp_path):
    assert probes.free_memory(tmp_path) is None
    files, free = CGROUPS[cgroup]
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {8000 * 1024} kB\n")
    for name, value in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = value if value == "max" else str(value * 2**20)
        path.write_text(f"inactive_file {text}\n" if name == "memory.stat" else text + "\n")
    assert probes.free_memory(tmp_path) == free


def test_max_jobs_of_the_user_wins(machine, monkeypatch):
    monkeypatch.setattr(support, "free_memory", lambda: 1)
    assert support.find_settings(machine).jobs == 1
    settings = support.find_settings({**machine, "MAX_JOBS": "7"})
    assert settings.jobs == 7 and "7 at once" in support.summary(settings)


def test_fingerprint_follows_what_matters():
    base = support.fingerprint(CPU_TORCH, {})
    assert base == support.fingerprint(CPU_TORCH, {"HOME": "elsewhere"})
    assert base != support.fingerprint(CUDA_TORCH, {})
    assert base != support.fingerprint(CPU_TORCH, {"DEBUG": "1"})


@pytest.mark.parametrize(
    ("free_threaded", "macros"),
    [(0, {"TORCH_TARGET_VERSION", "Py_LIMITED_API"}), (1, {"TORCH_TARGET_VERSION"})],
)
def test_a_free_threaded_python_is_built_for_alone(machine, monkeypatch, free_threaded, macros):
    """Headers of a free-threaded Python have an #error where the limited API is requested."""
    ask = sysconfig.get_config_var
    variables = {"Py_GIL_DISABLED": free_threaded}
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: variables.get(name, ask(name)))
    settings = support.find_settings(machine)
    assert dict(settings.macros).keys() == macros
    assert settings.limited_api == (not free_threaded)
    assert ("free-threaded" in support.summary(settings)) == bool(free_threaded)
    assert f"LIMITED_API = {settings.limited_api}" in support.build_info(settings)


def test_what_a_load_must_know_of_the_build_is_written_down(machine):
    values: dict = {}
    exec(support.build_info(support.find_settings(machine)), values)
    assert (values["TORCH"], values["TORCH_CUDA"]) == ("2.11.0+cu130", "13.0")
    assert (values["CUDA_TOOLKIT"], values["MODULES"]) == ("13.0", ["_C", "_C_cuda"])


def test_a_pytorch_that_pip_fetched_for_the_build_alone_is_named(machine, monkeypatch):
    fetched = probes.Torch("2.15.0+cu132", "13.2", isolated=True)
    monkeypatch.setattr(support, "find_torch", lambda: fetched)
    text = support.summary(support.find_settings(machine))
    assert "2.15.0+cu132 was fetched by pip for this build alone" in text
    assert "--no-build-isolation" in text


@pytest.mark.parametrize("folder", ["site-packages", "pip-build-env-1a2b/overlay"])
def test_isolation_is_seen_by_the_place_of_pytorch(monkeypatch, tmp_path, folder):
    package = tmp_path / folder / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "version.py").write_text("__version__ = '2.12.0'\ncuda = None\n")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(package.parent)
    assert probes.find_torch().isolated == folder.startswith("pip-build-env-")
