"""The gallery of variants: each is there once, its mask and weights are those of its plan."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from fused_mixup import MixedTarget, MixPlan, PatchPlan, RectanglePlan

pytest.importorskip("PIL", reason="the preview needs Pillow; pip install 'fused-mixup[preview]'")

from PIL import Image

from fused_mixup.preview import __main__ as cli
from fused_mixup.preview import figure, gallery, show_variants, tiles
from fused_mixup.preview.gallery_photos import Photos, residual_saliency
from fused_mixup.preview.gallery_plans import LAM, VARIANTS

NAMES = [variant.name for variant in VARIANTS]
# The label weights of these are the shares of what is seen.
BY_SIGHT = ("area", "areas", "mean of the mask", "shares of blocks")


@pytest.fixture(scope="module")
def images():
    """Two pictures with edges in some places and not in others."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(2, 3, 48, 32, generator=generator) * 0.2
    x[0, :, 10:30, 4:20] += 0.8 * torch.rand(3, 20, 16, generator=generator)
    x[1, 1, 20:40, 12:30] += 0.7
    return x


@pytest.fixture(scope="module")
def plans(images):
    saliency = residual_saliency(images)
    return {
        v.name: v.plan(Photos(images, saliency, torch.Generator().manual_seed(5))) for v in VARIANTS
    }


@pytest.fixture(scope="module")
def cells(images):
    return {cell.name: cell for cell in gallery.variant_cells(images, 5)}


def test_each_variant_is_drawn_once(images, monkeypatch):
    drawn = []
    real = figure.draw_figure

    def watched(tiles, *more):
        drawn.extend(tiles)
        return real(tiles, *more)

    monkeypatch.setattr(figure, "draw_figure", watched)
    page = show_variants(images, ("cat", "dog"), columns=4)
    assert [tile.name for tile in drawn] == ["cat", "dog", *NAMES]
    assert len(set(NAMES)) == len(NAMES) >= 20
    assert drawn[0].image.size == (4 * 32, 4 * 48)  # a tile grows by whole factors
    assert page.width == 2 * figure.MARGIN + 4 * 128 + 3 * figure.GAP
    assert all(tile.image.size == drawn[0].image.size for tile in drawn)
    assert all(tile.mask is not None for tile in drawn[2:])
    for tile, cell in zip(drawn[2:], gallery.variant_cells(images), strict=True):
        shown = {share.name: share.weight for share in tile.shares}
        weights = {n: w for n, w in zip(("cat", "dog"), cell.weight, strict=True) if w}
        assert shown == weights and tile.caption == cell.rule


def share_seen(plan):
    """The share of the first photograph in what shows a photograph: not the fill of a canvas."""
    first = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1).expand(2, 1, 48, 32).contiguous()
    ours, theirs = (gallery.apply(plan, x)[0].double() for x in (first, 1 - first))
    covered = (ours + theirs - 1).abs() < 1e-3
    return float(ours[covered].mean())


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_of_a_cell_are_those_of_its_plan(name, cells, plans):
    plan, cell = plans[name], cells[name]
    if isinstance(plan, MixPlan):
        target = MixedTarget.from_labels(torch.arange(2), plan, 2)
    else:
        target = MixedTarget.of_labels(plan.label_sources.long(), plan.weight, 2)
    assert cell.weight == pytest.approx(target.dense()[0].tolist(), abs=1e-6)
    expected = None
    if cell.rule == "λ":
        expected = LAM
    elif name == "PuzzleMix":  # a place without a patch shows nothing, and has its weight
        expected = float(plan.mask[0].mean())
    elif cell.rule in BY_SIGHT:
        expected = share_seen(plan)
    if expected is not None:
        assert cell.weight == pytest.approx((expected, 1 - expected), abs=1e-6)


def test_the_picture_of_a_mask_is_the_share_that_the_first_photograph_has(cells, plans, images):
    for name, plan in plans.items():
        if not isinstance(plan, MixPlan):
            continue
        share = cells[name].mask
        expected = share * images[0] + (1 - share) * images[1]
        assert (cells[name].image - expected).abs().max() <= 1e-6, name
        if plan.mask is not None:
            assert torch.equal(share, plan.mask.dense((48, 32))[0, 0]), name


def test_resizemix_shows_the_second_photograph_small(cells, plans, images):
    top, left, bottom, right = plans["ResizeMix"].box[0, 0].tolist()
    small = torch.nn.functional.interpolate(images[1:], (bottom - top, right - left))[0]
    assert torch.equal(cells["ResizeMix"].image[:, top:bottom, left:right], small)


def test_all_kinds_of_plans_are_there(plans):
    kinds = [type(plan) for plan in plans.values()]
    assert {MixPlan, RectanglePlan, PatchPlan} == set(kinds)
    masked = [p for p in plans.values() if isinstance(p, MixPlan) and p.mask is not None]
    assert len(masked) >= 8


def test_the_seed_moves_places_and_nothing_else_is_drawn(images):
    first, again, other = (gallery.variant_cells(images, seed) for seed in (0, 0, 1))
    same = [torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True)]
    moved = {a.name for a, b in zip(first, other, strict=True) if not torch.equal(a.image, b.image)}
    assert all(same) and {"CutMix", "FMix", "GridMix", "ResizeMix", "Mosaic"} <= moved
    assert not {"MixUp", "GuidedMixup", "SaliencyMix", "Co-Mixup"} & moved


# ---------------------------------------------------------------- the program


def test_all_draws_two_images_and_no_batch(tmp_path, images, capsys):
    paths = []
    for name, image in zip(("a", "b"), images, strict=True):
        pixels = (image * 255).byte()
        tiles.picture(pixels).save(tmp_path / f"{name}.png")
        paths.append(str(tmp_path / f"{name}.png"))
    out = tmp_path / "all.jpg"
    assert cli.main(["--all", *paths, "-o", str(out), "--size", "16", "--columns", "3"]) == 0
    said = capsys.readouterr().out
    assert said == f"{out}: every variant on two images of 16 x 16 pixels\n"
    with Image.open(out) as page:
        assert page.format == "JPEG"
        assert page.width == 2 * figure.MARGIN + 3 * 160 + 2 * figure.GAP


def test_all_takes_the_photographs_of_scikit_learn():
    if importlib.util.find_spec("sklearn") is None:  # not imported, which takes seconds
        pytest.skip("scikit-learn is not installed")
    assert [path.name for path in gallery.bundled_photographs()] == ["china.jpg", "flower.jpg"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "PATH: expected folders or images, got none"),
        (["--all", "--per", "sample"], "--per: expected none beside --all"),
        (["--all", "--batch", "4"], "--batch: expected none beside --all"),
        (["--all", "--compare"], "--compare: expected none beside --all"),
        (["--all", "--size", "20"], "--size: expected a multiple of 8"),
        (["--all", "one.png"], "PATH: expected 2 images for --all, got 1"),
        (["--all"], "PATH: expected two images, or scikit-learn"),
    ],
)
def test_errors_say_what_all_takes(tmp_path, capsys, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gallery.importlib.util, "find_spec", lambda name: None)
    Image.new("RGB", (16, 16)).save("one.png")
    with pytest.raises(SystemExit):
        cli.main(argv)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x: [x], TypeError, "images: expected two photographs"),
        (lambda x: x[:1], ValueError, r"got shape \[1, 3, 48, 32\]"),
        (lambda x: x[:, :1], ValueError, r"got shape \[2, 1, 48, 32\]"),
        (lambda x: x[..., :20], ValueError, r"multiples of 8.*got \[48, 20\]"),
        (lambda x: x.long(), TypeError, "uint8 or floats, got torch.int64"),
        (lambda x: x * 255, ValueError, r"floats in \[0, 1\]"),
        (lambda x: x * float("nan"), ValueError, "got nan"),
    ],
)
def test_errors_name_the_images(images, change, error, words):
    with pytest.raises(error, match=words):
        show_variants(change(images))


def test_bytes_are_drawn_as_floats_are(images):
    pixels = (images * 255).byte()
    page = show_variants(pixels, columns=26)
    assert page.tobytes() == show_variants(pixels / 255, columns=26).tobytes()
    with pytest.raises(ValueError, match="columns: expected at least 1"):
        show_variants(images, columns=0)


def test_the_page_has_a_row_for_each_variant():
    page = Path(__file__).resolve().parent.parent / "docs" / "gallery.md"
    if not page.is_file():
        pytest.skip("needs the source tree")
    rows = [line.split("|")[1] for line in page.read_text("utf-8").splitlines() if "|" in line]
    for name in NAMES:
        assert sum(name in [n.strip() for n in row.split(",")] for row in rows) == 2, name
