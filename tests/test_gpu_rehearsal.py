"""A whole run of `make gpu WHEEL=…`, on a machine without a GPU or a network.

It has a copy of the checkout, a folder with a wheel, a fresh environment. The CPU replaces the GPU,
on tiny sizes, and small programs replace nvidia-smi, compute-sanitizer and ncu.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import gpu  # noqa: E402

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]

NVIDIA_SMI = "print('name, driver_version, pstate'); print('NVIDIA Test, 580.1, P0')"
# A tool runs the command that follows its own options.
SANITIZER = """
tool = words[words.index("--tool") + 1]
status = subprocess.run(watched).returncode
print(f"========= {tool}: {int(tool == 'racecheck')} errors", flush=True)
sys.exit(9 if tool == "racecheck" else status)
"""
NCU = """
import shutil
shutil.copy(os.path.join(os.environ["OUT"], "summary.json"), sys.argv[0] + ".seen")
open(words[words.index("--log-file") + 1], "w").write('"ID","Kernel Name"')
sys.exit(subprocess.run(watched).returncode)
"""
STAND_IN = """#!{python}
import os, subprocess, sys, time
words = sys.argv[1:]
start = next((i for i, word in enumerate(words) if "python" in os.path.basename(word)), len(words))
words, watched = words[:start], words[start:]
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy without build results, as another machine has it."""
    folder = tmp_path_factory.mktemp("gpu") / "checkout"
    ignored = ("build", "dist", "results", "*.so", "_build_info.py", "__pycache__", ".*", "*.egg*")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """A wheel of the package as it is built here, without compiling it again."""
    folder = tmp_path_factory.mktemp("wheels")
    name = "fused_mixup-0.1.0"
    tag = "cp310-abi3-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
    info = {
        "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n",
        "METADATA": "Metadata-Version: 2.1\nName: fused-mixup\nVersion: 0.1.0\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{tag}.whl", "w") as wheel:
        for source, inside in (("fused_mixup", ""), ("triton_kernels", "fused_mixup/")):
            for path in sorted((ROOT / source).rglob("*")):
                if path.suffix in (".py", ".so", ".typed"):
                    wheel.write(path, inside + str(path.relative_to(ROOT)))
        for file, text in info.items():
            wheel.writestr(f"{name}.dist-info/{file}", text)
    return folder


@pytest.fixture
def stand_ins(tmp_path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    head = STAND_IN.format(python=sys.executable)
    for name, code in {
        "nvidia-smi": NVIDIA_SMI, "compute-sanitizer": SANITIZER, "ncu": NCU,
    }.items():  # fmt: skip
        (folder / name).write_text(head + code)
        (folder / name).chmod(0o755)
    return folder


def make_gpu(checkout, wheels, stand_ins, out, arguments):
    env = {**os.environ, "FUSED_MIXUP_REHEARSAL": "1", "PIP_NO_INDEX": "1"}
    env |= {"PATH": f"{stand_ins}{os.pathsep}{os.environ['PATH']}"}
    for name in ("MAKEFLAGS", "PYTHONPATH", "VIRTUAL_ENV", "TRITON_INTERPRET"):
        env.pop(name, None)
    for name in [name for name in env if name.startswith(("PYTEST", "FUSED_MIXUP_B"))]:
        del env[name]
    words = ["make", "gpu", f"WHEEL={wheels}", f"PYTHON={sys.executable}", f"OUT={out}"]
    return subprocess.run(
        [*words, f"ARGS={arguments}"], cwd=checkout, env=env, capture_output=True, text=True,
        timeout=1500,
    )  # fmt: skip


def summary(out) -> dict:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def test_the_whole_run(checkout, wheels, stand_ins, tmp_path):
    out = tmp_path / "out"
    limits = ",".join(f"{name}=300" for name in gpu.LIMITS)  # a busy machine stays within
    ran = make_gpu(checkout, wheels, stand_ins, out, f"--minutes 24 --limit {limits}")
    said = ran.stdout + ran.stderr
    assert "setup: installing fused_mixup" in said and "nothing is compiled" in said
    assert not (checkout / "build").exists() and not list((checkout / "fused_mixup").glob("*.so"))

    left, log = summary(out), (out / "stages.log").read_text()
    results, said = left["stages"], said + log
    names = [name for name in gpu.LIMITS if name not in gpu.ON_REQUEST]
    assert [*results] == names, said
    bad = {name for name, found in results.items() if found["result"] != "passed"}
    assert bad == {"sanitizers"} == set(left["failed"]), said
    assert ran.returncode == 2, said  # make prints this for an exit status of 1
    assert results["sanitizers"]["detail"].startswith("exit status 9")
    assert left["finished"] and left["not_run"] == []

    # The installed wheel ran, built from the same sources.
    assert left["other_sources"] == []
    (package,) = (line for line in log.splitlines() if line.startswith("CUDA tensors: "))
    assert "./.venv/" in package and "site-packages" in package  # the log names no folder
    assert "580.1" in results["environment"]["detail"]
    for name, least in (("smoke", 50), ("grid", 100), ("graphs", 3)):
        assert int(re.search(r"(\d+) passed", results[name]["detail"])[1]) >= least, said
    assert re.search(r"^=+ memcheck: 0 errors$", log, re.M) and "calls, 0 wrong" in log
    headlines = json.loads((out / "headlines.json").read_text())
    assert len(headlines["results"]) >= 6 and headlines["copy_gb_per_s"] > 0
    assert all(len(r["providers"]) > 1 for r in headlines["results"])  # peers and ours
    cases = {r["case"] for r in headlines["results"]}
    assert {json.loads(text)["case"] for text in re.findall("^CASE (.*)", log, re.M)} == cases
    both = json.loads((out / "experimental.json").read_text())
    assert len(both["results"]) >= 20 and not both["different"] and "cases compared" in log
    rest = json.loads((out / "benchmarks.json").read_text())["results"]
    assert rest and not cases & {r["case"] for r in rest}

    # During the run the folder held all results so far.
    seen = json.loads((stand_ins / "ncu.seen").read_text())
    assert [*seen["stages"]] == names[: names.index("counters")] and not seen["finished"]

    again = f"--only smoke,environment --limit {limits}"
    ran = make_gpu(checkout, wheels, stand_ins, out, again)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    left = summary(out)
    assert [*left["stages"]][-2:] == ["environment", "smoke"] and {*left["stages"]} == {*names}
    assert left["failed"] == ["sanitizers"] and (out / "headlines.json").exists()


def test_a_folder_without_the_package_is_refused(checkout, stand_ins, tmp_path):
    (tmp_path / "empty").mkdir()
    ran = make_gpu(checkout, tmp_path / "empty", stand_ins, tmp_path / "out", "")
    assert ran.returncode != 0 and "no wheel of fused_mixup for this Python" in ran.stderr
    assert not (tmp_path / "out").exists()
