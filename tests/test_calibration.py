"""Calibration errors, Brier scores and diagrams: by hand, against torchmetrics and scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from frameworks import require

from fused_mixup import MixedTarget, MixPlan
from fused_mixup.calibration import (
    brier_score,
    expected_calibration_error,
    reliability_diagram,
)

NORMS = ("l1", "l2", "max")


def sample(n=300, k=5, seed=0, device="cpu", spatial=()):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(n, k, *spatial)
    return logits.to(device), torch.randint(k, (n, *spatial)).to(device)


def error_by_hand(confidence, right, bin_of, norm):
    """Loops over samples in float64; ``bin_of`` names the bin of a confidence."""
    bins = {}
    for c, r in zip(confidence.double().tolist(), right.tolist(), strict=True):
        bins.setdefault(bin_of(c), []).append((c, r))
    n = len(confidence)
    gaps = [
        (len(b) / n, abs(sum(r for _, r in b) - sum(c for c, _ in b)) / len(b))
        for b in bins.values()
    ]
    if norm == "max":
        return max(gap for _, gap in gaps)
    if norm == "l1":
        return sum(share * gap for share, gap in gaps)
    return math.sqrt(sum(share * gap * gap for share, gap in gaps))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spatial", [(), (3, 4)], ids=str)
def test_error_of_equal_bins(device, norm, spatial):
    logits, labels = sample(60, 4, device=device, spatial=spatial)
    probabilities = logits.softmax(1)
    confidence, predicted = probabilities.max(1)
    right = predicted == labels
    expected = error_by_hand(
        confidence.flatten(), right.flatten(), lambda c: math.floor(c * 8), norm
    )
    for given in (logits, probabilities):
        found = expected_calibration_error(given, labels, 8, norm)
        assert found.dtype == torch.float32 and found.device.type == logits.device.type
        assert abs(float(found) - expected) < 1e-6
    same = expected_calibration_error(logits, labels, 8, norm, from_logits=True)
    assert torch.equal(same, expected_calibration_error(logits, labels, 8, norm))


@pytest.mark.parametrize("norm", NORMS)
def test_error_of_adaptive_bins(device, norm):
    logits, labels = sample(101, 3, device=device)
    confidence, predicted = logits.softmax(1).max(1)
    edges = [sorted(confidence.tolist())[k * 100 // 6] for k in range(1, 6)]
    expected = error_by_hand(
        confidence, predicted == labels, lambda c: sum(c > e for e in edges), norm
    )
    assert abs(float(expected_calibration_error(logits, labels, 6, norm, True)) - expected) < 1e-6
    diagram = reliability_diagram(logits, labels, 6, adaptive=True)
    assert diagram.count.tolist() == [17, 17, 17, 16, 17, 17]
    # Equal confidences stand in one bin, so the order of samples does not matter.
    tied = torch.full((10, 2), 0.5, device=device)
    labels = (torch.arange(10, device=device) > 6).long()
    ties = reliability_diagram(tied, labels, 4, adaptive=True)
    assert ties.count.max() == 10 and abs(float(ties.error()) - 0.2) < 1e-6


def test_confidence_one_has_a_bin_of_its_own(device):
    p = torch.tensor([[1.0, 0.0], [0.95, 0.05], [1.0, 0.0]], device=device)
    diagram = reliability_diagram(p, torch.tensor([0, 1, 1], device=device), 2)
    assert diagram.count.tolist() == [0, 1, 2] and diagram.edges.tolist() == [0, 0.5, 1, 1]
    torch.testing.assert_close(diagram.confidence[1:].float().cpu(), torch.tensor([0.95, 1.0]))
    assert diagram.accuracy[1:].tolist() == [0, 0.5]
    assert abs(float(diagram.error("max")) - 0.95) < 1e-6


def test_brier_score(device):
    logits, labels = sample(40, 6, device=device)
    p = logits.softmax(1)
    expected = (p.double() - F.one_hot(labels, 6)).square().sum(1).mean()
    torch.testing.assert_close(brier_score(logits, labels), expected.float())
    torch.testing.assert_close(brier_score(p, labels, from_logits=False), expected.float())
    assert brier_score(p.double(), labels).dtype == torch.float64
    binary, truth = p[:, 0], (labels == 0).long()
    torch.testing.assert_close(brier_score(binary, truth), (binary - truth).square().mean())
    both = torch.stack([1 - binary, binary], 1)
    torch.testing.assert_close(brier_score(both, truth), 2 * brier_score(binary, truth))


def test_ignored_rows_do_not_count(device):
    logits, labels = sample(50, 4, device=device, spatial=(2,))
    kept = torch.rand(50, 2, device=device) < 0.6
    holes = labels.where(kept, -100)
    rows, truth = logits.movedim(1, -1)[kept], labels[kept]
    rows = rows.softmax(1)
    logits = logits.softmax(1).movedim(1, -1).masked_fill(~kept[..., None], math.nan).movedim(-1, 1)
    for adaptive in (False, True):
        found = expected_calibration_error(logits, holes, 9, adaptive=adaptive, ignore_index=-100)
        expected = expected_calibration_error(rows, truth, 9, adaptive=adaptive)
        torch.testing.assert_close(found, expected)
    found = brier_score(logits, holes, ignore_index=-100)
    torch.testing.assert_close(found, brier_score(rows, truth))
    nothing = torch.full_like(labels, -100)
    assert expected_calibration_error(logits, nothing, ignore_index=-100).isnan()
    none = reliability_diagram(logits, nothing, adaptive=True, ignore_index=-100)
    assert none.error().isnan() and none.edges.isnan().all()


def test_batches_add_up(device):
    logits, labels = sample(90, 4, device=device)
    whole = reliability_diagram(logits, labels)
    parts = reliability_diagram(logits[:31], labels[:31]) + reliability_diagram(
        logits[31:], labels[31:]
    )
    torch.testing.assert_close(parts.sums, whole.sums)
    torch.testing.assert_close(parts.error("l2"), whole.error("l2"))
    with pytest.raises(ValueError, match="the same bins"):
        whole + reliability_diagram(logits, labels, 3)
    adaptive = reliability_diagram(logits, labels, adaptive=True)
    with pytest.raises(ValueError, match="equal-width"):
        adaptive + adaptive
    assert repr(adaptive).startswith("ReliabilityDiagram(15 adaptive bins on ")


def test_nan_and_nothing(device):
    logits, labels = sample(8, 3, device=device)
    logits[2] = math.nan
    for adaptive in (False, True):
        for norm in NORMS:
            assert expected_calibration_error(logits, labels, 4, norm, adaptive).isnan()
        none = reliability_diagram(logits[:0], labels[:0], 4, adaptive)
        assert none.error().isnan() and not none.count.any()
    assert brier_score(logits, labels).isnan() and brier_score(logits[:0], labels[:0]).isnan()


@pytest.mark.proof  # the compiler takes seconds to import
def test_traced_values_are_those_of_the_eager_call(device):
    def scores(logits, labels):
        return (
            expected_calibration_error(logits, labels, 7),
            expected_calibration_error(logits, labels, 7, adaptive=True, ignore_index=1),
            brier_score(logits, labels),
        )

    traced = torch.compile(scores, backend="eager", fullgraph=True)
    logits, labels = sample(30, 3, device=device)
    for given in (logits, logits.softmax(1)):
        torch.testing.assert_close(traced(given, labels), scores(given, labels))


def test_half_types_are_computed_in_float32(device):
    logits, labels = sample(64, 5, device=device)
    half = logits.bfloat16()
    found = expected_calibration_error(half, labels)
    assert torch.equal(found, expected_calibration_error(half.float(), labels))
    assert brier_score(half, labels).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"bins": 0}, ValueError, "bins: expected an int >= 1, got 0"),
        ({"bins": 2.5}, TypeError, "bins: expected an int"),
        ({"norm": "l3"}, ValueError, "norm: expected one of"),
        ({"adaptive": 1}, TypeError, "adaptive: expected True or False"),
        ({"from_logits": 1}, TypeError, "from_logits: expected True, False or None"),
        ({"from_logits": False}, ValueError, "expected probabilities in"),
        ({"labels": torch.randn(6, 4)}, TypeError, "not mixed"),
        ({"labels": torch.full((6,), 4)}, IndexError, r"expected class indices in \[0, 4\)"),
        ({"labels": torch.full((6,), -(2**63))}, IndexError, "expected class indices"),  # NaN's int
        ({"labels": torch.zeros(6, dtype=torch.int32)}, TypeError, r"\.long\(\)"),
        ({"labels": torch.zeros(5, dtype=torch.long)}, ValueError, r"labels: expected shape \[6\]"),
        ({"predictions": torch.randn(6, 1)}, ValueError, r"\.squeeze\(1\)"),
        ({"predictions": torch.ones(6, 4, dtype=torch.long)}, TypeError, "floating"),
        ({"predictions": [0.5]}, TypeError, "predictions: expected a floating tensor"),
        ({"predictions": torch.tensor(0.5)}, ValueError, "predictions: expected shape"),
    ],
)
def test_bad_arguments(change, error, match):
    given = {"predictions": sample(6, 4)[0], "labels": torch.zeros(6, dtype=torch.long)} | change
    with pytest.raises(error, match=match):
        expected_calibration_error(**given)


def test_a_mixed_target_is_refused():
    logits, labels = sample(6, 4)
    target = MixedTarget.from_labels(labels, MixPlan.identity(6), 4)
    with pytest.raises(TypeError, match="got a MixedTarget; calibration compares"):
        brier_score(logits, target)


def test_plot():
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    logits, labels = sample(50, 3)
    diagram = reliability_diagram(logits, labels, 5)
    ax = diagram.plot()
    assert len(ax.patches) == 6 and ax.get_ylabel() == "accuracy"
    heights = torch.tensor([bar.get_height() for bar in ax.patches], dtype=torch.float64)
    torch.testing.assert_close(heights, diagram.accuracy.nan_to_num(0.0))
    assert diagram.plot(ax) is ax


# ------------------------------------------------------------------ the packages


@pytest.mark.proof
def test_values_are_those_of_torchmetrics():
    require("torchmetrics")
    from torchmetrics.functional.classification import (
        binary_calibration_error,
        multiclass_calibration_error,
    )

    for seed in range(4):
        logits, labels = sample(500, 4, seed=seed)
        p = logits.softmax(1)
        p[::7] = F.one_hot(labels[::7], 4).float()  # confidence 1
        small = logits.sigmoid()  # logits, which pass for probabilities
        holes = labels.where(torch.rand(500) < 0.8, -1)
        maps = logits[:480].view(20, 24, 4).movedim(-1, 1), labels[:480].view(20, 24)
        hit = (labels == 1).long()
        for norm in NORMS:
            for bins in (1, 2, 15, 40):
                for given in (logits, p, small, p.double(), p.half()):
                    found = expected_calibration_error(given, labels, bins, norm)
                    expected = multiclass_calibration_error(given, labels, 4, bins, norm)
                    torch.testing.assert_close(found, expected.float(), atol=2e-7, rtol=2e-6)
                found = expected_calibration_error(p, holes, bins, norm, ignore_index=-1)
                expected = multiclass_calibration_error(p, holes, 4, bins, norm, ignore_index=-1)
                torch.testing.assert_close(found, expected, atol=2e-7, rtol=2e-6)
                found = expected_calibration_error(*maps, bins, norm)
                expected = multiclass_calibration_error(*maps, 4, bins, norm)
                torch.testing.assert_close(found, expected, atol=2e-7, rtol=2e-6)
                for given in (p[:, 1], logits[:, 1]):
                    found = expected_calibration_error(given, hit, bins, norm)
                    expected = binary_calibration_error(given, hit, bins, norm)
                    torch.testing.assert_close(found, expected, atol=2e-7, rtol=2e-6)


def test_values_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    calibration_curve = pytest.importorskip("sklearn.calibration").calibration_curve
    logits, labels = sample(501, 5)
    binary, hit = logits[:, 0].sigmoid(), (labels == 0).long()
    for strategy in ("uniform", "quantile"):
        diagram = reliability_diagram(binary, hit, 7, adaptive=strategy == "quantile")
        shown = diagram.count > 0
        accuracy, confidence = calibration_curve(
            hit.numpy(), binary.double().numpy(), n_bins=7, strategy=strategy
        )
        torch.testing.assert_close(diagram.accuracy[shown], torch.from_numpy(accuracy))
        torch.testing.assert_close(diagram.confidence[shown], torch.from_numpy(confidence))
    found = brier_score(binary, hit)
    assert abs(float(found) - metrics.brier_score_loss(hit.numpy(), binary.numpy())) < 1e-6
    p = logits.double().softmax(1)
    many = metrics.brier_score_loss(labels.numpy(), p.numpy(), scale_by_half=False)
    assert abs(float(brier_score(p, labels)) - many) < 1e-12
