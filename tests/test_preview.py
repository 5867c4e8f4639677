"""The figure of a mixed batch: pixels computed by hand, the forms of a batch, errors."""

from __future__ import annotations

import pytest
import torch

from fused_mixup import MixedTarget, MixPlan, mix

pytest.importorskip("PIL", reason="the preview needs Pillow; pip install 'fused-mixup[preview]'")

from PIL import Image

from fused_mixup.preview import figure, show, tiles

SIZE = 200  # of a tile that is drawn as it is
LEFT, TOP = figure.MARGIN, figure.MARGIN + figure.SMALL_LINE + 8  # of the first tile
BOX = (40, 60, 120, 180)  # y0, x0, y1, x1


def at(page: Image.Image, y: int, x: int, column: int = 0) -> tuple[int, ...]:
    """The pixel (y, x) of the tile in ``column`` of the first row."""
    return page.getpixel((LEFT + column * (SIZE + figure.GAP) + x, TOP + y))


def flat(*colours: tuple[int, int, int]) -> torch.Tensor:
    """Images of one colour each, uint8 [B, 3, SIZE, SIZE]."""
    colour = torch.tensor(colours, dtype=torch.uint8).view(-1, 3, 1, 1)
    return colour.expand(-1, -1, SIZE, SIZE).contiguous()


# ---------------------------------------------------------------- pixels


def test_a_cut_box_is_outlined_and_all_else_is_the_mixed_image():
    x = flat((10, 20, 30), (200, 90, 60))
    plan = MixPlan.uniform(2, "flip", 0.76, BOX)
    page = show(plan, mix(x, plan), torch.tensor([0, 1]), class_names=["cat", "dog"], columns=2)
    y0, x0, y1, x1 = BOX
    for y, column in ((y0, x0), (y0, x1 - 1), (y1 - 1, x0), (y1 - 1, x1 - 1), (y0 + 1, 100)):
        assert at(page, y, column) == tiles.ORANGE
    assert at(page, y0 - 1, 100) == at(page, y1, 100) == tiles.DARK  # a line around it
    assert at(page, (y0 + y1) // 2, (x0 + x1) // 2) == (200, 90, 60)
    assert at(page, (y0 + y1) // 2, (x0 + x1) // 2, 1) == (10, 20, 30)
    for y, column in ((0, 0), (y0 - 2, x0), (SIZE - 1, SIZE - 1), (y1 + 1, 100)):
        assert at(page, y, column) == (10, 20, 30)
        assert at(page, y, column, 1) == (200, 90, 60)


def test_the_bar_is_split_by_the_weights_and_text_stands_under_it():
    x = flat((0, 0, 0), (255, 255, 255))
    plan = MixPlan.uniform(2, "flip", 0.75)
    labels = torch.tensor([0, 1])
    page = show(plan, x, labels, class_names=["cat", "dog"])
    y = SIZE + figure.SPACE + 2
    assert [at(page, y, c) for c in (0, 149, 150, 199)] == [tiles.BLUE] * 2 + [tiles.ORANGE] * 2
    under = (LEFT + 15, TOP + SIZE + figure.SPACE + figure.BAR, LEFT + SIZE, TOP + SIZE + 80)
    text = page.crop(under).convert("L")
    assert text.getextrema()[0] < 80  # ink
    other = show(plan, x, labels, class_names=["owl", "dog"]).crop(under).convert("L")
    assert text.tobytes() != other.tobytes()


def test_small_images_grow_by_a_whole_factor_and_large_ones_shrink():
    x = torch.zeros(2, 1, 8, 4)
    x[:, :, :, 2:] = 1.0  # grey, right half white
    page = show(MixPlan.uniform(2, "self", 1.0), x, columns=1)
    assert tiles.shown_size(8, 4) == (160, 80) and page.width == 80 + 2 * figure.MARGIN
    y = TOP + 100
    edge = [page.getpixel((LEFT + c, y)) for c in (0, 39, 40, 79)]
    assert edge == [(0, 0, 0)] * 2 + [(255, 255, 255)] * 2
    assert tiles.shown_size(1000, 500) == (448, 224)


def test_a_box_lies_where_it_does_after_growing():
    plan = MixPlan.uniform(2, "flip", 0.75, (2, 4, 6, 8))
    page = show(plan, torch.zeros(2, 3, 8, 8))
    corners = [(40, 80), (40, 159), (119, 80), (119, 159)]  # 20 times as large, half-open
    assert [page.getpixel((LEFT + x, TOP + y)) for y, x in corners] == [tiles.ORANGE] * 4
    assert page.getpixel((LEFT + 78, TOP + 60)) == (0, 0, 0)


def test_boxes_along_one_dim_are_columns():
    plan = MixPlan.uniform(2, "flip", 0.5, (50, 150))  # along the last dim, as spatial_dims=1
    page = show(plan, flat((0, 0, 0), (9, 9, 9)))
    assert at(page, 0, 50) == at(page, SIZE - 1, 149) == at(page, 100, 50) == tiles.ORANGE


def test_values_come_back_from_normalised_floats():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = flat((10, 130, 250), (60, 5, 90))
    shape = (1, 3, 1, 1)
    normal = (x / 255.0 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    plan = MixPlan.identity(2)
    for dtype in (torch.float32, torch.float64):
        page = show(plan, normal.to(dtype), mean=mean, std=std)
        assert at(page, 5, 5) == (10, 130, 250) and at(page, 5, 5, 1) == (60, 5, 90)
    as_bytes = [[m * 255 for m in mean], [s * 255 for s in std]]
    assert at(show(plan, normal, mean=as_bytes[0], std=as_bytes[1]), 5, 5) == (10, 130, 250)


def test_other_floats_are_stretched_over_the_batch_and_a_note_says_so():
    x = torch.zeros(2, 3, SIZE, SIZE)
    x[0], x[1] = -2.0, 3.0
    x[1, 0] = 0.5
    page = show(MixPlan.identity(2), x)
    assert at(page, 5, 5) == (0, 0, 0) and at(page, 5, 5, 1) == (128, 255, 255)
    _, note = tiles.to_bytes(x, None, None)
    assert "-2" in note and "3" in note
    assert page.height == show(MixPlan.identity(2), x.clamp(0, 1)).height + figure.SMALL_LINE


def test_values_that_are_not_finite_are_magenta():
    x = torch.full((2, 1, SIZE, SIZE), 0.5)
    x[0, 0, :100, :100] = float("nan")
    page = show(MixPlan.identity(2), x)
    assert at(page, 5, 5) == tiles.NAN_COLOUR and at(page, 150, 150) == (128, 128, 128)


def test_class_maps_colour_by_their_weights():
    x = flat((0, 0, 0), (0, 0, 0))
    maps = torch.zeros(2, SIZE, SIZE, dtype=torch.int64)
    maps[0, :100], maps[1, 100:] = 1, 2
    target = MixedTarget.from_labels(maps, MixPlan.uniform(2, "flip", 0.75), 3)
    page = show(MixPlan.uniform(2, "flip", 0.75), x, mask=target)
    first, second = tiles.CLASS_COLOURS[:2]
    assert at(page, 20, 20) == pytest.approx([0.75 * tiles.AREA * c for c in first], abs=1)
    assert at(page, 180, 20) == pytest.approx([0.25 * tiles.AREA * c for c in second], abs=1)
    pasted = show(MixPlan.identity(2), x, mask=maps)
    assert at(pasted, 20, 20) == tuple(round(tiles.AREA * c) for c in first)
    assert at(pasted, 99, 20) == tuple(round(tiles.BORDER * c) for c in first)
    assert at(pasted, 180, 20) == (0, 0, 0)  # class 0
    ignored = MixedTarget(maps, maps, torch.tensor([[1.0, 0.0]] * 2), 3, 0.0, 1)
    assert at(show(MixPlan.identity(2), x, mask=ignored), 20, 20) == (0, 0, 0)


def test_detection_boxes_have_the_colour_of_their_class():
    corners = [torch.tensor([[50.0, 80.0, 150.0, 180.0]]), torch.empty(0, 4)]
    labels = [torch.tensor([3]), torch.empty(0, dtype=torch.int64)]
    weights = [torch.tensor([0.4]), torch.empty(0)]
    options = {"boxes": corners, "box_labels": labels, "box_weights": weights}
    page = show(MixPlan.identity(2), flat((0, 0, 0), (0, 0, 0)), **options)
    colour = tiles.CLASS_COLOURS[3]
    assert at(page, 179, 100) == at(page, 150, 149) == at(page, 150, 50) == colour
    assert at(page, 150, 100) == at(page, 150, 100, 1) == (0, 0, 0)
    assert at(page, 80, 51) == colour  # the ground of its text
    tag = page.crop((LEFT + 50, TOP + 80, LEFT + 150, TOP + 96))
    whole = show(MixPlan.identity(2), flat((0, 0, 0), (0, 0, 0)), **options, box_names={3: "dog"})
    assert tag.tobytes() != whole.crop((LEFT + 50, TOP + 80, LEFT + 150, TOP + 96)).tobytes()


# ---------------------------------------------------------------- calls


def test_a_batch_as_a_dict_is_drawn_as_its_parts():
    x, plan = torch.rand(4, 3, 64, 64), MixPlan.uniform(4, "flip", 0.75)
    target = MixedTarget.from_labels(torch.tensor([0, 1, 2, 0]), plan, 3)
    boxes = [torch.tensor([[1.0, 2.0, 30.0, 40.0]])] * 4
    labels, weights = [torch.tensor([1])] * 4, [torch.tensor([0.25])] * 4
    maps = torch.randint(3, (4, 64, 64))
    batch = {"image": x, "label": target, "mask": maps}
    batch |= {"boxes": boxes, "labels": labels, "box_weights": weights}
    named = {"boxes": boxes, "box_labels": labels, "box_weights": weights, "mask": maps}
    whole = show(plan, x, target, **named).tobytes()
    assert show(plan, batch).tobytes() == show(plan, x, batch).tobytes() == whole
    assert show(plan, {"images": x, "labels": target}).tobytes() == show(plan, x, target).tobytes()


def test_a_batch_before_the_mix_is_mixed_out_of_place():
    x, labels = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    maps = torch.randint(3, (4, 64, 64))
    plan = MixPlan.uniform(4, "roll", 0.25, (0, 0, 32, 48))
    before = x.clone()
    page = show(plan, x, labels, mixed=False, mask=maps)
    assert torch.equal(x, before)
    target = MixedTarget.from_labels(labels, plan, 3)
    mask = MixedTarget.from_labels(maps, plan, 3)
    assert page.tobytes() == show(plan, mix(x, plan), target, mask=mask).tobytes()


def test_originals_stand_above_the_mixed_images():
    x = flat((10, 20, 30), (200, 90, 60))
    plan = MixPlan.uniform(2, "flip", 0.5)
    mixed = mix(x, plan)
    page = show(plan, mixed, originals=x)
    assert at(page, 5, 5) == (10, 20, 30)
    assert at(page, SIZE + figure.SMALL_LINE + 4 + 5, 5) == tuple(mixed[0, :, 0, 0].tolist())


def test_columns_and_limit():
    x = torch.zeros(10, 1, 160, 160)
    plan = MixPlan.identity(10)
    widths = [show(plan, x, columns=n).width for n in (1, 3, 20)]
    assert widths == [2 * figure.MARGIN + n * 160 + (n - 1) * figure.GAP for n in (1, 3, 10)]
    assert show(plan, x, limit=2).width == widths[0] + 160 + figure.GAP
    assert [figure.best_columns(n) for n in (1, 2, 6, 8, 12, 16, 64)] == [1, 2, 3, 4, 4, 4, 8]


def test_dense_targets_labels_and_no_target():
    x, plan = torch.zeros(2, 1, 160, 160), MixPlan.uniform(2, "flip", 0.75)
    labels = torch.tensor([0, 1])
    target = MixedTarget.from_labels(labels, plan, 2)
    assert show(plan, x, labels).tobytes() == show(plan, x, target).tobytes()
    dense, nothing = show(plan, x, target.dense()), show(plan, x)
    assert len({p.tobytes() for p in (dense, nothing, show(plan, x, target))}) == 3


PLAN, X = MixPlan.uniform(2, "flip", 0.5), torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: show("flip", X), TypeError, "plan: expected a MixPlan, got 'flip'"),
        (lambda: show(PLAN, [1]), TypeError, "x: expected images"),
        (lambda: show(PLAN, X[0]), ValueError, r"x: expected images \[2, C, H, W\]"),
        (lambda: show(PLAN, X.repeat(1, 2, 1, 1)), ValueError, "first three channels"),
        (lambda: show(PLAN, X[:1]), ValueError, "as in plan"),
        (lambda: show(PLAN, X.long()), TypeError, "uint8 or floats"),
        (lambda: show(PLAN, {"pic": X}), ValueError, "expected one of the keys"),
        (lambda: show(PLAN, X, torch.zeros(3).long()), ValueError, r"labels \[2\]"),
        (lambda: show(PLAN, X, torch.tensor([0, -1])), IndexError, "labels"),
        (lambda: show(PLAN, X, "cat"), TypeError, "target: expected a MixedTarget"),
        (lambda: show(PLAN, X, torch.zeros(2)), ValueError, "dense targets"),
        (lambda: show(PLAN, X, originals=X[:, :1]), ValueError, "originals: expected"),
        (lambda: show(PLAN, X, mean=[0.5] * 3), ValueError, "both or neither"),
        (lambda: show(PLAN, X, mean=[0.5] * 2, std=[1.0] * 3), ValueError, "mean: expected 3"),
        (lambda: show(PLAN, X, columns=0), ValueError, "columns: expected at least 1"),
        (lambda: show(PLAN, X, limit=1.5), TypeError, "limit: expected an int"),
        (lambda: show(PLAN, X, boxes=[[]]), ValueError, "boxes: expected one entry a sample"),
        (lambda: show(PLAN, X, boxes=[torch.zeros(1, 3)] * 2), ValueError, r"expected \[1, 4\]"),
        (lambda: show(PLAN, X, boxes=[[]] * 2, mixed=False), ValueError, "mixed=True"),
        (lambda: show(PLAN, X, mask=torch.zeros(2, 4, 4).long()), ValueError, "mask: expected"),
        (lambda: show(PLAN, X, mask=torch.zeros(2, 8, 8)), TypeError, "mask: expected integers"),
        (lambda: show(MixPlan.identity(0), X[:0]), ValueError, "at least one image"),
        (lambda: show(MixPlan.uniform(2, "flip", 0.5, (0, 0, 9, 9)), X), ValueError, "of x, "),
        (lambda: show(MixPlan.uniform(2, box=[0] * 6), X), ValueError, "3 spatial dims"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error, match=words):
        call()
