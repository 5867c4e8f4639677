"""How much the loss depends on each pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..arguments import kind
from .modes import evaluating, logits_of


def input_gradient(
    model: nn.Module,
    images: Tensor,
    target: Any,
    criterion: Callable[[Tensor, Any], Tensor] = cross_entropy,
) -> Tensor:
    """The norm of the loss's gradient at each pixel: what PuzzleMix and GuidedMixup take.

    ``sqrt(mean_c (∂ criterion(model(x), target) / ∂x_c)²)``

    Equivalent to::

        model.eval()
        x = images.clone().requires_grad_()
        criterion(model(x), target).backward()
        x.grad.square().mean(1).sqrt()
        model.zero_grad()
        model.train()

    Args:
        model: images to logits, or to an output with ``.logits``. Of a wrapper such as DDP give
            ``.module``.
        images: [B, C, H, W], floating.
        target: what ``criterion`` takes, such as class indices [B].
        criterion: logits and target to one number.

    Returns:
        [B, H, W], >= 0, float32 (float64 for float64 images).

    Notes:
        One forward and one backward in evaluation mode. Gradients of parameters are neither
        computed nor touched, and each module gets its mode back, also where it differed from the
        model's. Statistics of batch norm stay. It works under ``torch.no_grad`` and in inference
        mode too, for a model whose parameters were not made there.

    Source: Simonyan et al., 2013, arXiv 1312.6034; Kim et al., Puzzle Mix, 2020, arXiv 2009.06962.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        raise TypeError(f"images: expected floats [B, C, H, W], got {kind(images)}")
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        images, target = _normal(images), _normal(target)
        x = images.detach().requires_grad_()
        loss = criterion(logits_of(model(x)), target)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise ValueError(f"criterion: expected one number, got {kind(loss)}; use its mean")
        (gradient,) = torch.autograd.grad(loss, x)
    gradient = gradient if gradient.dtype == torch.float64 else gradient.float()
    return gradient.square().mean(1).sqrt()


def _normal(value: Any) -> Any:
    """A copy of a tensor made in inference mode, which autograd would refuse; else ``value``."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
