"""The study: a tiny run of the whole, its parts by hand, and the numbers on its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

_NEEDED = "the study needs {}; make demo installs it"
for _name in ("sklearn", "tqdm", "PIL", "scipy"):
    pytest.importorskip(_name, reason=_NEEDED.format(_name))
imread = pytest.importorskip("matplotlib.image", reason=_NEEDED.format("matplotlib")).imread

from examples import study, study_report, study_train  # noqa: E402
from examples.study_train import CUTMIX, EPSILONS, MANIFOLD, METHODS, MIXUP, NONE, Job  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def small():
    data = study_train.digits()
    whole = data.train_images, data.train_labels, data.test_images, data.test_labels
    return study_train.Data(*(t[:48] for t in whole))


def test_a_tiny_run(tmp_path, monkeypatch, small, capsys):
    monkeypatch.setattr(study, "digits", lambda: small)
    options = ["--seeds", "2", "--epochs", "1", "--processes", "0"]
    files = ["--results", str(tmp_path / "a.json"), "--out", str(tmp_path / "a.png")]
    results = study.main([*options, *files])
    text = capsys.readouterr().out
    runs = results["runs"]
    assert len(runs) == 2 * 3 * 5 and all(method in text for method in METHODS)
    assert all(run["under_attack"][0] == run["accuracy"] for run in runs)
    first = {r["method"]: r["train_loss"] for r in runs[:5]}
    assert len({first[method] for method in (NONE, MIXUP, CUTMIX, MANIFOLD)}) == 4
    image = imread(tmp_path / "a.png")
    assert min(image.shape[:2]) > 500 and image.std() > 0.05
    # From a file: the same report.
    monkeypatch.setattr(study.study_picture, "save", lambda out, results: None)
    again = ["--from", str(tmp_path / "a.json"), "--out", str(tmp_path / "b.png")]
    study.main(again)
    first, second = (t.split("\npicture")[0] for t in (text, capsys.readouterr().out))
    assert first.split("\n", 1)[1] == second


def test_trainings_of_a_seed_differ_in_mixing_alone(small):
    once, again, mixed, other = (
        study_train.train(Job(method, 0.2, seed, 1), small)
        for method, seed in ((NONE, 3), (NONE, 3), (CUTMIX, 3), (NONE, 4))
    )
    states = [net.state_dict()["head.weight"] for net, _ in (once, again, mixed, other)]
    assert torch.equal(states[0], states[1]) and once[1] == again[1]
    assert not torch.equal(states[0], states[2]) and not torch.equal(states[0], states[3])


def test_the_first_step_of_mixup_by_hand(small):
    from fused_mixup import draw_plan, plan_settings, plan_state

    net = study_train.Net()
    x, labels = small.train_images[:16], small.train_labels[:16]
    plan = draw_plan(16, (), state=plan_state(5, 0), settings=plan_settings(mixup_alpha=1.0))
    lam, partner = plan.blend[:, 0].float(), plan.partner.long()
    blended = lam.view(-1, 1, 1, 1) * x + (1 - lam).view(-1, 1, 1, 1) * x[partner]
    z = net(blended)
    pair = [F.cross_entropy(z, y, reduction="none") for y in (labels, labels[partner])]
    expected = (lam * pair[0] + (1 - lam) * pair[1]).mean()
    loss = study_train.step_of(MIXUP, net, 5)(x.clone(), labels)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_corrupted_labels(share):
    labels = torch.arange(1000) % 10
    made = study_train.corrupt(labels, share, 1)
    assert (made != labels).sum() == round(1000 * share) and made.min() >= 0 and made.max() <= 9
    assert torch.equal(made, study_train.corrupt(labels, share, 1))
    if share:
        assert not torch.equal(made, study_train.corrupt(labels, share, 2))
        replaced = (made - labels)[made != labels] % 10
        assert replaced.bincount(minlength=10)[1:].min() > 0.05 * share * 1000


def test_the_attack_by_hand():
    # One pixel, two classes: the loss of class 0 rises with the pixel.
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
    x = torch.tensor([0.5, 0.95, 0.5]).view(3, 1, 1, 1)
    moved = study_train.attack(net, x, torch.tensor([0, 0, 1]), 0.1)
    assert moved.flatten().tolist() == pytest.approx([0.6, 1.0, 0.4])


def made_up(differences):
    """Results in which MixUp's accuracy is that of none plus ``differences``."""
    runs = []
    for method in METHODS:
        for corrupted in study.CORRUPTED:
            for seed, difference in enumerate(differences):
                value = 0.5 + 0.1 * seed + (difference if method == MIXUP else 0.0)
                run = {"method": method, "corrupted": corrupted, "seed": seed, "accuracy": value}
                runs.append(run | {"calibration_error": value, "under_attack": [0.5] * 5})
    return {"runs": runs[::-1]}


@pytest.mark.parametrize(
    ("differences", "accuracy", "calibration"),
    [
        ([0.1, 0.1, 0.1, 0.12], study_report.HOLDS, study_report.REVERSED),
        ([-0.1, -0.1, -0.1, -0.12], study_report.REVERSED, study_report.HOLDS),
        ([0.1, -0.1, 0.1, -0.08], study_report.UNDECIDED, study_report.UNDECIDED),
    ],
)
def test_verdicts(differences, accuracy, calibration):
    by_text = {claim.text: claim for claim in study_report.CLAIMS}
    results = made_up(differences)
    claim = by_text["MixUp is more accurate than none [1]"]
    assert study_report.verdict(results, claim) == accuracy
    lower = by_text["MixUp lowers the calibration error [4]"]
    assert study_report.verdict(results, lower) == calibration
    # The interval is that of scipy's paired test.
    from scipy.stats import ttest_1samp

    mean, half = study_report.difference(results, claim)
    interval = ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx(tuple(interval))


def test_the_page_shows_the_results_of_the_file():
    results = json.loads((ROOT / "examples" / "study_results.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    assert "\n".join(study_report.table(results)) in page
    assert "\n".join(study_report.claims(results)) in page
    assert results["seeds"] >= 5 and len(results["runs"]) == 15 * results["seeds"]
    assert {run["corrupted"] for run in results["runs"]} == set(study.CORRUPTED)
    assert all(len(run["under_attack"]) == len(EPSILONS) for run in results["runs"])
    for key in ("torch", "python"):
        assert results["machine"][key].split("+")[0] in page
    assert (ROOT / "docs" / "study.png").stat().st_size <= 150_000
