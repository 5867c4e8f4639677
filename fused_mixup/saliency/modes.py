"""A network that looks at images once more, and is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
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


def logits_of(output: Any) -> Tensor:
    """The logits of what a model returns: a tensor, or an object or dict that holds them."""
    if isinstance(output, Tensor):
        return output
    found = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"model: expected logits, or an output with .logits, got {type(output).__name__}; give "
            "a function that returns the logits"
        )
    return found
