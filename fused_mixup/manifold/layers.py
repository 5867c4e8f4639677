"""Which layers of a model may be mixed: their names, found and checked once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from ..arguments import kind

Predicate = Callable[[str, nn.Module], bool]

COMPILED = "_orig_mod"  # the name that torch.compile gives to the module inside
_SHOWN = 8  # names in an error that has no near ones


def is_compiled_module(module: nn.Module) -> bool:
    """Whether ``module`` is what ``torch.compile(module)`` returns."""
    return any(name == COMPILED for name, _ in module.named_children())


def inner_model(model: nn.Module) -> tuple[nn.Module, bool]:
    """The model inside torch.compile's and data-parallel wrappers; whether it is compiled."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    compiled = False
    while True:
        if is_compiled_module(model):
            model, compiled = model.get_submodule(COMPILED), True
        elif isinstance(model, wrappers):
            model = model.module
        else:
            return model, compiled


def find_layers(model: nn.Module, layers: Any) -> tuple[dict[str, nn.Module], set[str]]:
    """The modules of ``layers``, names or a predicate, by name and in the order given.

    And the names of those inside a compiled block, whose wrapper itself is not inside.
    """
    known: dict[str, nn.Module] = {}
    inside = set()
    for path, module in model.named_modules(remove_duplicate=False):
        parts = path.split(".")
        name = ".".join(part for part in parts if part != COMPILED)
        if name and name not in known:  # first comes the wrapper of a compiled block
            known[name] = module
            if COMPILED in parts:
                inside.add(name)
    if isinstance(layers, str):
        raise TypeError(f"layers: expected a list of names, got {kind(layers)}; use [{layers!r}]")
    if callable(layers) and not isinstance(layers, nn.Module):
        found = _chosen(known, layers)
    elif isinstance(layers, Iterable):
        # The order of a set is another in each process.
        unordered = isinstance(layers, (set, frozenset))
        found = _named(known, sorted(layers, key=str) if unordered else list(layers))
    else:
        raise TypeError(
            "layers: expected names of modules or a function of (name, module), got "
            f"{kind(layers)}; model.named_modules() lists the names"
        )
    for name, module in found.items():
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            raise ValueError(
                f"layers: expected modules that are called, got {name!r}, a "
                f"{type(module).__name__}, which is none; name its modules: {name}.0 and so on"
            )
    return found, inside & found.keys()


def _named(known: dict[str, nn.Module], wanted: list[Any]) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    by_module: dict[int, str] = {}
    for name in wanted:
        if not isinstance(name, str):
            raise TypeError(f"layers: expected names of modules, got {kind(name)}")
        if name not in known:
            raise ValueError(
                f"layers: expected names of modules of the model, got {name!r}; "
                f"{_nearest(known, name)}"
            )
        same = by_module.setdefault(id(known[name]), name)
        if name in found or same != name:
            again = "twice" if name in found else f"and {same!r}, which are one module"
            raise ValueError(f"layers: expected each module once, got {name!r} {again}")
        found[name] = known[name]
    return found


def _nearest(known: dict[str, nn.Module], name: str) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"the nearest are {near}"
    first = list(known)[:_SHOWN]
    more = "" if len(known) <= _SHOWN else f" and {len(known) - _SHOWN} more"
    return f"it has {first}{more}"


def _chosen(known: dict[str, nn.Module], predicate: Predicate) -> dict[str, nn.Module]:
    """The modules that the predicate chooses, each under its first name."""
    seen: set[int] = set()
    found = {}
    for name, module in known.items():
        if id(module) not in seen and predicate(name, module):
            found[name] = module
        seen.add(id(module))
    if not found:
        raise ValueError(
            f"layers: expected a predicate that holds for some module, got False for all "
            f"{len(known)}: {list(known)[:_SHOWN]} and so on"
        )
    return found
