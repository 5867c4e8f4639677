"""Calls that a compiled step makes between two graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._compile import _disable_dynamo  # torch.compiler.disable, without its import of 2 s


@_disable_dynamo
def outside_graph(call: Callable[..., Any], *args: Any) -> Any:
    """``call(*args)`` as eager PyTorch runs it, where a step is being compiled.

    So its draws come from the same generators, and λ and the box are no constants of a graph.
    """
    return call(*args)
