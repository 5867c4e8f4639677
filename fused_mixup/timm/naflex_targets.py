"""Dense targets of images that are mixed in pairs, to timm's bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..target.checks import check_label_smoothing, check_num_classes
from .labels import check_target, encode
from .ragged import host_tensor, mix_rows


def pairwise_mixup_target(
    targets: Tensor,
    pair_to: Mapping[int, int],
    lam_list: Sequence[float],
    *,
    num_classes: int,
    smoothing: float = 0.0,
    multi_label: bool = False,
) -> Tensor:
    """Dense targets for what :func:`mix_batch_variable_size` returned: timm's function.

    Args:
        targets: class indices [B], or dense [B, K] with ``multi_label``.
        pair_to: the partner of each image that has one.
        lam_list: B weights of the images' own targets.
        num_classes: K.
        smoothing: as ``label_smoothing`` of :class:`NaFlexMixup`.
        multi_label: targets are dense.

    Returns:
        [B, K], in PyTorch's default dtype, or float32 with ``multi_label``.

    Raises:
        TypeError, ValueError, IndexError: targets that do not fit.
    """
    num_classes = check_num_classes(num_classes)
    labels = check_target(targets, len(lam_list), num_classes, multi_label)
    row = num_classes, check_label_smoothing(smoothing), multi_label
    return mix_encoded(labels, pair_to, lam_list, *row)


def mix_encoded(
    labels: Tensor,
    pair_to: Mapping[int, int],
    lam_list: Sequence[float],
    num_classes: int,
    smoothing: float,
    multi_label: bool,
) -> Tensor:
    """Dense targets [B, K]: ``own.mul(λ).add(partner, alpha=1-λ)``, row by row."""
    partner = [pair_to.get(i, i) for i in range(len(labels))]
    if multi_label or not labels.is_cpu or not pair_to:
        encoded = encode(labels, num_classes, smoothing, multi_label)
        if not pair_to:
            return encoded
        weights = [(lam, 1.0 - lam) for lam in lam_list]
        blend = torch.tensor(weights, dtype=torch.float64, device="cpu")
        return mix_rows(encoded, partner, blend)
    # A row has at most four values. The weights and the values change places in the product that
    # add() may fuse with the sum: the bits are those of timm's lines.
    count, k, dtype = len(labels), num_classes, torch.get_default_dtype()
    exact = host_tensor("d", [*lam_list, *(1.0 - lam for lam in lam_list)])
    own_weight, weight = exact.to(dtype).view(2, count).unbind(0)
    off = smoothing / k
    on = 1.0 - smoothing + off
    own_off, own_on = own_weight * off, own_weight * on
    elsewhere = own_off.add(weight, alpha=off)
    at_theirs, at_own = own_off.add(weight, alpha=on), own_on.add(weight, alpha=off)
    own = labels.tolist()
    theirs = [own[j] for j in partner]
    places = [i * k + y for i, y in enumerate(theirs)] + [i * k + y for i, y in enumerate(own)]
    target = elsewhere[:, None].expand(count, k).contiguous()
    target.put_(host_tensor("q", places), torch.cat((at_theirs, at_own)))
    same = [i for i, y in enumerate(own) if theirs[i] == y]
    if same:
        at_both, rows = own_on.add(weight, alpha=on), host_tensor("q", same)
        target.put_(host_tensor("q", [i * k + own[i] for i in same]), at_both[rows])
    return target
