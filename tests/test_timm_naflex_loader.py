"""NaFlexMixup in timm's own NaFlex loader: the batches that timm's gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comparing import same_bits
from peers import timm
from test_timm_naflex import K, seed_all
from timm.data import naflex_mixup as theirs
from timm.data.naflex_loader import create_naflex_loader

from fused_mixup import timm as ours

assert timm is not None


class Pictures(torch.utils.data.Dataset):
    """PIL images of many sizes, and labels."""

    def __init__(self, count):
        self.image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
        self.count, self.transform = count, None

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 256, (*rng.integers(20, 90, 2), 3), dtype=np.uint8)
        return self.image.fromarray(pixels), i % K


def load(of, workers, prefetcher):
    seed_all(4)
    loader = create_naflex_loader(
        Pictures(23),
        patch_size=8,
        train_seq_lens=(16, 36),
        batch_size=4,
        is_training=True,
        mixup_fn=of.NaFlexMixup(num_classes=K, mixup_off_epoch=2),
        num_workers=workers,
        use_prefetcher=prefetcher,
        pin_memory=False,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    data = getattr(loader, "loader", loader).dataset
    batches = []
    for epoch in range(3):
        data.set_epoch(epoch)
        batches += list(loader)
    return batches


@pytest.mark.parametrize("workers", [0, 2])
def test_in_timms_loader(workers):
    """Without the prefetcher images are float32, and equal; with it they are uint8."""
    for prefetcher in (False, True):
        want, got = (load(of, workers, prefetcher) for of in (theirs, ours))
        assert len(want) == len(got) > 6
        changed = 0
        for (a, target), (b, our_target) in zip(want, got, strict=True):
            assert same_bits(our_target, target)
            for key in ("patch_coord", "patch_valid"):
                assert same_bits(b[key], a[key])
            if prefetcher:  # a byte apart, after normalising
                torch.testing.assert_close(
                    b["patches"], a["patches"], rtol=0, atol=1.01 / 255 / 0.22
                )
                changed += not same_bits(b["patches"], a["patches"])
            else:
                assert same_bits(b["patches"], a["patches"])
        assert bool(changed) == prefetcher


def test_the_example_trains(capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from examples import train_naflex

    options = ["--epochs", "2", "--off-epoch", "1"]
    accuracy = train_naflex.main(options)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Rank" not in line]
    assert 0 < accuracy <= 1 and len(lines) == 3
    assert lines[0].endswith("  mixing") and "no mixing" in lines[1] and "ms a batch" in lines[2]
