"""A network that looks at images once more, and is left as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for every module; then each has the mode that it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def find_logits(output: Any) -> Tensor | None:
    """The logits of what a model returns: a tensor, ``logits`` of it, or a tuple's first entry."""
    if isinstance(output, (tuple, list)):
        output = output[0] if len(output) else None
    elif isinstance(output, Mapping):
        output = output.get("logits")
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) else None


def logits_of(output: Any) -> Tensor:
    """The logits of what a model returns, which has some."""
    found = find_logits(output)
    if found is None:
        raise TypeError(
            f"model: expected logits, or an output with .logits, got {type(output).__name__}; give "
            "a function that returns the logits"
        )
    return found
