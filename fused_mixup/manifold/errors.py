"""Errors of a forward in which the drawn layer was not mixed."""

from __future__ import annotations

from typing import NoReturn


def never_fired(name: str) -> NoReturn:
    raise RuntimeError(
        f"ManifoldMixup: expected {name!r} to be called in the forward, got no call, so nothing "
        "was mixed; a model may skip a module's __call__ (after timm's set_grad_checkpointing() "
        "name single blocks, such as 'blocks.3'), drop a layer at random, or be compiled in parts "
        "(then set compiled=True before it is called first)"
    )


def untraced(name: str) -> NoReturn:
    raise RuntimeError(
        f"ManifoldMixup: expected the hook of {name!r} in the compiled model, got a model that was "
        "compiled before; make ManifoldMixup before the model is called first, or call "
        "torch.compiler.reset() behind it"
    )
