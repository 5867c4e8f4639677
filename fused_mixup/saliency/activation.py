"""Class activation maps of a network that ends in an average and a linear classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from ..tracing import has_host_values
from .modes import evaluating


@torch.no_grad()
def class_activation(
    features: Tensor,  # [B, C, h, w]
    weight: Tensor,  # [K, C]
    bias: Tensor | None,  # [K]
    labels: Tensor,  # [B]
    size: Sequence[int],
) -> Tensor:
    """Where a classifier sees the true class of each image, of sum 1.

    ``S = Σ_c weight[label, c] · relu(features[c]) + bias[label]``, enlarged to ``size``, minus its
    least value, over its sum.

    Equivalent to::

        maps = F.conv2d(F.relu(features), weight[:, :, None, None], bias)
        maps = maps[torch.arange(B), labels][:, None]
        maps = F.interpolate(maps, size, mode="bilinear")[:, 0]
        maps = maps - maps.amin((1, 2), keepdim=True)
        maps / maps.sum((1, 2), keepdim=True)

    Args:
        features: [B, C, h, w], of the last convolution.
        weight, bias: of the linear classifier, [K, C] and [K]; bias may be None.
        labels: class indices [B].
        size: (H, W) of the maps.

    Returns:
        [B, H, W]. A map of equal values becomes NaN, as 0 / 0: SnapMix falls back to areas there.

    Source: Zhou et al., CAM, 2016, arXiv 1512.04150; Huang et al., SnapMix, 2021, arXiv 2012.04846.
    """
    if weight.ndim != 2 or features.ndim != 4 or weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"weight: expected [K, {features.shape[1]}] for features {list(features.shape)}, got "
            f"{list(weight.shape)}"
        )
    if has_host_values(labels) and not bool(((labels >= 0) & (labels < len(weight))).all()):
        raise IndexError(f"labels: expected class indices in [0, {len(weight)}), got others")
    index = labels.long().to(weight.device)
    maps = torch.einsum("bchw,bc->bhw", relu(features), weight[index].to(features.dtype))
    if bias is not None:
        maps = maps + bias[index].to(features.dtype)[:, None, None]
    maps = interpolate(maps[:, None], tuple(size), mode="bilinear")[:, 0]
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / maps.sum((1, 2), keepdim=True)


def activation_maps(
    model: nn.Module, images: Tensor, labels: Tensor, classifier: nn.Linear | None = None
) -> Tensor:
    """:func:`class_activation` of a convolutional network that ends in a linear classifier.

    Features are the last tensor [B, C, h, w], h·w > 1, that a module puts out, with as many
    channels as the classifier has inputs.

    Args:
        model: images to logits, such as a ResNet of torchvision or timm.
        images: [B, C, H, W].
        labels: class indices [B].
        classifier: the linear layer; by default the last one of the model.

    Returns:
        [B, H, W], of sum 1, for ``features`` of :func:`fused_mixup.openmixup.snapmix`.

    Raises:
        ValueError: no linear layer, or no features that fit it.

    Notes:
        One forward in evaluation mode, without gradients; each module gets its mode back. What
        lies between pooling and classifier (the norm of a ConvNeXt) is not seen.

    Source: Huang et al., SnapMix, 2021, arXiv 2012.04846.
    """
    if classifier is None:
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError("model: expected a linear classifier, found none; give classifier=")
        classifier = linear[-1]
    channels = classifier.in_features
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        fits = isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] == channels
        if fits and output.shape[2] * output.shape[3] > 1:
            found[:] = [output]

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        with evaluating(model), torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            f"model: expected features [B, {channels}, h, w] before its classifier, found none; "
            "compute them and call class_activation"
        )
    size = images.shape[-2:]
    return class_activation(found[0], classifier.weight, classifier.bias, labels, size)
