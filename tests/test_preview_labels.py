"""The labels under an image of the preview, their fonts, and a Python without Pillow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fused_mixup import MixedTarget, MixPlan

pytest.importorskip("PIL", reason="the preview needs Pillow; pip install 'fused-mixup[preview]'")

from fused_mixup.preview import fonts, shares

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (0.7, "0.70"),
        (1.0, "1.00"),
        (0.0, "0.00"),
        (0.004, "<0.01"),
        (0.999, ">0.99"),
        (1.5, "1.50"),
    ],
)
def test_weights_as_text(weight, text):
    assert shares.weight_text(weight) == text


def test_shares_of_a_target_are_those_of_its_dense_form():
    labels, partners = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 1, 0, 4])
    weight = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.0, 1.0], [1.0, 0.0]])
    names = {0: "cat", 1: "dog", 2: "owl", 3: "fox"}
    smooth = 0.2 / 5  # of each class
    own, partner, others = shares.OWN, shares.PARTNER, shares.OTHERS
    expected = [
        [("cat", 0.8 * 0.75 + smooth, own), ("dog", 0.8 * 0.25 + smooth, partner),
         ("others", 3 * smooth, others)],
        [("dog", 0.8 + smooth, own), ("others", 4 * smooth, others)],
        [("cat", 0.8 + smooth, partner), ("others", 4 * smooth, others)],
        [("fox", 0.8 + smooth, own), ("others", 4 * smooth, others)],
    ]  # fmt: skip
    got = shares.target_shares(MixedTarget(labels, partners, weight, 5, 0.2), 4, names)
    for row, wanted in zip(got, expected, strict=True):
        assert [(s.name, s.source) for s in row] == [(name, source) for name, _, source in wanted]
        assert [s.weight for s in row] == pytest.approx([w for _, w, _ in wanted], abs=1e-6)
    (row,) = shares.target_shares(MixedTarget(labels, partners, weight, 5), 1, names)
    assert [s.name for s in row] == ["cat", "dog"]  # without smoothing there are no others


def test_ignored_labels_are_called_so():
    target = MixedTarget(
        torch.tensor([-1]), torch.tensor([2]), torch.tensor([[0.5, 0.5]]), 3, 0.0, -1
    )
    (row,) = shares.target_shares(target, 1, None)
    assert [(s.name, s.weight) for s in row] == [("ignored", 0.5), ("class 2", 0.5)]


def test_shares_of_dense_targets_and_of_a_plan():
    dense = torch.tensor([[0.1, 0.5, 0.05, 0.35], [0.0, 0.0, 1.0, 0.0]])
    rows = shares.dense_shares(dense, 2, ["a", "b", "c", "d"])
    assert [[s.name for s in row] for row in rows] == [["b", "d", "a", "others"], ["c"]]
    assert [s.weight for s in rows[0]] == pytest.approx([0.5, 0.35, 0.1, 0.05], abs=1e-6)
    rows = shares.plan_shares(MixPlan.uniform(3, "roll", 0.75), 3)
    assert rows[0] == [("#0", 0.75, shares.OWN), ("#2", 0.25, shares.PARTNER)]
    assert shares.plan_shares(MixPlan.identity(1), 1) == [[("#0", 1.0, shares.OWN)]]


def test_long_names_are_shortened_to_their_room():
    font = fonts.find_font(["a"], 15)
    name = "Siberian husky of the northern islands"
    short = fonts.shorten(name, 120, font)
    assert font.getlength(short) <= 120 < font.getlength(name)
    assert short.endswith("...") and name.startswith(short[:-3]) and len(short) > 8
    assert fonts.shorten("cat", 120, font) == "cat"


def test_a_font_with_the_letters_is_looked_for():
    own, found = fonts.find_font(["chien"], 15), fonts.find_font(["garçon жук"], 15)
    letters = set("garçonжук")
    if all(fonts._load(name, 15) is None for name in fonts.OTHERS):
        pytest.skip("this system has none of the fonts")
    assert fonts._count(own, letters) < fonts._count(found, letters) == len(letters)


def test_without_pillow_the_remedy_is_named_and_the_package_imports():
    # One process for all: importing PyTorch takes seconds.
    program = """if True:
        import sys
        sys.modules["PIL"] = None  # as if it were not installed
        import torch, fused_mixup
        assert not any(name.startswith("fused_mixup.preview") for name in sys.modules)
        from fused_mixup.preview import show
        from fused_mixup.preview.__main__ import main
        try:
            show(fused_mixup.MixPlan.identity(1), torch.zeros(1, 3, 8, 8))
        except ImportError as error:
            assert "pip install pillow" in str(error), error
        else:
            raise AssertionError
        main(["folder"])
    """
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "pip install pillow" in done.stderr and "Traceback" not in done.stderr
