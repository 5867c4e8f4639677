"""Class activation maps of a network that ends in an average and a linear classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, relu


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
    index = labels.long().to(weight.device)
    maps = torch.einsum("bchw,bc->bhw", relu(features), weight[index].to(features.dtype))
    if bias is not None:
        maps = maps + bias[index].to(features.dtype)[:, None, None]
    maps = interpolate(maps[:, None], tuple(size), mode="bilinear")[:, 0]
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / maps.sum((1, 2), keepdim=True)
