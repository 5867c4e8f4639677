"""Keypoints through a plan: seen where the mixed pixels show the image that they belong to."""

from __future__ import annotations

import random

import pytest
import torch
import torch._dynamo.testing
from box_cases import BATCHES, H, W, random_boxes, random_plan

import fused_mixup as fm
from fused_mixup import MixPlan
from fused_mixup.boxes.mix import follow_boxes

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (H, W)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


def shown(plan):
    """[B, 2, H, W]: how much each pixel shows of a sample, and of its partner, by mixing ones."""
    batch = plan.batch_size
    layers = torch.eye(batch).view(batch, batch, 1, 1).expand(batch, batch, H, W).contiguous()
    mixed = fm.mix(layers, plan)  # channel j is what comes from sample j
    index = torch.arange(batch)
    return torch.stack((mixed[index, index], mixed[index, plan.partner.long()]), 1)


def is_seen(shows, i, other, point):
    """What the pixel of a point says; a third number 0 means that it is not labelled."""
    x, y, *label = point
    return label != [0] and bool(shows[i, other, int(y), int(x)] > 0)


def random_points(rng, *shape, columns=2, dtype=torch.float32):
    """At quarters of pixels, which bfloat16 has too; unlabelled ones lie anywhere."""
    points = torch.stack((torch.randint(0, W * 4, shape), torch.randint(0, H * 4, shape)), -1) / 4
    if columns == 3:
        label = torch.randint(0, 3, (*shape, 1))
        points = torch.cat((torch.where(label == 0, -50.0, points), label), -1)
    return points.to(dtype)


def by_hand(lists, plan):
    """[(points, seen)] of each sample."""
    shows = shown(plan)
    found = []
    for i, p in enumerate(plan.partner.tolist()):
        rows = [(0, row) for row in lists[i].tolist()]
        rows += [(1, row) for row in lists[p].tolist()] if p != i else []
        # A sample that is mixed with itself shows itself everywhere, whatever its weights.
        flat = [
            [
                point[2:] != [0] if p == i else is_seen(shows, i, other, point)
                for point in (row if isinstance(row[0], list) else [row])
            ]
            for other, row in rows
        ]
        points = torch.cat((lists[i], lists[p][: 0 if p == i else None]))
        found.append((points, torch.tensor(flat, dtype=torch.bool).view(points.shape[:-1])))
    return found


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("inner", [(), (5,)], ids=["points", "persons"])
def test_points_are_seen_where_their_pixels_are(columns, inner):
    rng = random.Random(columns)
    seen = hidden = 0
    for _ in range(60):
        batch, most = rng.choice(BATCHES), rng.choice((0, 1, 6))
        plan = random_plan(rng, batch)
        dtype = rng.choice(DTYPES)
        padded = random_points(rng, batch, most, *inner, columns=columns, dtype=dtype)
        count = torch.tensor([rng.randint(0, most) for _ in range(batch)], dtype=torch.int64)
        lists = [padded[i, :n] for i, n in enumerate(count.tolist())]
        want = by_hand(lists, plan)
        points, visible = fm.mix_keypoints(lists, plan, SIZE)
        rows, row_visible, left = fm.mix_keypoints(padded, plan, SIZE, count=count)
        assert left.tolist() == [len(p) for p, _ in want] and len(points) == len(visible) == batch
        for i, (truth, truth_visible) in enumerate(want):
            n = len(truth)
            assert torch.equal(points[i], truth) and torch.equal(visible[i], truth_visible)
            assert torch.equal(rows[i, :n], truth) and not rows[i, n:].any()
            assert torch.equal(row_visible[i, :n], truth_visible) and not row_visible[i, n:].any()
            seen += int(truth_visible.sum())
            hidden += int((~truth_visible).sum())
    assert seen > 100 and hidden > 20


@pytest.mark.parametrize("padded", [False, True])
def test_points_of_boxes_stay_and_go_with_them(padded):
    rng = random.Random(4)
    for _ in range(40):
        batch, most = rng.choice(BATCHES[1:]), rng.choice((1, 6))
        plan = random_plan(rng, batch)
        boxes = random_boxes(rng, batch, most)
        points = random_points(rng, batch, most, 3, columns=3)
        index = torch.arange(batch * most).view(batch, most)
        count = torch.tensor([rng.randint(0, most) for _ in range(batch)])
        fields = {"keypoints": points, "index": index}
        given, options = boxes, {"count": count}
        if not padded:
            options = {}
            cut = [[t[i, :n] for i, n in enumerate(count.tolist())] for t in (boxes, points, index)]
            given, fields = cut[0], {"keypoints": cut[1], "index": cut[2]}
        mixed = follow_boxes(given, fields, plan, SIZE, points=["keypoints"], **options)
        shows = shown(plan)
        for i, p in enumerate(plan.partner.tolist()):
            n = int(mixed.counts[i]) if padded else len(mixed.rows[i])
            for k, row in enumerate(mixed.fields["index"][i][:n].tolist()):
                of = points.flatten(0, 1)[row]
                assert torch.equal(mixed.fields["keypoints"][i][k], of)
                other = int(row // most != i)
                truth = [
                    point[2] != 0 and (p == i or is_seen(shows, i, other, point))
                    for point in of.tolist()
                ]
                assert mixed.visible["keypoints"][i][k].tolist() == truth
            assert not mixed.visible["keypoints"][i][n:].any()


def test_a_point_on_the_edge_of_the_cut():
    points = [torch.tensor([[2.0, 3.0], [1.75, 3.0], [5.0, 3.0], [4.75, 5.75], [4.75, 6.0]])] * 2
    plan = MixPlan.uniform(2, "flip", 0.5, [3, 2, 6, 5])
    _, visible = fm.mix_keypoints(points, plan, SIZE)
    inside = [True, False, False, True, False]
    assert visible[0].tolist() == [not v for v in inside] + inside


def test_half_types_compare_as_they_are():
    """A cut at an odd pixel beyond 2048, which float16 does not have, is not rounded to one."""
    points = [torch.tensor([[2048.0, 1.0], [2050.0, 1.0]]).half()] * 2
    plan = MixPlan.uniform(2, "flip", 0.5, [0, 2049, 4, 4096])
    _, visible = fm.mix_keypoints(points, plan, (4, 4096))
    assert visible[0].tolist() == [True, False, False, True]


def test_padded_points_compile_without_breaks_or_recompiles():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()

    def mixed(points, count, plan):
        return fm.mix_keypoints(points, plan, SIZE, count=count)

    compiled = torch.compile(mixed, backend=counter, fullgraph=True)
    rng = random.Random(9)
    for lam in (0.1, 0.3, 0.9):
        points, count = random_points(rng, 4, 5, 3, columns=3), torch.tensor([5, 0, 2, 4])
        plan = MixPlan.uniform(4, "roll", lam, [1, 2, rng.randint(3, 12), 9])
        both = compiled(points, count, plan), mixed(points, count, plan)
        assert all(map(torch.equal, *both))
    assert counter.frame_count == 1


@pytest.mark.parametrize("at", [(-0.25, 1.0), (W, 1.0), (1.0, H), (1.0, -1.0), (float("nan"), 1.0)])
def test_points_outside_the_image_name_their_sample(at):
    good = torch.tensor([[1.0, 1.0]])
    bad = torch.tensor([[1.0, 1.0], at])
    plan = MixPlan.identity(2)
    with pytest.raises(ValueError, match=r"kp\[1\]: expected points with 0 <= x < 16 and 0 <= y"):
        fm.mix_keypoints([good, bad], plan, SIZE, name="kp")
    with pytest.raises(ValueError, match=r"points\[1\]: expected points"):
        fm.mix_keypoints(torch.stack((good.expand(2, 2), bad)), plan, SIZE)
    both = torch.stack((good.expand(2, 2), bad))
    fm.mix_keypoints(both, plan, SIZE, count=torch.tensor([2, 1]))
    unlabelled = torch.tensor([[*at, 0.0]])
    _, visible = fm.mix_keypoints([unlabelled] * 2, plan, SIZE)
    assert not visible[0].any()


def test_what_else_is_refused():
    plan = MixPlan.uniform(2, "flip", 0.5)
    good = torch.ones(2, 2)
    for match, points, options in (
        (r"points: expected 2 tensors", [good], {}),
        (r"points: expected x, y, and perhaps visibility", [torch.ones(2, 4)] * 2, {}),
        (r"points\[1\]: expected shape \['n', 2\]", [good, torch.ones(2, 3)], {}),
        (r"points: expected x, y", torch.ones(2, 2), {}),
        (r"points: expected shape \[2, N, …\]", torch.ones(3, 1, 2), {}),
        (r"count: expected None", [good, good], {"count": torch.tensor([1, 1])}),
        (
            r"count of points: expected numbers",
            torch.ones(2, 1, 2),
            {"count": torch.tensor([2, 1])},
        ),
    ):
        with pytest.raises(ValueError, match=match):
            fm.mix_keypoints(points, plan, SIZE, **options)
    with pytest.raises(TypeError, match="points: expected floats or integers"):
        fm.mix_keypoints([good.bool()] * 2, plan, SIZE)
    with pytest.raises(ValueError, match="boxes inside"):
        fm.mix_keypoints([good] * 2, MixPlan.uniform(2, "flip", 0.5, [0, 0, 13, 1]), SIZE)


def test_nested_points_are_refused():
    points = torch.nested.nested_tensor([torch.zeros(2, 2), torch.zeros(1, 2)], layout=torch.jagged)
    with pytest.raises(TypeError, match=r"points: expected a list of tensors .* use list\(points"):
        fm.mix_keypoints(points, MixPlan.uniform(2, "flip", 0.3), (H, W))
