"""The demo: a tiny run of the whole, and the parts whose result can be computed by hand."""

from __future__ import annotations

import random

import pytest
import torch

_NEEDED = "the demo needs {}; make demo installs it"
for _name in ("sklearn", "tqdm", "PIL"):
    pytest.importorskip(_name, reason=_NEEDED.format(_name))
imread = pytest.importorskip("matplotlib.image", reason=_NEEDED.format("matplotlib")).imread

from examples import demo  # noqa: E402
from examples.demo_picture import soft_label  # noqa: E402
from examples.demo_recipe import EAGER, FUSED, draw  # noqa: E402
from examples.demo_train import calibration_error, network, schedule  # noqa: E402

TINY = demo.Sizes(
    image=32, batch=32, samples=150, large_images=(4, 3, 16, 16), large_classes=50, repeats=1
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "tiny.png"
    return demo.main(["--epochs", "1", "--device", "cpu", "--out", str(out)], TINY), out


def test_writes_a_picture(tiny):
    _, out = tiny
    image = imread(out)
    assert image.ndim == 3 and min(image.shape[:2]) > 500
    assert image.std() > 0.05  # the picture is not blank


def test_prints_every_run_and_every_part(tiny):
    text = "\n".join(tiny[0].lines)
    for word in ("no mixing", "eager PyTorch", "fused_mixup", "MixUp", "CutMix", "loss", "picture"):
        assert word in text


def test_runs_differ_in_mixing_alone(tiny):
    none, eager, fused = tiny[0].runs
    assert len(none.step_losses) == len(eager.step_losses) == len(fused.step_losses) == 4
    assert eager.step_losses[0] == pytest.approx(fused.step_losses[0], abs=1e-6)
    assert none.step_losses[0] != eager.step_losses[0]
    assert eager.watch.total("MixUp", "CutMix") > 0 and fused.watch.total("loss") > 0


def test_eager_and_fused_agree(tiny):
    assert tiny[0].images_equal
    assert tiny[0].same_logits_difference < 1e-6


def test_eager_and_fused_agree_on_the_same_draws():
    rng, kinds = random.Random(1), set()
    for batch in (1, 7, 16):
        for _ in range(8):
            drawn = draw(rng, 24)
            kinds.add(drawn.kind)
            x, ours = [torch.randn(batch, 3, 24, 24)] * 2
            x, ours = x.clone(), ours.clone()
            lam, plan = EAGER.mix(x, drawn), FUSED.mix(ours, drawn)
            assert torch.equal(x, ours), drawn
            logits, labels = 3 * torch.randn(batch, 10), torch.randint(0, 10, (batch,))
            a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
            loss, fused = EAGER.loss(a, labels, lam), FUSED.loss(b, labels, plan)
            assert abs(loss - fused) < 1e-6
            loss.backward()
            fused.backward()
            assert torch.allclose(a.grad, b.grad, rtol=0, atol=1e-6)
    assert kinds == {"MixUp", "CutMix"}


def test_same_seed_same_draws_and_weights():
    steps, again, other = (schedule(20, 8, 2, 16, seed) for seed in (3, 3, 4))
    assert [len(epoch) for epoch in steps] == [3, 3]
    for epoch, epoch_again in zip(steps, again, strict=True):
        assert torch.cat([rows for rows, _ in epoch]).sort().values.tolist() == list(range(20))
        for (rows, drawn), (rows_again, drawn_again) in zip(epoch, epoch_again, strict=True):
            assert torch.equal(rows, rows_again) and drawn == drawn_again
    assert [d for _, d in steps[0]] != [d for _, d in other[0]]
    before = torch.get_rng_state()
    nets = [network(5, torch.device("cpu")).state_dict() for _ in range(2)]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert torch.equal(before, torch.get_rng_state())  # the caller's generator is left alone


def rows(*confidences):
    """Two-class rows that give class 0 these probabilities."""
    return torch.tensor([[c, 1 - c] for c in confidences], dtype=torch.float64)


@pytest.mark.parametrize(
    ("probabilities", "labels", "expected"),
    [
        (rows(1.0, 1.0), [0, 0], 0.0),  # sure and right
        (rows(1.0, 1.0), [1, 1], 1.0),  # sure and wrong
        (rows(0.75, 0.75, 0.75, 0.75), [0, 0, 0, 1], 0.0),  # accuracy equals confidence
        (rows(0.8, 0.8), [0, 1], 0.3),  # |1/2 - 0.8|
        # Two bins: 3/4 · |2/3 - 0.95| + 1/4 · |1 - 0.55|; one bin for all would give 0.1.
        (rows(0.95, 0.95, 0.95, 0.55), [0, 0, 1, 0], 0.2125 + 0.1125),
        # Over- and under-confidence cancel in one bin: |1/2 - (0.61 + 0.65) / 2|.
        (rows(0.61, 0.65), [0, 1], 0.13),
        # 0.6 = 9/15 closes its bin (8/15, 9/15] and is not with 0.61.
        (rows(0.6, 0.61), [0, 1], (0.4 + 0.61) / 2),
    ],
)
def test_calibration_error(probabilities, labels, expected):
    error = calibration_error(probabilities, torch.tensor(labels))
    assert error == pytest.approx(expected, abs=1e-12)


def test_soft_labels_read_well():
    names = ("cat", "dog", "bird")
    assert soft_label(torch.tensor([0.0, 1.0, 0.0]), names) == "dog"
    assert soft_label(torch.tensor([0.3, 0.0, 0.7]), names) == "0.70 bird\n+ 0.30 cat"


def test_refuses_no_epochs(capsys):
    with pytest.raises(SystemExit):
        demo.parse(["--epochs", "0"])
    assert "at least 1" in capsys.readouterr().err


def test_the_loop_of_timm_learns(capsys):
    from examples import train_timm

    accuracy = train_timm.main(["--epochs", "4", "--off-epoch", "3", "--device", "cpu"], 24)
    assert accuracy > 0.3  # chance is 10 % with ten classes
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" mixing") and "no mixing" in lines[3] and "ms per step" in lines[4]
