"""Random batches over several ranks, and whether GlobalMix mixes them as one process would."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch
from detections import H, W, random_boxes
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import fused_mixup as fm
from fused_mixup import BatchMix

K = 10
PAIRINGS = ("flip", "roll", "shuffle", "derangement", "cross_class")
VARIANTS = ("mixup", "cutmix", "hmix", "gridmix", "smoothmix", "fmix", "resizemix")
MAPS = ("saliencymix", "attentivemix", "guidedmixup")


def options_of(rng: random.Random) -> dict[str, Any]:
    """Arguments of BatchMix: MixUp, CutMix, both, or variants with masks."""
    per = rng.choice(("batch", "pair", "sample"))
    pairing = rng.choice(PAIRINGS)
    if per == "pair" and pairing == "roll":
        pairing = "flip"
    options: dict[str, Any] = {"per": per, "pairing": pairing, "seed": rng.getrandbits(64)}
    options |= {"prob": rng.choice((1.0, 1.0, 0.6)), "inplace": rng.random() < 0.7}
    options |= {"label_smoothing": rng.choice((0.0, 0.1)), "correct_lam": rng.random() < 0.7}
    form = rng.choice(("mixup", "cutmix", "both", "bounds", "variants", "maps"))
    if form == "variants":
        return options | {"mix": dict.fromkeys(rng.sample(VARIANTS, rng.randint(1, 3)))}
    if form == "maps":
        return options | {"mix": {rng.choice(MAPS): True}}
    if form != "mixup":
        options["cutmix_alpha"] = rng.choice((0.3, 1.0))
    if form in ("cutmix", "bounds"):
        options["mixup_alpha"] = 0.0
    if form == "bounds":
        options["cutmix_minmax"] = (0.2, 0.8)
    return options


def batch_of(rng: random.Random, n: int) -> Any:
    """Images and labels of n samples, in one of several forms, dtypes and memory formats."""
    size = rng.choice(((8, 8), (7, 9), (16, 12)))
    dtype = rng.choice((torch.float32, torch.float32, torch.uint8, torch.bfloat16, torch.float64))
    x = (torch.rand(n, 3, *size) * 200).to(dtype)
    if rng.random() < 0.3:
        x = x.to(memory_format=torch.channels_last)
    labels = torch.randint(0, K, (n,))
    form = rng.choice(("pair", "pair", "dict", "soft", "heads", "images"))
    if form == "dict":
        batch = {"image": x, "label": labels, "id": list(range(n)), "depth": torch.rand(n, 1, 4, 6)}
        return batch | {"mask": torch.randint(0, K, (n, *size))}
    if form == "soft":
        return x, torch.rand(n, 4)
    if form == "heads":
        return x, {"a": labels, "b": labels % 3, "score": torch.rand(n)}
    return x if form == "images" else (x, labels)


def share(value: Any, start: int, stop: int) -> Any:
    """The samples from start to stop, in memory of their own."""
    if isinstance(value, Tensor):
        part = value[start:stop]
        if value.ndim == 4 and not value.is_contiguous():
            return part.clone(memory_format=torch.channels_last)
        return part.clone()
    if isinstance(value, dict):
        seen: dict[int, Any] = {}  # a tensor that a batch contains twice
        return {key: seen.setdefault(id(v), share(v, start, stop)) for key, v in value.items()}
    if isinstance(value, tuple):
        return tuple(share(v, start, stop) for v in value)
    return copy.deepcopy(value[start:stop])


def assert_same(got: Any, expected: Any, name: str = "batch") -> None:
    """Compare every bit, but for NaN."""
    assert type(got) is type(expected), (name, type(got), type(expected))
    if isinstance(got, Tensor):
        assert got.shape == expected.shape and got.dtype == expected.dtype, (name, got.shape)
        assert torch.equal(got, expected), (name, (got != expected).sum())
    elif isinstance(got, fm.MixedTarget):
        for field in ("labels", "partner_labels", "weight"):
            assert_same(getattr(got, field), getattr(expected, field), f"{name}.{field}")
        assert got.num_classes == expected.num_classes
    elif isinstance(got, dict):
        assert got.keys() == expected.keys(), name
        for key in got:
            assert_same(got[key], expected[key], f"{name}[{key!r}]")
    elif isinstance(got, (tuple, list)):
        assert len(got) == len(expected), name
        for k, (a, b) in enumerate(zip(got, expected, strict=True)):
            assert_same(a, b, f"{name}[{k}]")
    else:
        assert got == expected, name


def check(mix: Any, whole: BatchMix, batch: Any, sizes: list[int], rank: int, maps=None) -> None:
    """One step of a rank against one process with the concatenated batch."""
    start = sum(sizes[:rank])
    stop = start + sizes[rank]
    own = share(batch, start, stop)
    images = first_image(own)
    given = {} if maps is None else {"maps": maps[start:stop].clone()}
    call = mix(*own, **given) if isinstance(own, tuple) else mix(own, **given)
    batch = share(batch, 0, sum(sizes))
    given = {} if maps is None else {"maps": maps}
    expected = whole(*batch, **given) if isinstance(batch, tuple) else whole(batch, **given)
    assert_same(call, share_of(expected, start, stop))
    if whole.inplace and images is not None:
        assert first_image(call).data_ptr() == images.data_ptr()


def first_image(batch: Any) -> Tensor | None:
    if isinstance(batch, dict):
        return next(v for v in batch.values() if isinstance(v, Tensor) and v.ndim > 2)
    first = batch if isinstance(batch, Tensor) else batch[0]
    return first if isinstance(first, Tensor) else None


def share_of(value: Any, start: int, stop: int) -> Any:
    """The rows of a mixed batch, which may hold targets."""
    if isinstance(value, fm.MixedTarget):
        return value[start:stop]
    if isinstance(value, dict):
        return {key: share_of(v, start, stop) for key, v in value.items()}
    if isinstance(value, tuple):
        return tuple(share_of(v, start, stop) for v in value)
    return value[start:stop]


def kinds_of(n: int) -> dict[str, tuple[dict[str, Any], Any]]:
    """Batches of n samples with every kind of entry: name -> more arguments of BatchMix, batch."""
    pick = torch.Generator().manual_seed(n)
    counts = [(3, 0, 2, 1)[i % 4] for i in range(n)]
    x = torch.rand(n, 3, H, W, generator=pick)
    boxes = [random_boxes(count, pick) for count in counts]
    fields = {
        "labels": [torch.randint(0, K, (count,), generator=pick) for count in counts],
        "names": [[f"{i}.{k}" for k in range(count)] for i, count in enumerate(counts)],
    }
    points = [torch.rand(count, 5, 2, generator=pick) * H for count in counts]
    masks = [torch.rand(count, H, W, generator=pick) > 0.5 for count in counts]
    lists = {"image": x, "boxes": boxes, **fields, "keypoints": points, "instance_masks": masks}
    padded = {
        "image": x,
        "boxes": pad_sequence([*boxes, torch.zeros(3, 4)], batch_first=True)[:n],
        "labels": torch.randint(0, K, (n, 3), generator=pick),
        "num_boxes": torch.tensor(counts),
    }
    samples = [
        {"image": x[i], "target": {"boxes": boxes[i], "labels": fields["labels"][i]}}
        for i in range(n)
    ]
    clip = {
        "video": torch.rand(n, 4, 3, 6, 8, generator=pick),
        "audio": torch.rand(n, 2, 40, generator=pick),
        "spectrogram": torch.rand(n, 1, 5, 12, generator=pick),
        "label": torch.randint(0, K, (n,), generator=pick),
        "sound": torch.rand(n, 3, generator=pick),
    }
    follows = {"follows": {"sound": "audio"}, "kinds": {"sound": "labels"}}
    maps = {
        "image": x,
        "mask": torch.randint(0, K, (n, H, W), generator=pick),
        "depth": torch.rand(n, 1, H // 2, W // 2, generator=pick),
        "soft": torch.rand(n, 2, H, W, generator=pick),
        "label": torch.randint(0, K, (n,), generator=pick),
    }
    twice = {"image": x, "again": x, "label": maps["label"]}
    negative = {i: torch.tensor([]) for i in (0, 3, 4)}  # as loaders give them; all of rank 1
    empty = {"image": x, "boxes": [*boxes], "labels": [*fields["labels"]]}
    for i in set(range(n)) & negative.keys():
        empty["boxes"][i] = empty["labels"][i] = negative[i]
    bytes_of = torch.randint(0, K, (n, H, W), generator=pick)
    as_map = bytes_of.to(torch.uint8)
    two_kinds = {"image": as_map, "mask": as_map, "label": maps["label"]}
    wide = {"image": x, "mask": bytes_of.to(torch.uint16), "label": maps["label"]}
    volume = {"volume": torch.rand(n, 1, 4, 5, 6, generator=pick), "y": torch.rand(n)}
    listed = [x[i] for i in range(n)], [int(y) for y in maps["label"]]
    return {
        "lists of boxes": ({}, lists),
        "padded boxes": ({}, padded),
        "samples": ({}, samples),
        "clips": (follows, clip),
        "clips cut in time": ({"cut": "time", **follows}, clip),
        "maps": ({"kinds": {"soft": "soft_map"}}, maps),
        "one tensor twice": ({"kinds": {"again": "image"}}, twice),
        "one tensor of two kinds": ({}, two_kinds),
        "unsigned maps": ({}, wide),
        "empty lists": ({}, empty),
        "keypoints alone": ({}, {"image": x, "keypoints": points}),
        "volumes": ({}, volume),
        "lists of images": ({}, listed),
    }
