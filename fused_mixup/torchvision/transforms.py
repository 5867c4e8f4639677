"""The transforms: each reads a sample, draws one plan, and returns the mixed sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..arguments import integer
from ..dtypes import BLENDABLE
from ..mixing import mix, mix_, paste_
from ..plan.mix_plan import MixPlan
from ..target.mixed_target import MixedTarget
from ..tracing import call_eagerly, sample_beta
from .sample import (
    Sample,
    labels_function,
    memory_of,
    num_classes_of,
    plain,
    read_sample,
    wrap_like,
)


class _Mixer(nn.Module):
    """The base of both: it reads a sample, draws one plan, and returns the mixed sample."""

    _cuts: bool

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        num_classes: int | None = None,
        labels_getter: str | Callable[[Any], Any] | None = "default",
        inplace: bool = False,
        sparse_targets: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = float(alpha)
        if not 0.0 < self.alpha < math.inf:
            raise ValueError(f"alpha: expected a finite number above 0, got {alpha}")
        self.num_classes = None if num_classes is None else integer("num_classes", num_classes)
        self.inplace = bool(inplace)
        self.sparse_targets = bool(sparse_targets)
        self._labels_getter = labels_function(labels_getter)
        # No buffer: .to() leaves it where it was made, as in torchvision. Neither draws in half
        # precision or on the meta device; here float32 and the CPU stand in.
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        alphas = [[self.alpha, self.alpha]]
        self._concentration = torch.tensor(alphas, dtype=dtype, device=_draw_device())

    def forward(self, *inputs: Any) -> Any:
        """The sample with its images and labels mixed; everything else as it came."""
        if torch.compiler.is_compiling():
            return call_eagerly(self._mix, inputs)
        return self._mix(inputs)

    def extra_repr(self) -> str:
        parts = [f"alpha={self.alpha}"]
        if self.num_classes is not None:
            parts.append(f"num_classes={self.num_classes}")
        parts += [f"{k}=True" for k in ("inplace", "sparse_targets") if getattr(self, k)]
        return ", ".join(parts)

    def _mix(self, inputs: tuple[Any, ...]) -> Any:
        sample = read_sample(
            type(self).__name__,
            inputs if len(inputs) > 1 else inputs[0],
            self._labels_getter,
            self.num_classes,
            cuts=self._cuts,
            inplace=self.inplace,
            sparse=self.sparse_targets,
        )
        plan, lam = self._draw(sample)
        out = list(sample.leaves)
        # Labels first: an error in them must come before an image is written in place.
        out[sample.labels_at] = self._target(sample.labels, plan, lam)
        mixed = set()  # memory that occurs twice in a sample is mixed in place once
        for i in sample.images + sample.masks:
            x = sample.leaves[i]
            if self.inplace:
                memory = memory_of(plain(x))
                if memory in mixed:
                    continue
                mixed.add(memory)
            out[i] = self._image(x, plan, lam, is_mask=i in sample.masks)
        return sample.rebuild(out)

    def _draw(self, sample: Sample) -> tuple[MixPlan, float]:
        """The plan of a batch, and the λ of its labels."""
        raise NotImplementedError

    def _draw_lam(self) -> float:
        return sample_beta(self._concentration)

    def _target(self, labels: Tensor, plan: MixPlan, lam: float) -> Tensor | MixedTarget:
        labels = plain(labels)
        if labels.ndim == 1:
            k = num_classes_of(labels, self.num_classes)
            if self.sparse_targets:
                return MixedTarget.from_labels(labels, plan, k)
            # This calls the op itself, as read_sample has checked the labels.
            partner = plan.partner_or_none
            return ops.mix_targets(labels, partner, plan.weight, plan.rule, k, 0.0, torch.float32)
        soft = labels if labels.is_floating_point() else labels.float()
        if soft.dtype not in (torch.float32, torch.float64):
            return _blend_stepwise(soft, lam)
        if self._cuts:  # CutMix pastes images but blends labels
            plan = MixPlan.uniform(plan.batch_size, "roll", lam)
        return mix(soft, plan)

    def _image(self, x: Tensor, plan: MixPlan, lam: float, is_mask: bool) -> Tensor:
        t = plain(x)
        if t.dtype in BLENDABLE and not is_mask:
            if self.inplace:
                mix_(t, plan)
                return x
            return wrap_like(mix(t, plan), x)
        # Kernels move these dtypes but do not blend them; in MixUp only complex ones get here.
        out = t if self.inplace else t.clone()
        if not self._cuts:
            out.copy_(_blend_stepwise(t, lam))
        elif out.requires_grad:  # it is a copy, as `inplace` has been refused
            top, left, bottom, right = plan.box[0].tolist()
            out[..., top:bottom, left:right] = t.roll(1, 0)[..., top:bottom, left:right]
        else:
            paste_(out, plan)
        return x if self.inplace else wrap_like(out, x)


def _draw_device() -> torch.device:
    """PyTorch's default device, whose generator torchvision draws from; the CPU for meta."""
    device = torch.get_default_device()
    return torch.device("cpu") if device.type == "meta" else device


def _blend_stepwise(x: Tensor, lam: float) -> Tensor:
    """Both products and the sum rounded to the dtype of x, one by one, as torchvision does."""
    return x.roll(1, 0) * (1.0 - lam) + x * lam


class MixUp(_Mixer):
    r"""torchvision's ``MixUp``: blend each sample of a batch with the one before it.

    ``out[i] = λ x[i] + (1-λ) x[i-1]`` for images and labels, one λ ~ Beta(α, α) for the batch.

    Equivalent to (torchvision itself)::

        lam = float(torch.distributions.Beta(alpha, alpha).sample())
        images = images.roll(1, 0) * (1 - lam) + images * lam
        labels = F.one_hot(labels, num_classes).float()
        labels = labels.roll(1, 0) * (1 - lam) + labels * lam

    Args:
        alpha: α of the Beta distribution, above 0.
        num_classes: K; needed for class indices, and may be None for soft labels. -1: the largest
            label + 1, which is read back where labels live on a GPU.
        labels_getter: finds the label tensor in the sample. ``"default"``: the second entry, or
            the key "labels", or the first key that contains "label", there or in a dict that is
            the whole sample. Or a callable, which gets the sample.
        inplace: write the images where they lie, without a copy of the batch.
        sparse_targets: put a :class:`fused_mixup.MixedTarget` in the place of labels [B], for
            :func:`fused_mixup.soft_target_cross_entropy`; no [B, K] is built.

    Called with a sample: tensors, tuples, lists and dicts, nested as they may be. Images are the
    tv_tensors.Image [B, C, H, W] and Video [B, T, C, H, W] in it; without any, its first plain
    tensor is. Labels are int64 [B] or soft [B, K].

    Returns:
        The same structure: images of the same type and dtype, labels [B, K] (float32 for
        integers), everything else as it came. With one input that input's structure, else a tuple.

    Raises:
        ValueError: labels or images of another shape, labels that are not found, PIL images,
            boxes, keypoints and masks, lazily negated or conjugate tensors; ``inplace`` on a
            tensor that requires grad, or on two whose memory overlaps in part.
        TypeError: a sparse tensor.
        RuntimeError: labels [B] that are no int64 in [0, K), images of integers. Values are checked
            where they live on the CPU; on a GPU the labels' rows become NaN.

    Notes:
        Errors are raised before anything is drawn or written.

        float32 and float64 equal torchvision bit for bit, and so do labels of any dtype; half
        images are rounded once, not three times; uint8 images are blended (torchvision raises). A
        λ of exactly 1 drops the partner, so no NaN comes from it. Gradients flow to the images
        unless ``inplace``. In torch.compile the transform stands between two graphs and never
        recompiles a step.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """

    _cuts = False

    def _draw(self, sample: Sample) -> tuple[MixPlan, float]:
        lam = self._draw_lam()
        return MixPlan.uniform(sample.labels.shape[0], "roll", lam), lam


class CutMix(_Mixer):
    r"""torchvision's ``CutMix``: paste a box of the sample before into each sample of a batch.

    The box has half sides ``int(0.5 √(1-λ) · size)`` around a random centre, clipped at the
    border; labels are blended with the λ of the area that was really pasted.

    Equivalent to (torchvision itself)::

        lam = float(torch.distributions.Beta(alpha, alpha).sample())
        x, y = int(torch.randint(W, (1,))), int(torch.randint(H, (1,)))
        r = 0.5 * math.sqrt(1 - lam)
        w, h = int(r * W), int(r * H)
        box = slice(max(y - h, 0), min(y + h, H)), slice(max(x - w, 0), min(x + w, W))
        mixed = images.clone()
        mixed[..., *box] = images.roll(1, 0)[..., *box]
        lam = 1 - area(box) / (W * H)

    Arguments and results are those of :class:`MixUp`. A tv_tensors.Mask [B, …, H, W] gets the same
    box pasted.

    Raises:
        ValueError: images or masks of different sizes, which cannot share a box.
        TypeError: no image in the sample.

    Notes:
        Raises what :class:`MixUp` raises too, but takes masks, and images of any dtype.

        Equals torchvision bit for bit in every dtype, half labels included; see :class:`MixUp`.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    _cuts = True

    def _draw(self, sample: Sample) -> tuple[MixPlan, float]:
        height, width = sample.leaves[sample.images[0]].shape[-2:]
        lam = self._draw_lam()
        device = _draw_device()  # torchvision draws x first
        x, y = (int(torch.randint(size, (1,), device=device)) for size in (width, height))
        r = 0.5 * math.sqrt(1.0 - lam)
        w, h = int(r * width), int(r * height)
        top, bottom = max(y - h, 0), min(y + h, height)
        left, right = max(x - w, 0), min(x + w, width)
        lam = 1.0 - (right - left) * (bottom - top) / (width * height)
        box = (top, left, bottom, right)
        return MixPlan.uniform(sample.labels.shape[0], "roll", lam, box), lam
