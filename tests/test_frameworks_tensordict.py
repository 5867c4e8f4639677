"""BatchMix on a TensorDict, nested and with padded boxes."""

from __future__ import annotations

import pytest
import torch
from frameworks import require

from fused_mixup import BatchMix, MixedTarget, mix

require("tensordict")
tensordict = pytest.importorskip("tensordict")
pytestmark = pytest.mark.proof


def test_a_tensordict_comes_back():
    given = {
        "image": torch.rand(4, 3, 8, 8),
        "target": {"mask": torch.randint(0, 5, (4, 8, 8)), "label": torch.arange(4)},
        "boxes": torch.tensor([1.0, 1.0, 5.0, 6.0]).expand(4, 2, 4).contiguous(),
        "labels": torch.arange(8).view(4, 2),
        "num_boxes": torch.tensor([2, 0, 1, 2]),
    }
    options = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0, "per": "sample", "inplace": False}
    batch = tensordict.TensorDict(given, batch_size=4)
    expected, plans = BatchMix(5, seed=3, **options).with_plans(given)
    out = BatchMix(5, seed=3, **options)(batch)
    assert type(out) is type(batch) and out.batch_size == batch.batch_size
    assert torch.equal(out["image"], mix(given["image"], plans["image"]))
    for key in ("boxes", "labels", "num_boxes", "box_weights"):
        assert torch.equal(out[key], expected[key]), key
    assert isinstance(out["target"]["label"], MixedTarget)
    assert torch.equal(out["target"]["mask"].dense(), expected["target"]["mask"].dense())
    assert torch.equal(batch["image"], given["image"])
