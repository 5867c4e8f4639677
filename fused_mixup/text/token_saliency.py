"""How much the loss depends on each token: the gradient at its embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..saliency.modes import evaluating, logits_of
from .inputs import embedding_of


def token_saliency(
    model: nn.Module, labels: Tensor, inputs: dict[str, Any], batch_dim: int, ignored: int
) -> Tensor:
    """[B, T] >= 0: ``sqrt(mean_h (∂ cross_entropy / ∂e_h)²)`` at the embedding e of each token.

    The cross-entropy is summed over the samples, so that small gradients of half precision last;
    those with the label ``ignored`` have none.

    One forward and one backward in evaluation mode; gradients of parameters are neither computed
    nor touched. A hook takes the embeddings, so that a model sees its ids as ever.
    """
    seen: list[Tensor] = []

    def take(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    handles = [module.register_forward_hook(take) for module in _embeddings(model)]
    try:
        with evaluating(model), torch.enable_grad():
            logits = logits_of(model(**{k: v for k, v in inputs.items() if v is not None}))
            if not seen:
                raise RuntimeError(
                    "SSMix: expected the module of get_input_embeddings() to be called in the "
                    "forward, got no call, so no saliency; give saliency="
                )
            loss = cross_entropy(logits, labels, ignore_index=ignored, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, seen[0])
    finally:
        for handle in handles:
            handle.remove()
    norm = gradient.double().square().mean(-1).sqrt()  # float16 has no such small squares
    return norm.transpose(0, 1) if batch_dim else norm


def _embeddings(model: nn.Module) -> list[nn.Module]:
    """The module that embeds ids, and those of an encoder and decoder with its weight (BART, T5).

    The encoder's runs first.
    """
    embedding = embedding_of(model)
    weight = getattr(embedding, "weight", embedding)
    tables = (m for m in model.modules() if isinstance(m, nn.Embedding))
    return [embedding, *(m for m in tables if m.weight is weight and m is not embedding)]
