"""The layers that mix: :class:`MixUp` and :class:`CutMix`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_number
from ..mixing import mix
from ..plan.mix_plan import MixPlan
from ..target.labels import mix_labels
from .installed import keras
from .values import (
    HALVES,
    blend_plan,
    check_compat,
    draw_beta,
    draw_extent,
    images_of,
    mix_images,
    pixel_box,
    soft_labels,
)

Transformation = dict[str, Any]


@keras.saving.register_keras_serializable("fused_mixup")  # type: ignore[untyped-decorator,unused-ignore]
class MixUp(keras.layers.MixUp):  # type: ignore[misc,unused-ignore]
    r"""Keras' ``MixUp``: blend each sample of a batch with a drawn one, each with its own λ.

    ``out[i] = λ_i x[i] + (1-λ_i) x[p_i]`` for images, soft labels and soft masks, λ ~ Beta(α, α);
    bounding boxes of both images are kept.

    Equivalent to (Keras itself, channels last)::

        p = keras.random.shuffle(keras.ops.arange(B), seed=generator)
        lam = keras.random.beta((B,), alpha, alpha, seed=generator)
        images = lam[:, None, None, None] * images + (1 - lam[:, None, None, None]) * images[p]
        labels = lam[:, None] * labels + (1 - lam[:, None]) * labels[p]

    Args:
        alpha: α of the Beta distribution, above 0.
        data_format: ``"channels_last"``, ``"channels_first"``, or None for Keras' own setting.
        seed: an integer, or None for a random one.
        compat: True gives what Keras gives where that is wrong; see the notes.
        kwargs: of Keras' layers: ``bounding_box_format``, ``dtype``, ``name``, ….

    Called with images [B, H, W, C] (or one, without B), or a dict with the keys ``images``,
    ``labels`` [B, K], ``bounding_boxes`` (a dict of ``boxes`` [B, N, 4] and ``labels`` [B, N]) and
    ``segmentation_masks`` [B, H, W, …], floats.

    Returns:
        The same structure: images in the layer's compute dtype, boxes [B, 2·N, 4] with labels
        [B, 2·N].

    Raises:
        ValueError: an α that is not above 0, images that have not 3 or 4 dims, boxes without a
            ``bounding_box_format``.
        TypeError: labels that are class indices [B], masks of integers.

    Notes:
        Images and labels [B, K] equal Keras' bit for bit; half-precision images are rounded once
        and with a λ that is not rounded. Keras gathers masks over the flattened batch, joins the
        labels of boxes along the batch, and makes [B, B] of labels [B]: ``compat=True`` gives all
        of that.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        data_format: str | None = None,
        seed: int | None = None,
        *,
        compat: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(alpha, (str, type(None))) or not check_number("alpha", alpha) > 0:
            raise ValueError(f"alpha: expected a number above 0, got {alpha!r}")
        # Keras cannot draw with an int.
        super().__init__(alpha if compat else float(alpha), data_format, seed, **kwargs)
        self.compat = check_compat(compat)

    def get_random_transformation(
        self, data: Any, training: bool = True, seed: Any = None
    ) -> Transformation:
        images = images_of(self, data)
        count = 1 if len(images.shape) == 3 else images.shape[0]
        seed = self.generator if seed is None else seed
        order = keras.ops.arange(0, count, dtype="int64")
        partner = keras.random.shuffle(order, seed=seed)
        weight = draw_beta(count, self.alpha, keras.backend.floatx(), seed)
        return {"mix_weight": weight, "permutation_order": partner}

    def transform_images(
        self,
        images: Tensor,
        transformation: Transformation | None = None,
        training: bool = True,
    ) -> Tensor:
        if not training or transformation is None or (self.compat and self.compute_dtype in HALVES):
            return super().transform_images(images, transformation, training)
        if self.compute_dtype != "float64":
            plan = blend_plan(transformation)
        else:
            weight = transformation["mix_weight"].double()  # before 1 - λ is taken
            plan = MixPlan.per_sample(weight, transformation["permutation_order"])
        last = self.data_format == "channels_last"
        return mix_images(images, plan, getattr(torch, self.compute_dtype), last)

    def transform_labels(
        self, labels: Tensor, transformation: Transformation, training: bool = True
    ) -> Tensor:
        if not training or self.compat:
            return super().transform_labels(labels, transformation, training)
        return mix(soft_labels(labels, transformation["mix_weight"]), blend_plan(transformation))

    def transform_bounding_boxes(
        self,
        bounding_boxes: dict[str, Tensor],
        transformation: Transformation,
        training: bool = True,
    ) -> dict[str, Tensor]:
        if not training or self.compat:
            return super().transform_bounding_boxes(bounding_boxes, transformation, training)
        partner = transformation["permutation_order"]
        both = (bounding_boxes[key] for key in ("boxes", "labels"))
        boxes, labels = (torch.cat((t, t[partner.to(t.device)]), 1) for t in both)
        return {"boxes": boxes, "labels": labels}

    def transform_segmentation_masks(
        self, segmentation_masks: Tensor, transformation: Transformation, training: bool = True
    ) -> Tensor:
        if not training or self.compat:
            return super().transform_segmentation_masks(
                segmentation_masks, transformation, training
            )
        masks = self.backend.convert_to_tensor(segmentation_masks)
        if not masks.is_floating_point():
            raise TypeError(
                f"segmentation_masks: expected floats, which MixUp blends, got {masks.dtype}; "
                "class indices cannot be blended: use keras.ops.one_hot"
            )
        return mix(soft_labels(masks, transformation["mix_weight"]), blend_plan(transformation))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **({"compat": True} if self.compat else {})}


@keras.saving.register_keras_serializable("fused_mixup")  # type: ignore[untyped-decorator,unused-ignore]
class CutMix(keras.layers.CutMix):  # type: ignore[misc,unused-ignore]
    r"""Keras' ``CutMix``: paste a box of a drawn sample into each sample of a batch.

    λ ~ Beta(α, α) for each sample, with one α drawn from ``factor``. The box has sides
    ``√(1-λ) · size``, real numbers, and lies inside the image; the pixels in it are pasted, in
    images and in masks, and soft labels are blended by the share of these pixels.

    Equivalent to (Keras itself, channels last)::

        alpha = keras.random.uniform((), *factor, seed=generator) + 1e-6
        lam = keras.random.beta((B,), alpha, alpha, seed=generator)
        x0 = keras.random.uniform((B,), seed=generator) * (W - sqrt(1 - lam) * W)
        y0 = keras.random.uniform((B,), seed=generator) * (H - sqrt(1 - lam) * H)
        p = keras.random.shuffle(keras.ops.arange(B), seed=generator)
        images = where(inside, images[p], images)  # x0 ≤ x < x0 + sqrt(1 - lam) * W, and so y
        lam = 1 - mean(inside)  # Keras: 1 - the real area
        labels = lam[:, None] * labels + (1 - lam[:, None]) * labels[p]

    Args:
        factor: bounds of α in [0, 1]; one number stands for (0, factor).
        seed: an integer, or None for a random one.
        data_format: ``"channels_last"``, ``"channels_first"``, or None for Keras' own setting.
        compat: True gives what Keras gives where that is wrong; see the notes.
        kwargs: of Keras' layers: ``dtype``, ``name``, ….

    Called as :class:`MixUp` is; masks are of any number type. One image alone stays as it is.

    Returns:
        The same structure: images and masks in the layer's compute dtype.

    Raises:
        ValueError: a ``factor`` outside [0, 1].
        NotImplementedError: bounding boxes.
        RuntimeError: masks of another size than the images.
        TypeError: labels that are class indices [B].

    Notes:
        Images equal Keras' bit for bit. Keras weighs labels by the area before it is cut into
        pixels, repeats masks of one channel to the images' channels, and cannot draw in half
        precision, where ours draws in float32: ``compat=True`` gives all of that.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    def __init__(
        self,
        factor: float | Sequence[float] = 1.0,
        seed: int | None = None,
        data_format: str | None = None,
        *,
        compat: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(factor, seed, data_format, **kwargs)
        self.compat = check_compat(compat)

    def get_random_transformation(
        self, data: Any, training: bool = True, seed: Any = None
    ) -> Transformation | None:
        images = images_of(self, data, short=IndexError)
        if not training or len(images.shape) == 3:
            return None
        count, height, width = images.shape[0], *(images.shape[k] for k in self._spatial)
        seed = seed or self.generator
        half = self.compute_dtype in HALVES
        dtype = "float32" if half and not self.compat else self.compute_dtype
        alpha = keras.random.uniform((), *self.factor, dtype=dtype, seed=seed) + 1e-6
        lam = draw_beta(count, alpha, dtype, seed)
        share = torch.sqrt(1.0 - lam)
        columns = draw_extent(count, width, share, seed)
        rows = draw_extent(count, height, share, seed)
        order = keras.ops.arange(0, count, dtype="int32")
        box = pixel_box(rows, columns, height, width)
        if self.compat:
            (y0, y1), (x0, x1) = rows.unbind(1), columns.unbind(1)
            weight = 1.0 - (x1 - x0) * (y1 - y0) / (width * height)
        else:
            sides = box[:, 2:] - box[:, :2]
            weight = (1.0 - sides.prod(1).double() / (width * height)).to(lam.dtype)
        partner = keras.random.shuffle(order, seed=seed)
        # Keras' own lines blend labels by its area, which may be above the image's by a rounding.
        plan = MixPlan.per_sample(lam.new_ones(count) if self.compat else weight, partner, box)
        return {
            "permutation_order": partner,
            "mix_weight": weight,
            "plan": plan,
            "images_shape": tuple(images.shape),
        }

    def transform_images(
        self,
        images: Tensor,
        transformation: Transformation | None = None,
        training: bool = True,
    ) -> Tensor:
        if not training or transformation is None:
            return super().transform_images(images, transformation, training)
        dtype = getattr(torch, self.compute_dtype)
        if images.ndim == 4:
            return mix_images(images, transformation["plan"], dtype, self._channels_last)
        return mix(images.to(dtype), transformation["plan"])  # masks [B, H, W]

    def transform_labels(
        self, labels: Tensor, transformation: Transformation | None, training: bool = True
    ) -> Tensor:
        if not training or transformation is None or self.compat:
            return super().transform_labels(labels, transformation, training)
        labels = soft_labels(labels, transformation["mix_weight"])
        return mix_labels(labels, transformation["plan"])

    def transform_bounding_boxes(
        self, bounding_boxes: Any, transformation: Any, training: bool = True
    ) -> Any:
        raise NotImplementedError(
            "bounding_boxes: expected none, as Keras' CutMix takes none, got boxes; mix them with "
            "fused_mixup.BatchMix, or fused_mixup.mix_boxes and a plan"
        )

    def transform_segmentation_masks(
        self,
        segmentation_masks: Tensor,
        transformation: Transformation | None,
        training: bool = True,
    ) -> Tensor:
        masks = self.backend.convert_to_tensor(segmentation_masks)
        if not training or transformation is None:
            return super().transform_images(masks, transformation, training)
        if self.compat:
            inside = self._inside(transformation)
            return super().transform_images(masks, {**transformation, "batch_masks": inside})
        shape = transformation["images_shape"]
        size = [shape[k] for k in self._spatial]
        last = masks.ndim == 4 and self._channels_last
        got = list(masks.shape[1:3] if last else masks.shape[-2:])
        if got != size:
            raise RuntimeError(f"segmentation_masks: expected {size} as the images, got {got}")
        return self.transform_images(masks, transformation)

    @property
    def _channels_last(self) -> bool:
        return bool(self.data_format == "channels_last")

    @property
    def _spatial(self) -> tuple[int, int]:
        """The dims of height and width."""
        return self.height_axis, self.width_axis

    def _inside(self, transformation: Transformation) -> Tensor:
        """bool, of the images' shape: what Keras calls ``batch_masks``."""
        shape = transformation["images_shape"]
        bounds = transformation["plan"].box[:, :, None].unbind(1)
        lines = []
        for axis, start, stop in zip(self._spatial, bounds[:2], bounds[2:], strict=True):
            pixels = torch.arange(shape[axis], device=start.device)
            lines.append((pixels >= start) & (pixels < stop))
        inside = lines[0][:, :, None] & lines[1][:, None]
        return inside.unsqueeze(self.channel_axis).expand(shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **({"compat": True} if self.compat else {})}
