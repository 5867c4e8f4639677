"""Detection batches and mixers for the tests of BatchMix."""

from __future__ import annotations

import torch

from fused_mixup import BatchMix

H, W, K = 24, 32, 5
MODES = {
    "MixUp": {"mixup_alpha": 1.0},
    "CutMix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "both": {"mixup_alpha": 1.0, "cutmix_alpha": 1.0, "per": "sample"},
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_boxes(n, pick):
    low = torch.rand(n, 2, generator=pick) * torch.tensor([W - 8.0, H - 8.0])
    high = low + 1 + torch.rand(n, 2, generator=pick) * torch.tensor([W / 3, H / 3])
    return torch.cat((low, high.minimum(torch.tensor([W, H]))), 1)


def detections(counts=(3, 0, 2, 4), seed=0):
    pick = generator(seed)
    return {
        "image": torch.rand(len(counts), 3, H, W, generator=pick),
        "boxes": [random_boxes(n, pick) for n in counts],
        "labels": [torch.randint(0, K, (n,), generator=pick) for n in counts],
        "area": [torch.rand(n, generator=pick) for n in counts],
        "names": [[f"{i}.{k}" for k in range(n)] for i, n in enumerate(counts)],
        "path": ["a.jpg"] * len(counts),
    }


def copied(batch):
    return {
        key: value.clone() if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


def mixer(mode, **options):
    return BatchMix(seed=4, pairing="shuffle", **mode, **options)


def same(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))
