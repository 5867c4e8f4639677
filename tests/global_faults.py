"""What goes wrong on one of several ranks: tasks of global_work.py."""

from __future__ import annotations

import os
import time
from typing import Any
from unittest import mock

import torch
from global_cases import K, assert_same, check
from torch.utils.checkpoint import checkpoint

from fused_mixup import BatchMix
from fused_mixup.codes import SEED_WORD, STEP_WORD
from fused_mixup.distributed import GlobalMix

TIMEOUT = 8  # seconds of the group


def raised(call: Any) -> list[str]:
    try:
        call()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def settings(rank: int, ranks: int) -> dict:
    """A setting that differs on rank 1, and what every rank says of it."""
    alone = rank == 1
    stepped = BatchMix(K)
    if alone:
        stepped(torch.rand(2, 3, 4, 4), torch.tensor([1, 2]))
    made = {
        "seed": BatchMix(K, seed=3 + alone),
        "pairing": BatchMix(K, pairing="roll" if alone else "flip"),
        "cutmix_alpha": BatchMix(K, cutmix_alpha=0.5 if alone else 1.0),
        "mix": BatchMix(K, mix={"mixup": 0.5 if alone else 1.0}),
        "mixup_alpha": BatchMix(K) if alone else BatchMix(K, mix={"mixup": 1.0}),
        "settings": BatchMix(K, schedule=lambda epoch: 1.0 + epoch),
        "num_classes": BatchMix(K + alone),
        "label_smoothing": BatchMix(K, label_smoothing=0.1 * alone),
        "step": stepped,
        "kinds": BatchMix(K, kinds={"a": "image"} if alone else {"a": "audio"}),
    }
    made["settings"].set_epoch(1 + alone)
    said = {name: raised(lambda mix=mix: GlobalMix(mix)) for name, mix in made.items()}
    said["neighbours"] = raised(lambda: GlobalMix(BatchMix(K), neighbours=1 + alone))
    said["none"] = raised(lambda: GlobalMix(BatchMix(K)))
    return said


def refusals(rank: int, ranks: int) -> dict:
    """Batches that a rank refuses, or that differ between ranks; the stream then goes on."""
    mix, whole = GlobalMix(BatchMix(K, seed=2)), BatchMix(K, seed=2, rank=0)
    x, y, alone = torch.rand(2, 3, 4, 4), torch.tensor([1, 2]), rank == 1
    said = {
        "labels": raised(lambda: mix(x, y + K * alone)),
        "entries": raised(lambda: mix(torch.rand(2, 3, 4, 4 + alone), y)),
        "dtype": raised(lambda: mix(x.double() if alone else x, y)),
        "gradient": raised(lambda: mix(x.clone().requires_grad_(alone), y)),
        "checkpoint": raised(lambda: checkpoint(lambda: mix(x, y)[0], use_reentrant=False)),
    }
    step = int(mix.batch_mix.state[STEP_WORD])
    mix.batch_mix.state[STEP_WORD] += alone
    said["step"] = raised(lambda: mix(x, y))
    mix.batch_mix.state[STEP_WORD] = step
    if alone:
        mix.batch_mix.settings[0] = 0.3
    said["settings"] = raised(lambda: mix(x, y))
    mix.batch_mix.settings[0] = 1.0
    mix.batch_mix.state[SEED_WORD] = 2 + alone  # another checkpoint
    said["seed"] = raised(lambda: mix(x, y))
    mix.batch_mix.state[SEED_WORD] = 2
    torch.manual_seed(1)
    batch = torch.rand(2 * ranks, 3, 4, 4), torch.randint(0, K, (2 * ranks,))
    check(mix, whole, batch, [2] * ranks, rank)
    return said


class Unpicklable:
    def __reduce__(self) -> Any:
        raise MemoryError("too large")


def misfits(rank: int, ranks: int) -> dict:
    """Entries that differ between ranks; the stream goes on, but not after a step broken off."""
    alone, n = rank == 1, 2
    mix, guided = GlobalMix(BatchMix(K)), GlobalMix(BatchMix(K, mix={"saliencymix": True}))
    x, y, box = torch.rand(n, 3, 8, 8), torch.tensor([1, 2]), torch.tensor([[1.0, 1.0, 5.0, 5.0]])
    heads = {"a": y, "b": y} if alone else {"b": y, "a": y}
    padded = {"image": x, "boxes": box.repeat(n, 1, 1), "labels": y[:, None]}
    counted = {**padded, "num_boxes": torch.ones_like(y)} if alone else padded
    listed = {"image": x, "boxes": [box, box], "labels": [y[:1], y[:1]]}
    points = {**listed, "keypoints": [torch.ones(1, 2, 2 + alone)] * n}
    named = {**listed, "names": [[Unpicklable() if alone else "a"], ["b"]]}
    said = {
        "maps": raised(lambda: guided(x, y, maps=torch.rand(n, 4, 4 + alone))),
        "heads": raised(lambda: mix(x, heads)),
        "num_boxes": raised(lambda: mix(counted)),
        "keypoints": raised(lambda: mix(points)),
        "objects": raised(lambda: mix(named)),
        "gradient": raised(lambda: mix(x, torch.rand(n, 4).requires_grad_(alone))),
    }
    torch.manual_seed(1)
    whole = torch.rand(n * ranks, 3, 8, 8)
    own = whole[n * rank : n * rank + n].clone()
    options = {"kinds": {"again": "image"}, "seed": 2}
    mix = GlobalMix(BatchMix(K, **options))
    got = mix({"image": own, "again": own if alone else own.clone(), "label": y})
    expected = BatchMix(K, seed=2, rank=0)(whole, y.repeat(ranks))[0][n * rank : n * rank + n]
    assert_same([got["image"], got["again"]], [expected, expected])

    batch = {"image": x, "again": x, "label": y}
    full = {"side_effect": MemoryError("full")} if alone else {"wraps": mix.batch_mix._targets.mix}
    with mock.patch.object(mix.batch_mix._targets, "mix", **full):
        said["within"] = raised(lambda: mix(batch))
    said["after"] = raised(lambda: mix(batch)) if alone else []
    return said


def _lost(rank: int, leave: Any) -> dict:
    mix = GlobalMix(BatchMix(K))
    x, y = torch.rand(2, 3, 4, 4), torch.tensor([1, 2])
    mix(x, y)
    if rank == 1:
        leave()
    started = time.monotonic()
    return {"raised": raised(lambda: mix(x, y)), "seconds": time.monotonic() - started}


def dies(rank: int, ranks: int) -> dict:
    """Rank 1 ends in the middle of a training."""
    return _lost(rank, lambda: os._exit(3))


def stays_silent(rank: int, ranks: int) -> dict:
    """Rank 1 sends nothing for longer than the timeout of the group."""
    return _lost(rank, lambda: time.sleep(TIMEOUT + 4))
