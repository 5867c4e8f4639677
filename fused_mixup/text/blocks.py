"""The layers of an encoder, found in models of transformers or by name."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from ..arguments import kind


def find_blocks(model: nn.Module, name: str | None) -> tuple[list[nn.Module], int]:
    """The modules of the layers, and how many layers a forward has (more where some are shared)."""
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    }
    config = getattr(model, "config", None)
    count = getattr(config, "num_hidden_layers", None)
    if name is None:
        name = _only_one(model, lists, config, count)
    elif not isinstance(name, str):
        raise TypeError(f"blocks: expected the name of a ModuleList, got {kind(name)}")
    if name not in lists:
        near = difflib.get_close_matches(name, lists, n=3, cutoff=0.4) or list(lists)[:8]
        raise ValueError(
            f"blocks: expected the name of a ModuleList of the model, got {name!r}; the nearest "
            f"are {near}"
        )
    modules = list(lists[name])
    shared = len(modules) == getattr(config, "num_hidden_groups", None)  # ALBERT
    return modules, count if shared and isinstance(count, int) else len(modules)


def _only_one(model: nn.Module, lists: dict[str, nn.ModuleList], config: Any, count: Any) -> str:
    groups = getattr(config, "num_hidden_groups", None)
    found = [path for path, module in lists.items() if len(module) == count]
    if not found and groups is not None:
        found = [path for path in lists if path.endswith("albert_layer_groups")]
    # A list in a layer of another list may be as long as that.
    found = [path for path in found if not any(path.startswith(f"{other}.") for other in found)]
    if len(found) != 1:
        why = f"got {len(found)} of that length" if count is not None else "got no such config"
        raise ValueError(
            "blocks: expected a model of transformers with one ModuleList of "
            f"config.num_hidden_layers layers, {why}; give blocks= one of {list(lists)[:8]}"
        )
    return found[0]
