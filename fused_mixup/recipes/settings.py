"""The settings of a recipe, from a name, a mapping or a YAML file."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arguments import kind
from .names import merged, nearest, renamed
from .table import RECIPES, TIMM_DEFAULTS


def read_settings(recipe: Any, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of :class:`BatchMix` and of the loss, by their names here."""
    if isinstance(recipe, Mapping):
        base, where = recipe, "recipe"
    elif is_file(recipe):
        base, where = read_yaml(Path(recipe)), str(recipe)
    else:
        base, where = named(recipe), "recipe"
    layers = [renamed(base, where), renamed(overrides, "overrides")]
    name = base.get("recipe")
    if name is not None:
        layers.insert(0, renamed(named(name), "recipe"))
    return merged([renamed(TIMM_DEFAULTS, "recipe"), *layers])


def named(name: Any) -> dict[str, Any]:
    if not isinstance(name, str):
        raise TypeError(
            f"recipe: expected a name, a mapping or the path of a YAML file, got {kind(name)}"
        )
    if name not in RECIPES:
        raise ValueError(
            f"recipe: expected one of {list(RECIPES)}, a mapping or the path of a .yaml file, got "
            f"{kind(name)}{nearest(name, RECIPES)}"
        )
    return RECIPES[name]


def is_file(recipe: Any) -> bool:
    if isinstance(recipe, str):
        return recipe.lower().endswith((".yaml", ".yml"))
    return isinstance(recipe, os.PathLike)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        yaml = importlib.import_module("yaml")  # by name, as it is optional
    except ImportError:
        raise ImportError(
            f"recipe: expected PyYAML for {path}, which is not installed; pip install pyyaml, or "
            "give a mapping"
        ) from None
    try:
        text = path.read_text(encoding="utf-8")
        given = yaml.safe_load(text)
        keys = [key.value for key, _ in yaml.compose(text).value] if isinstance(given, dict) else []
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also of dates, and of UTF-8
        mark = getattr(error, "problem_mark", None)
        at = "" if mark is None else f" in line {mark.line + 1}"
        raise ValueError(f"{path}: expected YAML, got what cannot be read{at}") from None
    for key in keys:
        if keys.count(key) > 1:  # YAML would take the last
            raise ValueError(f"{path}: expected each key once, got {kind(key)} again")
    if not isinstance(given, dict):
        raise ValueError(f"{path}: expected a mapping of names to values, got {kind(given)}")
    return given
