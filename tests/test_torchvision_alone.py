"""fused_mixup.torchvision works without torchvision."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fused_mixup.torchvision import CutMix, MixUp

WITHOUT_TORCHVISION = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import torch, fused_mixup
from fused_mixup.torchvision import CutMix, MixUp
x, y = torch.rand(4, 3, 6, 6), torch.arange(4)
for mixer in (MixUp(num_classes=4), CutMix(num_classes=4, inplace=True)):
    images, labels = mixer(x, y)
    assert images.shape == x.shape and labels.shape == (4, 4)
try:
    fused_mixup.torchvision.Compose
except AttributeError as error:
    assert "pip install torchvision" in str(error)
else:
    raise AssertionError
assert not any(name.split(".")[0] == "torchvision" for name in sys.modules)
print("torch._dynamo" in sys.modules)
"""


def test_works_without_torchvision_and_imports_no_compiler():
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCHVISION], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_mixes_by_the_formula(kind):
    """Draw λ and the box from the generator by hand; torchvision's results need torchvision."""
    x, y = torch.rand(5, 3, 16, 12), torch.arange(5) % 3
    torch.manual_seed(0)
    images, labels = kind(alpha=0.7, num_classes=3)(x, y)
    torch.manual_seed(0)
    lam = float(torch.distributions.Beta(torch.tensor([0.7]), torch.tensor([0.7])).sample(()))
    if kind is MixUp:
        want = x.roll(1, 0) * (1 - lam) + x * lam
    else:
        center = int(torch.randint(12, (1,))), int(torch.randint(16, (1,)))
        half = [int(0.5 * (1 - lam) ** 0.5 * n) for n in (12, 16)]
        inside = [
            (torch.arange(n) >= c - h) & (torch.arange(n) < c + h)
            for n, c, h in zip((12, 16), center, half, strict=True)
        ]
        box = inside[1][:, None] & inside[0]
        want, lam = torch.where(box, x.roll(1, 0), x), 1 - int(box.sum()) / (12 * 16)
        assert 0 < lam < 1
    hot = torch.eye(3)[y]
    assert torch.equal(images, want)
    assert torch.equal(labels, hot.roll(1, 0) * (1 - lam) + hot * lam)


def test_the_example_learns(capsys):
    pytest.importorskip("sklearn", reason="the example needs scikit-learn; make demo installs it")
    from examples import train_torchvision

    losses = train_torchvision.main(["--epochs", "3", "--size", "24"], samples=600)
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert "fused_mixup" in capsys.readouterr().out
