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


def is_plain() -> bool:
    """False where a call is compiled, traced, transformed or seen by a mode (fake tensors, one)."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
    )


# ------------------------------------------------------------------ autograd and torch.func

below_autograd = torch._C._AutoDispatchBelowAutograd
backward_keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph
transforms_active = torch._C._are_functorch_transforms_active


def in_forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is open (torch.func.jvp, forward_ad)."""
    return getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0


_interpreters = getattr(getattr(torch._C, "_functorch", None), "get_interpreter_stack", None)


def in_vmap() -> bool:
    """Whether torch.func.vmap is at work at any level: there values of tensors cannot be read.

    True in every transform where which ones they are cannot be known: compiled (Dynamo tells
    whether there are any), and in a PyTorch without this list of them.
    """
    if not transforms_active():
        return False
    if _interpreters is None or torch.compiler.is_compiling():
        return True
    return any(level.key().name == "Vmap" for level in _interpreters() or ())
