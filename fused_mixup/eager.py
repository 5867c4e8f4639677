"""Whether PyTorch runs a call as it stands, and calls that a compiled step makes as they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._compile import _disable_dynamo  # torch.compiler.disable, without its import of 2 s


@_disable_dynamo
def outside_graph(call: Callable[..., Any], *args: Any) -> Any:
    """``call(*args)`` as eager PyTorch runs it, where a step is being compiled.

    So its draws come from the same generators, and λ and the box are no constants of a graph.
    """
    return call(*args)


def in_functorch() -> bool:
    """Whether torch.func transforms this call (vmap, grad, jvp); Dynamo knows it too."""
    return torch._C._are_functorch_transforms_active()


def is_plain() -> bool:
    """False where a call is compiled, traced, transformed or seen by a mode (fake tensors, one)."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
    )
