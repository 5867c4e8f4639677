"""What the class token of a vision transformer attends to."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import kind

# Modules whose attention is softmax(q kᵀ · scale) and nothing else: no bias by position, no rotary
# embedding. timm's by the modules that define it, Transformers' by class name.
_TIMM = ("timm.layers.attention", "timm.models.vision_transformer")
_TRANSFORMERS = (
    "ViTAttention ViTSelfAttention DeiTAttention DeiTSelfAttention Dinov2Attention "
    "Dinov2SelfAttention Dinov2WithRegistersAttention Dinov2WithRegistersSelfAttention "
    "ViTMAEAttention ViTMAESelfAttention ViTMSNAttention ViTMSNSelfAttention"
).split()


class ClassAttention:
    """The class token's attention in one block of a vision transformer, read while it runs.

        with ClassAttention(model) as seen:
            logits = model(images)
        seen.maps  # [B, gh, gw]: mean over heads
        seen.attn  # [B, heads, 1, 1 + T], what fused_mixup.openmixup takes as attn=

    It reads queries and keys of the block and computes one row of the attention, so the model's
    own attention stays fused, and its outputs keep their bits.

    Equivalent to (a module of timm, without ``fused_attn``)::

        softmax(q[:, :, :1] * scale @ k.mT)

    Args:
        model: a ViT or DeiT of timm, or ViT, DeiT, DINOv2, MAE or MSN of Transformers (other
            modules add terms to the attention that are not seen here: they are refused).
        block: which of its attention modules, -1 for the last.
        prefix: how many tokens come before the patches; by default as many as the model says or,
            if it does not, as leave the largest square.
        grid: (gh, gw) of the patches, where it is not square.

    Raises:
        ValueError: no attention module of a known kind, or tokens that do not fill the grid.
        RuntimeError: ``maps`` or ``attn`` before the model has run.

    Notes:
        Nothing is kept for the backward. Each run of the model replaces what the last one left.
        Modules compiled before are not seen: enter it, then compile. Thread-safe no more than the
        model's hooks are.

    Source: Dosovitskiy et al., ViT, 2021, arXiv 2010.11929; Chen et al., TransMix, 2022,
    arXiv 2111.09833.
    """

    def __init__(
        self,
        model: nn.Module,
        block: int = -1,
        prefix: int | None = None,
        grid: tuple[int, int] | None = None,
    ) -> None:
        known = [module for module in model.modules() if _is_known(module)]
        if not known or not -len(known) <= block < len(known):
            raise ValueError(
                f"model: expected attention modules of timm's or Transformers' ViT, found "
                f"{len(known)} in {type(model).__name__} for block {kind(block)}; take attention "
                "from the model's own outputs (Transformers: attn_implementation='eager', "
                "output_attentions=True)"
            )
        self._module: Any = known[block]
        self._prefix = getattr(model, "num_prefix_tokens", None) if prefix is None else prefix
        self._grid = grid
        self._parts: dict[str, Tensor] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> ClassAttention:
        for name in _projections(self._module):
            layer = getattr(self._module, name)

            def keep(module: nn.Module, inputs: Any, output: Tensor, name: str = name) -> None:
                self._parts[name] = output.detach()

            self._hooks.append(layer.register_forward_hook(keep))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @property
    def attn(self) -> Tensor:
        """float32 [B, heads, 1, 1 + T]: from the class token to itself and to the patches."""
        query, key = self._query_and_key()
        scale = getattr(self._module, "scale", None) or query.shape[-1] ** -0.5
        scores = (query.float() * scale) @ key.float().mT
        weights = scores.softmax(-1)
        gh, gw = self._sides(weights.shape[-1])
        return torch.cat((weights[..., :1], weights[..., weights.shape[-1] - gh * gw :]), -1)

    @property
    def maps(self) -> Tensor:
        """float32 [B, gh, gw]: attention to each patch, mean over heads."""
        row = self.attn[:, :, 0, 1:].mean(1)
        tokens = self._parts[_projections(self._module)[-1]].shape[1]
        return row.view(len(row), *self._sides(tokens))

    def _query_and_key(self) -> tuple[Tensor, Tensor]:
        """[B, heads, 1, D] of the class token, and [B, heads, N, D]."""
        names = _projections(self._module)
        if any(name not in self._parts for name in names):
            raise RuntimeError("ClassAttention: the model has not run inside the with statement")
        module = self._module
        if len(names) == 1:
            tokens = self._parts["qkv"].unflatten(-1, (3, module.num_heads, -1))
            query, key = tokens[:, :1, 0], tokens[:, :, 1]
        else:
            heads = module.num_attention_heads
            query, key = (self._parts[name].unflatten(-1, (heads, -1)) for name in names)
            query = query[:, :1]
        query, key = query.transpose(1, 2), key.transpose(1, 2)
        with torch.no_grad():
            for name in ("q_norm", "k_norm"):
                norm = getattr(module, name, None)
                if norm is None:
                    continue
                query, key = (norm(query), key) if name == "q_norm" else (query, norm(key))
        return query, key

    def _sides(self, tokens: int) -> tuple[int, int]:
        """The grid of the patches among ``tokens``."""
        if self._grid is not None:
            gh, gw = self._grid
            prefix = tokens - gh * gw
        else:
            patches = tokens - (1 if self._prefix is None else self._prefix)
            gh = gw = math.isqrt(max(patches, 0))
            prefix = tokens - gh * gw
            if self._prefix is not None and gh * gw != patches:
                raise ValueError(
                    f"grid: expected (gh, gw) for {patches} patches, which are no square, got None"
                )
        if prefix < 1 or (self._prefix is not None and prefix != self._prefix):
            raise ValueError(
                f"prefix, grid: expected a class token and {gh}x{gw} patches, got {tokens} tokens "
                f"of which {self._prefix} come before the patches"
            )
        return gh, gw


def _is_known(module: nn.Module) -> bool:
    cls = type(module)
    if cls.__name__ == "Attention" and cls.__module__ in _TIMM:
        return True
    return cls.__name__ in _TRANSFORMERS and len(_projections(module)) == 2


def _projections(module: nn.Module) -> tuple[str, ...]:
    """The linear layers that make queries and keys."""
    for names in (("qkv",), ("q_proj", "k_proj"), ("query", "key")):
        if all(isinstance(getattr(module, name, None), nn.Module) for name in names):
            return names
    return ()
