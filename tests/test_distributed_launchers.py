"""GlobalMix in real trainings: torchrun, DDP, FSDP2, Lightning, accelerate and Ray, two ranks."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import launched
import pytest
import torch
import torch.distributed as dist
from frameworks import require, run_ranks

from benchmarks import traffic

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(not dist.is_available(), reason="PyTorch without torch.distributed"),
]
ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/train_distributed.py"
GUIDE = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")


def launch(*command, folder=ROOT, **more):
    path = os.pathsep.join(map(str, (folder, ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}
    run = [sys.executable, *map(str, command)]
    done = subprocess.run(run, env=environment, timeout=280, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def recipe(heading, folder):
    """The program under a heading of the guide, with each step compared to one process."""
    block = re.search(rf"## {heading}\n.*?```python\n(.*?)```", GUIDE, re.DOTALL)[1]
    checked = block.replace("x, target = mix(x, labels)", "x, target = checked(mix, x, labels)")
    assert checked != block
    imports = "from torch import nn\n"
    checked = checked.replace(imports, f"{imports}from launched import checked\n")
    # Launchers import torchvision, in every process, where one is installed.
    fitted = "from benchmarks.installed_peers import fit_torchvision\n\nfit_torchvision()\n"
    (folder / "sitecustomize.py").write_text(fitted, encoding="utf-8")
    (folder / "program.py").write_text(checked, encoding="utf-8")
    return folder / "program.py"


def curve(text):
    return [float(loss) for loss in re.findall(r"loss ([\d.]+)", text)]


@pytest.mark.parametrize("pairing", ["shuffle", "cross_class"])
def test_torchrun_gives_the_curve_of_one_process(pairing):
    options = EXAMPLE, "--epochs", "2", "--pairing", pairing
    alone = curve(launch(*options))
    text = launch("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", *options)
    # Gradients are summed in another order, and a network amplifies what that rounds.
    assert len(alone) == 2 and curve(text) == pytest.approx(alone, rel=1e-3)
    sent = re.findall(r"rank \d sent ([\d.]+) MB; an all-gather .*? send ([\d.]+) MB", text)
    assert len(sent) == 4 and all(0 < 2 * float(ours) < float(usual) for ours, usual in sent)


@pytest.mark.parametrize("wrapper", ["in_ddp", "in_fsdp"])
def test_weights_are_those_of_one_process(wrapper):
    expected = launched.in_one_process()
    for weights in run_ranks(getattr(launched, wrapper)):
        assert weights.keys() == expected.keys()
        for name, values in weights.items():
            other = torch.tensor(expected[name], dtype=torch.float64)
            torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), other)


def test_lightning(tmp_path):
    require("lightning")
    expected = launched.lightning_by_hand()
    for weights in run_ranks(launched.in_lightning, str(tmp_path)):
        for name, values in weights.items():
            other = torch.tensor(expected[name], dtype=torch.float64)
            torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), other)


def test_accelerate_launches_the_recipe(tmp_path):
    require("accelerate")
    program = "-m", "accelerate.commands.accelerate_cli", "launch"
    options = {"--num_processes": 2, "--num_machines": 1, "--mixed_precision": "no"}
    options |= {"--dynamo_backend": "no"}
    given = [word for pair in options.items() for word in pair]
    file = recipe("accelerate", tmp_path)
    launch(*program, "--multi_gpu", *given, file, folder=tmp_path, ACCELERATE_USE_CPU="true")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_train_runs_the_recipe(tmp_path):
    text = launch(recipe("Ray Train", tmp_path), folder=tmp_path)
    assert len(re.findall(r"loss \d\.\d+, \d{5,} bytes sent", text)) == 2, text[-2000:]


def test_the_guide_has_the_table_of_the_simulation():
    shown = re.search(r"<!-- traffic: start -->\n(.*?)\n<!-- traffic: end -->", GUIDE, re.DOTALL)[1]
    assert shown == traffic.table()
