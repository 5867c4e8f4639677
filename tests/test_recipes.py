"""Recipes: the numbers of their sources, timm's names, files, and what is refused."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torch.nn.functional as F

from fused_mixup import (
    BatchMix,
    SoftTargetBinaryCrossEntropy,
    SoftTargetCrossEntropy,
)
from fused_mixup.preview import options
from fused_mixup.recipes import KEYS, RECIPES, Recipe
from fused_mixup.recipes.table import TIMM_DEFAULTS

# α of MixUp and CutMix, probability, pairing, smoothing, loss: by hand, from the sources.
EXPECTED = {
    "timm": (0.8, 1.0, 1.0, "flip", 0.1, "ce"),
    "deit": (0.8, 1.0, 1.0, "flip", 0.1, "ce"),
    "torchvision": (0.2, 1.0, 1.0, "roll", 0.1, "ce"),
    "rsb-a2": (0.1, 1.0, 1.0, "flip", 0.0, "bce"),
    "mixup-paper": (1.0, 0.0, 1.0, "shuffle", 0.0, "ce"),
    "mixup-paper-imagenet": (0.2, 0.0, 1.0, "shuffle", 0.0, "ce"),
    "cutmix-paper": (0.0, 1.0, 0.5, "shuffle", 0.0, "ce"),
    "cutmix-paper-imagenet": (0.0, 1.0, 1.0, "shuffle", 0.0, "ce"),
}
NAMES = ("mixup_alpha", "cutmix_alpha", "prob", "pairing", "label_smoothing")


def batch(size=8):
    return torch.rand(size, 3, 8, 8), torch.arange(size) % 10


def same_batches(a, b):
    """Both mixers draw and mix alike, over some steps."""
    for _ in range(4):
        x, labels = batch()
        (u, s), (v, t) = a(x.clone(), labels), b(x.clone(), labels)
        assert torch.equal(u, v) and s == t


@pytest.mark.parametrize("name", RECIPES)
def test_a_name_gives_the_numbers_of_its_source(name):
    recipe = Recipe(name, 10)
    assert tuple(recipe.settings[n] for n in NAMES) + (recipe.loss,) == EXPECTED[name]
    assert recipe.settings["per"] == "batch" and recipe.settings["switch_prob"] == 0.5
    assert recipe.off_epoch is None and recipe.settings["cutmix_minmax"] is None
    by_hand = BatchMix(10, **dict(zip(NAMES, EXPECTED[name][:-1], strict=True)))
    same_batches(recipe.mix, by_hand)
    same_batches(BatchMix.from_recipe(name, 10), BatchMix.from_recipe(name, num_classes=10))
    shown = options.settings_of(options.make_parser().parse_args(["x", "--recipe", name]))
    assert all(shown[n] == recipe.settings[n] for n in NAMES)


def test_a_subclass_makes_itself():
    class Mine(BatchMix):
        pass

    assert type(Mine.from_recipe("timm", 10)) is Mine


# ---------------------------------------------------------------- timm's names


def test_the_off_epoch_is_timm_s():
    mix = BatchMix.from_recipe("timm", 10, mixup_off_epoch=3)
    for epoch, mixes in ((2, True), (3, False), (4, False)):
        mix.set_epoch(epoch)
        x, labels = batch()
        mixed, target = mix(x.clone(), labels)
        assert torch.equal(mixed, x) != mixes and target.label_smoothing == 0.1
    assert Recipe("timm", mixup_off_epoch=0).off_epoch is None
    assert Recipe("timm", disable_mixup_epochs=10, epochs=300).off_epoch == 290
    assert Recipe("timm", disable_mixup_epochs=0, epochs=300).off_epoch is None


def test_without_alphas_nothing_is_mixed_as_in_timm():
    recipe = Recipe({}, 10)
    x, labels = batch()
    mixed, target = recipe.mix(x.clone(), labels)
    assert torch.equal(mixed, x) and target.label_smoothing == 0.1
    torch.testing.assert_close(
        recipe.criterion(x.flatten(1)[:, :10], target),
        F.cross_entropy(x.flatten(1)[:, :10], labels, label_smoothing=0.1),
    )
    assert Recipe({"cutmix": 0.5}, 10).settings["mixup_alpha"] == 0.0


# ---------------------------------------------------------------- layers and losses


def test_later_keys_go_first_in_either_spelling():
    given = {"recipe": "deit", "mixup_alpha": 0.4, "num_classes": 7, "loss": "bce"}
    before = copy.deepcopy(given)
    recipe = Recipe(given, 10, mixup=0.5, per="pair", seed=3, bce_loss=False)
    wanted = {"mixup_alpha": 0.5, "cutmix_alpha": 1.0, "num_classes": 10, "per": "pair", "seed": 3}
    assert {name: recipe.settings[name] for name in wanted} == wanted
    assert recipe.loss == "ce" and isinstance(recipe.criterion, SoftTargetCrossEntropy)
    assert given == before and Recipe(given).settings["num_classes"] == 7


def test_variants_by_name_take_the_place_of_alphas():
    recipe = Recipe("torchvision", 10, mix={"fmix": 1.0, "cutmix": 0.5})
    assert recipe.settings["pairing"] == "roll" and "mixup_alpha" not in recipe.settings
    assert "fmix" in repr(recipe)


def test_bce_has_its_options():
    loss = Recipe({"mixup": 1, "loss": "bce", "bce_target_thresh": 0.2, "bce_sum": True}).criterion
    assert isinstance(loss, SoftTargetBinaryCrossEntropy)
    assert loss.target_threshold == 0.2 and loss.sum_classes


def test_a_yaml_file(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "mix.yaml"
    path.write_text("mixup: 0.2\ncutmix: 1.0\nmixup_mode: pair\nsmoothing: 0\nloss: bce\n")
    for given in (path, str(path)):
        recipe = Recipe(given, 10)
        assert recipe.settings["per"] == "pair" and recipe.loss == "bce"
    same = BatchMix(10, mixup_alpha=0.2, cutmix_alpha=1.0, per="pair")
    same_batches(BatchMix.from_recipe(str(path), 10), same)
    path.write_text("mixup: 0.2\nmixup_porb: 1\n")
    with pytest.raises(ValueError, match=r"mix.yaml: .*'mixup_porb'; did you mean 'mixup_prob'"):
        Recipe(path)
    path.write_text("mixup: 2e-1\n")
    with pytest.raises(TypeError, match="mixup: .*'2e-1'; YAML reads 1e-1 as text: write 1.0e-1"):
        Recipe(path)
    path.write_text("mixup: 2.0e-1\n")
    assert Recipe(path, 10).settings["mixup_alpha"] == 0.2
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="expected a mapping of names to values, got a list"):
        Recipe(path)
    path.write_text("mixup: 1\nsecret: [\n")
    with pytest.raises(ValueError, match="expected YAML, got what cannot be read in line 3") as e:
        Recipe(path)
    assert "secret" not in str(e.value)
    with pytest.raises(FileNotFoundError):
        Recipe("none.yml")
    with pytest.raises(FileNotFoundError):
        Recipe("none.YAML")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (b"mixup: 0.2\nmixup: 0.8", ValueError, "mix.yaml: expected each key once, got 'mixup'"),
        (b"mixup: on", TypeError, "mixup: expected no bool, got True; YAML reads on"),
        (b"smoothing: yes\nmixup: 1", TypeError, "smoothing: expected no bool"),
        (b"bce_loss: true\nbce_target_thresh: yes", TypeError, "bce_target_thresh: expected no bo"),
        (b"mixup: 1\ninplace: 'no'", TypeError, "inplace: expected a bool, got 'no'"),
        (b"bce_loss: true\nbce_sum: 1", TypeError, "bce_sum: expected a bool, got 1"),
        (b"mixup: 2020-13-45", ValueError, "mix.yaml: expected YAML, got what cannot be read"),
        (b"mixup: 1 # \xe9", ValueError, "mix.yaml: expected YAML, got what cannot be read"),
        (b"[" * 3000, ValueError, "mix.yaml: expected YAML, got what cannot be read"),
        (b"", ValueError, "mix.yaml: expected a mapping of names to values, got None"),
    ],
)
def test_files_that_say_something_else(tmp_path, text, error, words):
    pytest.importorskip("yaml")
    path = tmp_path / "mix.yaml"
    path.write_bytes(text)
    with pytest.raises(error, match=words):
        Recipe(path)


def test_a_key_that_was_merged_may_be_given(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "mix.yaml"
    path.write_text("<<: {mixup: 0.2, cutmix: 1.0}\nmixup: &a 0.4\nsmoothing: *a\n")
    settings = Recipe(path, 10).settings
    assert [settings[name] for name in NAMES if name not in ("prob", "pairing")] == [0.4, 1.0, 0.4]


def test_without_pyyaml_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match="pip install pyyaml"):
        Recipe("mix.yaml")
    assert Recipe("timm", 10).mix.num_classes == 10  # without a file nothing asks for it


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Recipe("diet"), ValueError, "expected one of .*'diet'; did you mean 'deit'"),
        (lambda: Recipe("TIMM"), ValueError, "got 'TIMM'; did you mean 'timm'"),
        (lambda: Recipe({"recipe": "xyz"}), ValueError, "got 'xyz'$"),
        (lambda: Recipe(None), TypeError, "recipe: expected a name, .* got None"),
        (lambda: Recipe("timm", mixup=True), TypeError, "mixup: expected no bool"),
        (lambda: Recipe(3), TypeError, "recipe: expected a name, a mapping or the path"),
        (lambda: Recipe("timm", mixup_aplha=1), ValueError, "overrides: .* 'mixup_alpha'"),
        (lambda: Recipe({"lr": 1}), ValueError, "recipes.KEYS lists, got 'lr'$"),
        (lambda: Recipe({3: 1}), ValueError, "recipes.KEYS lists, got 3"),
        (
            lambda: Recipe({"mixup": 1, "mixup_alpha": 1}),
            ValueError,
            "one key for mixup_alpha, got 'mixup' and 'mixup_alpha'",
        ),
        (lambda: Recipe("timm", mixup=-1), ValueError, "mixup_alpha: expected a number in"),
        (lambda: Recipe("timm", mixup="0.2"), TypeError, "mixup: expected a number, got the text"),
        (lambda: Recipe("timm", mixup="much"), TypeError, "mixup_alpha: expected a number"),
        (lambda: Recipe("timm", mixup_mode="half"), ValueError, "mixup_mode: .*'elem'"),
        (lambda: Recipe("timm", loss="mse"), ValueError, r"loss: expected one of \['ce', 'bce'\]"),
        (lambda: Recipe("timm", bce_loss=1), TypeError, "bce_loss: expected a bool"),
        (lambda: Recipe("timm", bce_target_thresh=0.2), ValueError, "set bce_loss: true"),
        (lambda: Recipe("timm", disable_mixup_epochs=5), ValueError, "expected epochs beside"),
        (
            lambda: Recipe("timm", disable_mixup_epochs=5, epochs=3),
            ValueError,
            "expected 0 to 3 epochs, got 5",
        ),
    ],
)
def test_errors_name_the_key(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_every_key_is_taken():
    assert {"mixup", "cutmix_minmax", "mixup_off_epoch", "loss", "seed", "schedule"} <= set(KEYS)
    assert set(TIMM_DEFAULTS) <= set(KEYS)
