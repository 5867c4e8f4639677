"""timm's argument names as settings of :class:`fused_mixup.BatchMix` and of its loss."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from .. import BatchMix
from ..arguments import check_choice, integer, kind

# timm's name, or another in use: the name of the setting here.
RENAMED = {
    "mixup": "mixup_alpha",
    "cutmix": "cutmix_alpha",
    "mixup_prob": "prob",
    "mixup_switch_prob": "switch_prob",
    "mixup_mode": "per",
    "mode": "per",
    "mixup_off_epoch": "off_after_epoch",
    "disable_mixup_epochs": "off_after_epoch",
    "smoothing": "label_smoothing",
    "bce_loss": "loss",
    "bce_target_thresh": "target_threshold",
    "bce_sum": "sum_classes",
}
LOSS_SETTINGS = ("loss", "target_threshold", "sum_classes")
BATCH_MIX_SETTINGS = inspect.signature(BatchMix).parameters
KEYS = tuple(sorted({*RENAMED, *LOSS_SETTINGS, *BATCH_MIX_SETTINGS, "epochs", "recipe"}))
"""The keys that a recipe takes: of the arguments of a whole training give these alone."""
LOSSES = {"ce": 0, "bce": 1}
FLAGS = {
    "bce_loss", "bce_sum", "sum_classes",
    *(name for name, p in BATCH_MIX_SETTINGS.items() if isinstance(p.default, bool)),
}  # fmt: skip

_MODES = {"batch": "batch", "pair": "pair", "elem": "sample"}
_OF_ALPHAS = ("mixup_alpha", "cutmix_alpha", "switch_prob", "cutmix_minmax")


def nearest(name: str, known: Iterable[str]) -> str:
    """How an error ends: the known names most like ``name``."""
    close = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def renamed(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings of one mapping, by their names here."""
    settings: dict[str, Any] = {}
    said: dict[str, str] = {}
    for key, value in given.items():
        if not isinstance(key, str) or key not in KEYS:
            hint = nearest(key, KEYS) if isinstance(key, str) else ""
            raise ValueError(
                f"{where}: expected keys that say how to mix, which fused_mixup.recipes.KEYS "
                f"lists, got {kind(key)}{hint}"
            )
        if key in ("epochs", "recipe"):  # they say something only beside other keys
            continue
        name = RENAMED.get(key, key)
        if name in said:
            raise ValueError(
                f"{where}: expected one key for {name}, got {said[name]!r} and {key!r}"
            )
        said[name] = key
        settings[name] = _value(key, value, given, where)
    return settings


def _value(key: str, value: Any, given: Mapping[str, Any], where: str) -> Any:
    if isinstance(value, str) and _is_number(value):
        # YAML 1.1, which PyYAML reads, wants a dot and a signed exponent.
        raise TypeError(
            f"{key}: expected a number, got the text {kind(value)}; YAML reads 1e-1 as text: write "
            "1.0e-1 or 0.1"
        )
    if key in FLAGS and not isinstance(value, bool):
        raise TypeError(f"{key}: expected a bool, got {kind(value)}")
    if key not in FLAGS and isinstance(value, bool):
        raise TypeError(
            f"{key}: expected no bool, got {value}; YAML reads on and yes as True, off and no as "
            "False: write a number, 0 to turn a mode off"
        )
    if key in ("mixup_mode", "mode"):
        check_choice(key, value, dict.fromkeys(_MODES, 0), " (timm's names; ours are those of per)")
        return _MODES[value]
    if key == "bce_loss":
        return "bce" if value else "ce"
    if key == "loss":
        check_choice("loss", value, LOSSES)
    if key == "mixup_off_epoch":
        return integer(key, value) or None  # timm's 0 says never
    if key == "disable_mixup_epochs":
        return _last_epochs(integer(key, value), given, where)
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _last_epochs(count: int, given: Mapping[str, Any], where: str) -> int | None:
    """The first of the last ``count`` epochs."""
    if "epochs" not in given:
        raise ValueError(
            f"{where}: expected epochs beside disable_mixup_epochs, as the last of them are not "
            "mixed, got none; or give mixup_off_epoch, the first epoch that is not mixed"
        )
    epochs = integer("epochs", given["epochs"])
    if not 0 <= count <= epochs:
        raise ValueError(f"disable_mixup_epochs: expected 0 to {epochs} epochs, got {count}")
    return epochs - count if count else None


def merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of several mappings in which a later one goes first."""
    settings: dict[str, Any] = {}
    for layer in layers:
        if layer.get("mix") is not None:  # variants by name take the place of these
            settings = {name: v for name, v in settings.items() if name not in _OF_ALPHAS}
        settings |= layer
    modes = ("mixup_alpha", "cutmix_alpha", "cutmix_minmax")
    if settings.get("mix") is None and not any(settings.get(name) for name in modes):
        # No mode is on: timm's train.py then trains without mixing.
        settings |= {"mixup_alpha": 1.0, "prob": 0.0}
    return settings
