"""Mixes of a sample with one partner: MixUp, CutMix, PatchMix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..mixing import mix
from ..plan.mix_plan import MixPlan
from .base import Fused, Params
from .installed import theirs


class RandomMixUpV2(Fused, theirs.RandomMixUpV2):
    r"""Kornia's ``RandomMixUpV2``: blend each sample of a batch with a partner by a λ of its own.

    ``out[i] = (1-λ_i) x[i] + λ_i x[partner_i]``: λ is the **partner's** weight, uniform on
    ``lambda_val``, not Beta.

    Equivalent to (Kornia itself)::

        partner = torch.randperm(B)
        lam = torch.distributions.Uniform(*lambda_val).sample((B,))
        w = lam.view(-1, 1, 1, 1)
        images = images * (1 - w) + images[partner] * w
        labels = torch.stack((labels.float(), labels[partner].float(), lam), 1)

    Args:
        lambda_val: (low, high) of λ, in [0, 1]; None for (0, 1).
        same_on_batch: one λ for the batch; partners stay apart.
        p: how probable it is that a batch is mixed.
        keepdim: give an unbatched image back without a batch dim.
        data_keys: what the inputs are: ``"input"`` and ``"class"``.

    Called with images [B, C, H, W] and, with ``data_keys=["input", "class"]``, class indices [B].

    Returns:
        The images; or a list of them and labels [B, 3]: own class, partner's class, λ.

    Raises:
        TypeError: images that are no floats.
        ValueError: other shapes of images; another number of inputs than of keys.
        RuntimeError: labels that are not [B], parameters of another batch size.
        NotImplementedError: masks, boxes, keypoints.

    Notes:
        float32 and float64 equal Kornia bit for bit; half types are rounded once, not three times.
        A weight of 0 drops its term, so a partner that is not used brings in no NaN. Gradients
        flow to the images; where λ itself needs one, Kornia's own lines mix.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """

    def _mix(self, x: Tensor, params: Params, flags: Any, gate: Tensor) -> Tensor | None:
        lam = params["mixup_lambdas"]
        if lam.requires_grad:
            return None
        share = lam.to(x.dtype) * gate.to(lam.device)  # 1 - λ in the dtype of x, as Kornia takes it
        blend = torch.stack((1 - share, share), 1)
        box = torch.zeros(len(x), 0, dtype=torch.int32, device=blend.device)
        partner = params["mixup_pairs"].to(torch.int32)
        return mix(x, MixPlan(partner, blend.float(), blend.double(), box).to(x.device))


class RandomCutMixV2(Fused, theirs.RandomCutMixV2):
    r"""Kornia's ``RandomCutMixV2``: paste a box of a partner into each sample, ``num_mix`` times.

    The box has sides ``floor(√(1-λ) · size)`` and lies inside the image; each sample has its own.

    Equivalent to (Kornia itself, one mix)::

        partner = torch.rand(B).argsort()
        r = torch.sqrt(1 - torch.distributions.Beta(beta, beta).sample((B,)))
        h, w = (r * H).floor(), (r * W).floor()
        x0 = (torch.rand(B) * (W - w + 1)).floor()
        y0 = (torch.rand(B) * (H - h + 1)).floor()
        images = torch.where(inside_box, images[partner], images)
        labels = torch.stack((labels, labels[partner], h * w / (H * W)), 1)[None]

    Args:
        num_mix: how often a box is pasted; each mix has its own partners and boxes, always of the
            original images.
        cut_size: (low, high) to which λ is clamped, in [0, 1]; None for (0, 1).
        beta: both parameters of the Beta distribution; None for 1.
        same_on_batch: one box for the batch in each mix; partners stay apart.
        p: how probable it is that a batch is mixed.
        keepdim: give an unbatched image back without a batch dim.
        data_keys: what the inputs are: ``"input"`` and ``"class"``.
        use_correct_lambda: True: the third column of the labels is the sample's own share. False:
            the partner's, with a warning that Kornia will change this.

    Returns:
        The images; or a list of them and labels [num_mix, B, 3]: own class, partner's class, share.

    Raises:
        TypeError, ValueError, RuntimeError, NotImplementedError: as :class:`RandomMixUpV2`.

    Notes:
        Equals Kornia bit for bit. Gradients flow to the images.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    def _mix(self, x: Tensor, params: Params, flags: Any, gate: Tensor) -> Tensor | None:
        mixed = None
        for partner, corners in zip(params["mix_pairs"], params["crop_src"], strict=True):
            # Kornia pastes where first ≤ pixel ≤ last, for corners that may be fractions.
            first, last = corners[:, 0].detach(), corners[:, 2].detach()
            mixed = _paste(x, mixed, partner, first.ceil(), last.floor() + 1, gate)
        return mixed


class PatchMix(Fused, theirs.PatchMix):
    r"""Kornia's ``PatchMix``: paste a square of a partner into each sample, at the same place.

    ``out[i, :, y:y+s, x:x+s] = x[partner_i, :, y:y+s, x:x+s]`` with s = ``patch_size``.

    Equivalent to (Kornia itself)::

        partner = torch.rand(B).argsort()
        for i in range(B):
            box = ..., slice(y[i], y[i] + s), slice(x[i], x[i] + s)
            out[i][box] = images[partner[i]][box]

    Args:
        alpha: of a Beta draw that mixes nothing, kept in the parameters as ``lam``.
        patch_size: side of the square, at most the smaller side of the images.
        p: how probable it is that a batch is mixed.
        same_on_batch: one place for the batch; partners stay apart.
        keepdim: give an unbatched image back without a batch dim.
        data_keys: what the inputs are: ``"input"`` alone.

    Returns:
        The images.

    Raises:
        ValueError: a patch that is larger than the images.
        TypeError, ValueError, NotImplementedError: as :class:`RandomMixUpV2`.

    Notes:
        Equals Kornia bit for bit. Gradients flow to the images.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    def _mix(self, x: Tensor, params: Params, flags: Any, gate: Tensor) -> Tensor | None:
        first = params["patch_coords"].long()
        return _paste(x, None, params["mix_pairs"], first, first + self.patch_size, gate)


def _paste(
    x: Tensor, onto: Tensor | None, partner: Tensor, first: Tensor, stop: Tensor, gate: Tensor
) -> Tensor:
    """x, or ``onto``, with the boxes [first, stop) of x[partner]; both are (x, y), [B, 2]."""
    size = torch.tensor((x.shape[-1], x.shape[-2]), device=first.device)
    start = torch.minimum(first.long().clamp(min=0), size)
    stop = torch.maximum(torch.minimum(stop.long(), size), start)
    box = torch.cat((start.flip(1), stop.flip(1)), 1) * gate[:, None].to(first.device)
    own = torch.ones(len(x), device=box.device)  # label weights, which nobody reads
    plan = MixPlan.per_sample(own, partner, box, device=x.device)
    return mix(x, plan) if onto is None else mix(onto, plan, other=x)
