"""The constructors of masks: what they refuse, and that they read no value from a device."""

from __future__ import annotations

import pytest
import torch

from fused_mixup import MixPlan
from fused_mixup.masks import (
    band_mask,
    class_mask,
    fmix_mask,
    gauss_mask,
    grid_mask,
    patch_mask,
    rectangle_mask,
    row_table_mask,
    saliency_mask,
    stored_mask,
)

H, W = 11, 14


@pytest.mark.proof  # the first op on meta imports for seconds
def test_no_value_is_read_from_a_device():
    """Tensors on meta have no values: whatever waits for one fails."""
    with torch.device("meta"):
        floats, integers = torch.ones(2, 3, H), torch.ones(2, 1, 4, dtype=torch.int64)
        maps, flags = torch.ones(2, H, W), torch.ones(2, 9, dtype=torch.bool)
    row = floats[:, 0, 0]
    for mask in (
        gauss_mask(floats[:, 0, :2], 2.0, (H, W)),
        gauss_mask((1.0, 2.0), row, (H, W)),
        grid_mask(integers.expand(2, 2, 4).reshape(2, 8), (H, W)),
        rectangle_mask(integers, (H, W)),
        band_mask(integers[..., :2], integers[..., 2:], (H, W)),
        row_table_mask(floats, torch.ones(2, 3, W, device="meta"), row),
        fmix_mask(torch.ones(2, 2, 8, 2, device="meta"), integers[:, 0, 0], (H, W)),
        stored_mask(maps, "bilinear", "sigmoid"),
        class_mask(maps.long(), integers[:, 0]),
        class_mask(maps.long(), flags),
        patch_mask(flags, cell=8, size=(H, W)),
        saliency_mask(maps, maps),
    ):
        assert mask.device.type == "meta" and mask.batch_size == 2
        assert mask.size in (None, (H, W))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gauss_mask((1.0, 2.0), 0.0, (4, 4)), ValueError, "sigma: expected finite numbers"),
        (lambda: gauss_mask((1.0,), 1.0, (4, 4)), TypeError, r"center: expected \[B, 2\]"),
        (lambda: gauss_mask(torch.ones(3), 1.0, (4, 4)), ValueError, "center: expected"),
        (lambda: gauss_mask(torch.ones(3, 2), torch.ones(2), (4, 4)), ValueError, "3 rows or one"),
        (lambda: gauss_mask((1, 2), 1.0, (4,)), ValueError, r"size: expected \(H, W\)"),
        (lambda: grid_mask([1.5] * 8, (4, 4)), TypeError, "numbers: expected integers"),
        (lambda: grid_mask([0] * 8, (4, 4)), ValueError, "numbers: expected periods"),
        (lambda: grid_mask([0] * 7, (4, 4)), ValueError, r"numbers: expected \[B, 8\]"),
        (lambda: rectangle_mask(torch.zeros(2, 5, 4).long(), (4, 4)), ValueError, "n from 1 to 4"),
        (lambda: rectangle_mask([[[0, 0, 1, 1]]], (4, 4), "and"), ValueError, "combine: expected"),
        (lambda: band_mask(None, None, (4, 4)), ValueError, "expected at least one"),
        (lambda: row_table_mask(torch.ones(1, 2, 3), torch.ones(1, 1, 3), torch.ones(1)),
         ValueError, "rows, columns: expected"),
        (lambda: fmix_mask(torch.ones(1, 2, 4, 2), [3], (5, 9)), ValueError, r"\[B, 2, 6, 2\]"),
        (lambda: fmix_mask(torch.ones(1, 2, 6, 2), [46], (5, 9)), ValueError, "from 0 to 45"),
        (lambda: stored_mask(torch.ones(4, 4)), ValueError, r"map: expected shape \[B, 1, h, w\]"),
        (lambda: stored_mask(torch.full((1, 2, 2), 2.0)), ValueError, r"map: expected numbers"),
        (lambda: stored_mask(torch.ones(1, 2, 2), function="relu"), ValueError, "function: "),
        (lambda: class_mask(torch.ones(1, 2, 2), [[1]]), TypeError, "label_map: expected integers"),
        (lambda: class_mask(torch.ones(2, 2, 2).int(), [[1]]), ValueError, "chosen: expected 2"),
        (lambda: class_mask(torch.ones(2, 2, 2).int(), [[1, 2], [3]]), ValueError,
         "chosen: expected as many classes for each sample, got lists of 1 to 2; fill"),
        (lambda: patch_mask(torch.ones(1, 4)), TypeError, "keep: expected bool"),
        (lambda: patch_mask(torch.ones(1, 6).bool()), ValueError, "grid: expected"),
        (lambda: patch_mask(torch.ones(1, 4).bool(), cell=4), ValueError, "both or neither"),
        (lambda: patch_mask(torch.ones(1, 4).bool(), cell=4, size=(9, 8)), ValueError, "cover"),
        (lambda: patch_mask(torch.ones(2, 0).bool()), ValueError, "grid: expected"),
        (lambda: stored_mask(torch.full((1, 2, 2), torch.nan), function="sigmoid"), ValueError,
         "map: expected numbers, got NaN; use .nan_to_num"),
        (lambda: stored_mask(torch.ones(1, 2, 2), threshold=torch.nan), ValueError, "threshold: "),
        (lambda: row_table_mask(torch.full((1, 1, 3), torch.nan), torch.ones(1, 1, 3),
         torch.ones(1)), ValueError, "rows: expected numbers, got NaN"),
        (lambda: fmix_mask(torch.ones(1, 2, 6, 2), [3], (5, 9), torch.nan), ValueError, "decay: "),
        (lambda: stored_mask(torch.ones(1, 2, 2)).dense((-1, 4)), ValueError, "size: expected"),
        (lambda: stored_mask(torch.ones(1, 2, 2)).mean((1, 2, 3)), ValueError, "size: expected"),
        (lambda: stored_mask(torch.ones(1, 2, 2)).resize((4,)), ValueError, "size: expected"),
        (lambda: MixPlan.identity(3).with_weight(torch.ones(1)), ValueError, "^weight: expected"),
        (lambda: saliency_mask(-torch.ones(1, 2, 2), torch.ones(1, 2, 2)), ValueError, "own: "),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
