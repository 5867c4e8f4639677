"""Times fused_mixup.keras against Keras' own layers on the PyTorch backend: whole calls.

A call draws, mixes images and blends one-hot labels. Both layers have the same seed and so the same
draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import installed_peers
from ..registry import OURS, Case, Provider, Work
from ..timing import rotate

CLASSES = 1000
PEER = "Keras"
OPTIONS: dict[str, dict[str, Any]] = {
    "MixUp": {},
    "CutMix": {},
    "RandomErasing": {"fill_value": 0.5, "value_range": (0, 1)},
}


def whole_call(case: Case, device: str) -> Work:
    name = case.op.rpartition(".")[2]
    xs = rotate(lambda: torch.rand(case.shape))
    keras = installed_peers.keras()
    if isinstance(keras, str):
        return Work(xs, {OURS: keras, PEER: keras}, tuple)
    from fused_mixup import keras as ours

    y = torch.eye(CLASSES)[torch.randint(0, CLASSES, (case.shape[0],))]

    def call(layers: Any) -> Callable[[Tensor], dict[str, Tensor]]:
        layer = getattr(layers, name)(seed=1, data_format="channels_last", **OPTIONS[name])
        return lambda x: layer({"images": x, "labels": y})

    # Labels of CutMix differ: Keras weighs them by another area than it pastes.
    keys = ("images",) if name == "CutMix" else ("images", "labels")

    def select(batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(batch[key] for key in keys)

    def expected(x: Tensor) -> tuple[Tensor, ...]:
        return select(call(keras.layers)(x))  # a new layer: the first draws

    providers = {OURS: Provider(call(ours)), PEER: Provider(call(keras.layers))}
    return Work(xs, providers, expected, select=select)


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":  # Keras chooses the device itself
        return
    make = partial(Case, dtype=torch.float32, build=whole_call, group="keras", peers=(PEER,))
    for name in OPTIONS:
        goals = () if name == "RandomErasing" else (f"cpu keras {name}",)
        variant = "one colour" if name == "RandomErasing" else "whole call"
        yield make(f"keras.{name}", variant, (64, 224, 224, 3), goals=goals)
