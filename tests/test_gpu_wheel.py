"""Which wheels `make gpu-wheel` packs, and which of a folder `make gpu WHEEL=…` installs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import gpu_wheel  # noqa: E402
import setup_env  # noqa: E402

HERE = f"cp3{sys.version_info.minor}"


def test_what_travels_is_asked_for_one_version_of_python(tmp_path):
    commands = gpu_wheel.downloads("3.12", tmp_path)
    for command in commands:
        assert command[command.index("--python-version") + 1] == "3.12"
        assert command[command.index("--only-binary") + 1] == ":all:"
        assert command[command.index("--dest") + 1] == str(tmp_path)
    alone = [command[-1] for command in commands if "--no-deps" in command]
    assert alone == [*gpu_wheel.ALONE]  # that would install PyTorch as well
    (together,) = (command for command in commands if "--no-deps" not in command)
    assert together[-len(gpu_wheel.WITH_THEIRS) :] == [*gpu_wheel.WITH_THEIRS]


def test_versions_are_those_of_the_project():
    """The GPU's machine would leave out a package of another version than the project's."""
    groups = setup_env.groups()
    known = {re.split(r"[;\s]", text)[0] for text in (*groups["test"], *groups["bench"])}
    assert {*gpu_wheel.WITH_THEIRS, *gpu_wheel.ALONE} <= known


def test_the_largest_comes_first(tmp_path):
    for name, size in (("a", 2), ("b", 5), ("c", 1)):
        (tmp_path / f"{name}.whl").write_bytes(bytes(size * 2**18))
    text, total = gpu_wheel.table(tmp_path)
    assert [line.split()[-1] for line in text.splitlines()] == ["b.whl", "a.whl", "c.whl"]
    assert total == 2.0


def test_a_torch_without_cuda_builds_no_cuda_wheel(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(gpu_wheel, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_wheel.venv, "create", lambda *a, **k: None)
    monkeypatch.setattr(gpu_wheel, "run", lambda *words, env=None: ran.append(words) or True)
    monkeypatch.setattr(gpu_wheel, "cuda_of_torch", lambda: None)
    monkeypatch.delenv("TORCH", raising=False)
    python = gpu_wheel.builder()
    assert python == tmp_path / "build" / "gpu-wheel-env" / "bin" / "python"
    assert gpu_wheel.TORCH in ran[0]
    monkeypatch.setattr(gpu_wheel, "cuda_of_torch", lambda: "13.0")
    monkeypatch.setattr(gpu_wheel.importlib.util, "find_spec", lambda name: object())
    assert gpu_wheel.builder() == Path(sys.executable)


def test_a_build_takes_the_place_of_an_older_wheel(monkeypatch, tmp_path):
    (tmp_path / "fused_mixup-0.0.1-cp310-abi3-linux_x86_64.whl").touch()
    seen = {}

    def run(*words, env):
        seen.update(env)
        (tmp_path / "fused_mixup-0.1.0-cp310-abi3-linux_x86_64.whl").touch()
        return True

    monkeypatch.setattr(gpu_wheel, "run", run)
    wheel = gpu_wheel.build(Path(sys.executable), "8.0;9.0", tmp_path)
    assert wheel.name.startswith("fused_mixup-0.1.0")
    assert seen == {"FUSED_MIXUP_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "8.0;9.0"}
    monkeypatch.setattr(gpu_wheel, "run", lambda *words, env: False)
    with pytest.raises(SystemExit, match="the build failed"):
        gpu_wheel.build(Path(sys.executable), "9.0", tmp_path)


# ------------------------------------------------------------------ on the other machine


def test_wheels_that_fit_this_python(tmp_path):
    names = ("fused_mixup-0.1.0-cp310-abi3-linux_x86_64", "pytest-9.0-py3-none-any")
    names += (f"numpy-2.5-{HERE}-{HERE}-linux_x86_64", "pillow-13.0-cp39-cp39-linux_x86_64")
    names += ("pytest-8.0-py3-none-any",)
    for age, name in enumerate(names):
        path = tmp_path / f"{name}.whl"
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    found, others = setup_env.find_wheels(tmp_path)
    if os.uname().machine == "x86_64":
        assert sorted(found) == ["fused-mixup", "numpy", "pytest"]
    assert found["pytest"].name.startswith("pytest-9")  # the newer file
    assert "pillow-13.0-cp39-cp39-linux_x86_64.whl" in others


@pytest.mark.parametrize(
    ("files", "torch", "says"),
    [
        ((), "2.11.0", "no wheel of fused_mixup for this Python"),
        (("fused_mixup-0.1.0-py3-none-any",), "2.9.1", "needs PyTorch 2.10 or newer"),
        (("fused_mixup-0.1.0-py3-none-any",), None, "this Python has none"),
    ],
)
def test_what_cannot_be_installed_says_why(tmp_path, monkeypatch, files, torch, says):
    for name in files:
        (tmp_path / f"{name}.whl").touch()
    monkeypatch.setattr(setup_env, "torch_version", lambda: torch)
    monkeypatch.setattr(setup_env, "pip", lambda *_: pytest.fail("nothing must be installed"))
    with pytest.raises(SystemExit, match=says):
        setup_env.install_wheel(str(tmp_path))


def test_only_what_is_missing_is_installed(tmp_path, monkeypatch):
    for name in ("fused_mixup-0.1.0", "pytest-9.0", "hypothesis-7.0", "sortedcontainers-9.9"):
        (tmp_path / f"{name}-py3-none-any.whl").touch()
    calls = []
    monkeypatch.setattr(setup_env, "torch_version", lambda: "2.11.0")
    monkeypatch.setattr(setup_env, "pip", lambda *words: calls.append(words) or True)
    # hypothesis is too old; its dependency is missing; pytest has the required version.
    monkeypatch.setattr(setup_env, "find_missing", lambda wanted: ["hypothesis>=6.100"])
    monkeypatch.setattr(setup_env, "is_installed", lambda name: name != "sortedcontainers")
    setup_env.install_wheel(str(tmp_path))
    names = [{Path(w).name.split("-")[0] for w in call if w.endswith(".whl")} for call in calls]
    assert names == [{"fused_mixup"}, {"hypothesis", "sortedcontainers"}]
    assert all({"--no-index", "--no-deps"} <= {*call} for call in calls)
