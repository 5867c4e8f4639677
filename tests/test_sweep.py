"""``python -m fused_mixup.sweep``: runs by hand, interrupted and resumed, its file, bad input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from sweep_modules import DIVERGING, KEPT_DRAWS, LOST_IN_EVAL, MODULE, OWN_TENSORS, SWEPT

from fused_mixup import draw_plan, plan_state
from fused_mixup.calibration import expected_calibration_error
from fused_mixup.sweep import __main__ as cli

pytestmark = pytest.mark.usefixtures("one_thread")

MORE = ["--alpha", "0.5", "2", "--seeds", "2", "--epochs", "2"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that runs a sweep of ``module``: its status, stdout and stderr."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # a plot takes a second
    path = tmp_path / "sweeps_own_module.py"

    def run(*argv, module=SWEPT):
        path.write_text(module)
        try:
            status = cli.main([str(path), *map(str, argv)])
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    yield run
    sys.modules.pop("sweeps_own_module", None)


def rows(path):
    with path.open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def by_hand(module, alpha, seed, epochs=2):
    """What a run measures, in plain PyTorch but for the plans' numbers."""
    space = {}
    exec(module, space)
    torch.manual_seed(seed)
    train, validation = space["make_data"]()
    model = space["make_model"]()
    adam = "make_optimizer" not in space
    optimizer = torch.optim.AdamW(model.parameters()) if adam else space["make_optimizer"](model)
    state = plan_state(seed)
    for _ in range(epochs):
        for x, labels in train:
            y = F.one_hot(labels, 3).float()
            if alpha:
                plan = draw_plan(len(x), state=state, mixup_alpha=alpha)
                lam = plan.weight[:, :1]
                x, y = lam * x + (1 - lam) * x.flip(0), lam * y + (1 - lam) * y.flip(0)
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        found = {}
        for name, loader in (("train", train), ("val", validation)):
            x, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
            logits = model(x)
            found[f"{name}_loss"] = F.cross_entropy(logits, labels).item()
            found[f"{name}_accuracy"] = (logits.argmax(1) == labels).double().mean().item()
        found["val_ece"] = expected_calibration_error(logits.softmax(1), labels).item()
    return found


@pytest.mark.parametrize(
    "module",
    [pytest.param(SWEPT, id="own"), pytest.param(MODULE, id="AdamW", marks=pytest.mark.proof)],
)
def test_runs_are_those_by_hand(run, tmp_path, module):
    status, out, _ = run(*MORE, "-o", tmp_path / "a", module=module)
    assert status == 0 and "written: " in out
    found = rows(tmp_path / "a.csv")
    grid = [(float(r["alpha"]), int(r["seed"])) for r in found]
    assert grid == [(a, s) for a in (0.0, 0.5, 2.0) for s in (0, 1)]
    for row, (alpha, seed) in zip(found, grid, strict=True):
        for name, value in by_hand(module, alpha, seed).items():
            assert float(row[name]) == pytest.approx(value, rel=1e-4), (alpha, seed, name)
    assert len({row["val_loss"] for row in found}) == 6


def test_an_interrupted_sweep_resumed_equals_one_that_never_stopped(run, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*MORE, "-o", whole)[0] == 0
    monkeypatch.setenv("SWEEP_STOPS_AT", "4")
    status, _, err = run(*MORE, "-o", parts)
    assert status == cli.INTERRUPTED and "has 3 runs; the same command goes on" in err
    with (tmp_path / "parts.jsonl").open("a") as file:
        file.write('{"alpha": 2.0, "se')  # a process killed while it wrote
    monkeypatch.delenv("SWEEP_STOPS_AT")
    status, out, _ = run(*MORE, "-o", parts)
    assert status == 0 and "3 runs have ended before, 3 are left" in out
    assert out.count("validation accuracy") == 3
    assert rows(tmp_path / "parts.csv") == rows(tmp_path / "whole.csv")
    lines = (tmp_path / "parts.jsonl").read_text().splitlines()
    assert len(lines) == 7 and all(json.loads(line) for line in lines)
    # Another α joins the runs that there are.
    assert (
        "6 runs have ended before, 2 are left" in run(*MORE, "--alpha", 0.5, 1, 2, "-o", parts)[1]
    )
    assert len(rows(tmp_path / "parts.csv")) == 8


def test_what_the_module_keeps_is_the_same_in_each_process(run, tmp_path):
    assert run(*MORE, "-o", tmp_path / "whole", module=KEPT_DRAWS)[0] == 0
    torch.rand(7)  # another process begins with other numbers
    few = [*MORE, "-o", tmp_path / "parts"]
    assert run(*few, "--seeds", 1, module=KEPT_DRAWS)[0] == 0
    assert "3 are left" in run(*few, module=KEPT_DRAWS)[1]
    assert rows(tmp_path / "parts.csv") == rows(tmp_path / "whole.csv")


HOLDS = """
import fcntl, sys
file = open(sys.argv[1], "ab+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
input()
"""


def test_a_file_that_another_sweep_writes_is_refused(run, tmp_path):
    few = ["--alpha", "1", "--seeds", "1", "--epochs", "1", "-o", tmp_path / "a"]
    assert run(*few)[0] == 0
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "a.jsonl")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    kept = (tmp_path / "a.jsonl").read_bytes()
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"locked\n"
        for more in ([], ["--restart", "--epochs", "2"]):
            status, _, err = run(*few, *more)
            assert status == 2 and "no other sweep writes, got one in use" in err
        other.communicate(b"\n")
    assert (tmp_path / "a.jsonl").read_bytes() == kept
    assert run(*few)[0] == 0


def test_files_that_hold_something_else_are_left_as_they_are(run, tmp_path):
    few = ["--alpha", "1", "--seeds", "1", "--epochs", "1", "-o", tmp_path / "a"]
    path = tmp_path / "a.jsonl"
    assert run(*few)[0] == 0
    runs = path.read_bytes()
    for text, words in (
        (b"notes without a newline", "expected the runs of a sweep, got another file"),
        (b"\xff\n", "expected a run as JSON in line 1"),
        (runs + b"3\n", "expected a run as JSON in line 4"),
        (runs + b'{"alpha": 1, "seed": 5}\n', "expected a run as JSON in line 4"),
    ):
        path.write_bytes(text)
        status, _, err = run(*few)
        assert status == 2 and words in err and path.read_bytes() == text
    path.write_bytes(b"")
    assert run(*few)[0] == 0 and len(path.read_bytes().splitlines()) == 3


def test_runs_of_other_settings_are_not_mixed_up(run, tmp_path):
    few = ["--alpha", "1", "--seeds", "1", "-o", tmp_path / "a", "--epochs", "1"]
    assert run(*few)[0] == 0
    kept = (tmp_path / "a.jsonl").read_bytes()
    for more, name in (
        (["--epochs", "2"], "epochs"),
        (["--recipe", "mixup-paper"], "recipe"),
        (["--vary", "cutmix_alpha"], "recipe, vary"),
    ):
        status, _, err = run(*few, *more)
        assert status == 2 and f"got others of {name}; give another -o, or --restart" in err
    assert "got others of module" in run(*few, module=SWEPT + "\n# changed\n")[2]
    assert (tmp_path / "a.jsonl").read_bytes() == kept
    assert run(*few, "--epochs", "2", "--restart")[0] == 0
    (tmp_path / "a.jsonl").write_text('{"other": 1}\n')
    assert "expected the runs of a sweep, got another file" in run(*few)[2]
    (tmp_path / "a.jsonl").write_text("text\n")
    assert "expected a run as JSON in line 1" in run(*few)[2]


def test_a_recipe_gives_loss_smoothing_and_pairing(run, tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "mix.yaml").write_text("mixup: 1\nsmoothing: 0.2\nloss: bce\npairing: roll\n")
    few = ["--alpha", "1", "--seeds", "1", "--epochs", "1"]
    assert run(*few, "-o", tmp_path / "a", "--recipe", tmp_path / "mix.yaml")[0] == 0
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert "Binary" in first["recipe"]["loss"] and first["recipe"]["pairing"] == "'roll'"
    assert run(*few, "-o", tmp_path / "b")[0] == 0
    plain, smooth = (rows(tmp_path / f"{name}.csv") for name in "ba")
    assert all(p["val_loss"] != s["val_loss"] for p, s in zip(plain, smooth, strict=True))


def test_what_changes_while_a_sweep_runs_changes_none_of_its_runs(run, tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "elsewhere").mkdir()
    recipe = tmp_path / "mix.yaml"
    few = ["--alpha", "1", "--seeds", "1", "--epochs", "1", "--recipe", "mix.yaml", "-o"]
    recipe.write_text("smoothing: 0.2\nloss: bce\n")
    assert run(*few, "a")[0] == 0
    moves = f"""
    STARTED.append(1)
    open({str(recipe)!r}, "w").write("loss: ce")
    os.chdir({str(tmp_path / "elsewhere")!r})
"""
    assert run(*few, "b", module=SWEPT.replace("\n    STARTED.append(1)\n", moves))[0] == 0
    assert rows(tmp_path / "b.csv") == rows(tmp_path / "a.csv")
    assert recipe.read_text() == "loss: ce" and not list((tmp_path / "elsewhere").iterdir())


def test_the_users_tensors_stay_as_they_are(run):
    assert run(*MORE, module=OWN_TENSORS)[0] == 0
    used = sys.modules["sweeps_own_module"]
    assert torch.equal(used.X, used.BEFORE)


@pytest.mark.parametrize("module", [DIVERGING, LOST_IN_EVAL], ids=["training", "eval"])
def test_a_run_that_diverges_is_left_out(run, tmp_path, module):
    status, out, _ = run("--alpha", "1", "--seeds", "2", "-o", tmp_path / "a", module=module)
    assert status == 0 and "alpha 0: 2 of 2 runs diverged" in out and "nan" not in out
    measured = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_ece")
    assert all(row[name] == "" for row in rows(tmp_path / "a.csv") for name in measured)


FEW = ["--alpha", "1", "--seeds", "1", "--epochs", "1", "-o", "a"]


def test_without_matplotlib_there_is_no_plot(run, tmp_path):
    assert "pip install matplotlib" in run(*FEW)[1] and not (tmp_path / "a.png").exists()


@pytest.mark.proof  # importing matplotlib takes a second
def test_with_matplotlib_there_is_one(run, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.figure")
    pytest.importorskip("matplotlib")
    assert "a.png" in run(*FEW)[1]
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seeds", "0"], "--seeds: expected at least 1, got 0"),
        (["--epochs", "0"], "--epochs: expected at least 1"),
        (["--alpha", "-1"], "--alpha: expected numbers of 0 and more"),
        (["--alpha", "1e9"], "mixup_alpha: expected a number in"),
        (["--lr", "0"], "--lr: expected a number above 0"),
        (["--lr", "1"], "--lr: expected none beside make_optimizer"),
        (["--recipe", "tim"], "did you mean 'timm'"),
        (["--device", "none"], "--device: expected one that is here, got none"),
        (["--device", "cuda:99"], "--device: expected one that is here, got cuda:99"),
        (["-o", "."], "--out: expected a name"),
        (["-o", "no/such/a"], "--out: expected a folder that exists"),
    ],
)
def test_bad_options_end_before_any_run(run, argv, words, tmp_path):
    status, _, err = run(*argv)
    assert status == 2 and words in err and not list(tmp_path.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (("def make_model", "def make_models"), None, r"define make_model\(\), got none"),
        (("return train,", "return iter(train),"), TypeError, "training data that can be gone"),
        (("return train,", "return [],"), ValueError, "expected at least one batch"),
        (("return train,", "return train, 3,"), TypeError, "expected two loaders"),
        (("labels[32:])]", "labels[32:].float())]"), TypeError, r"labels int64 \[16\]"),
        (("[(x[32:], labels[32:])]", "[x[32:]]"), TypeError, r"batches \(x, labels\)"),
        (("return nn.Linear(4, 3)", "return 3"), TypeError, "make_model: expected a torch.nn"),
        (
            ("return Descent(", "Descent("),
            TypeError,
            "make_optimizer: expected an optimizer, got N",
        ),
        (("nn.Linear(4, 3)", "nn.Flatten(0)"), TypeError, r"expected logits \[16, K\]"),
        (("import os\n", "import os\n1 / 0\n"), ZeroDivisionError, "division"),
    ],
)
def test_what_the_module_gives_is_checked(run, change, error, words):
    module = SWEPT.replace(*change)
    assert module != SWEPT
    if error is None:
        status, _, err = run(*MORE, module=module)
        assert status == 2 and "define make_model(), got none" in err
    else:
        with pytest.raises(error, match=words):
            run(*MORE, module=module)


def test_a_file_named_as_a_module_is_refused(tmp_path, capsys):
    (tmp_path / "torch.py").write_text(MODULE)
    for path, words in (("torch.py", "rename the file"), ("none.py", "a Python file that exists")):
        with pytest.raises(SystemExit):
            cli.main([str(tmp_path / path)])
        assert words in capsys.readouterr().err
