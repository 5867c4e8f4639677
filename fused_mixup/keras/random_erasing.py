"""The layer that erases: :class:`RandomErasing`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from .installed import keras
from .values import check_compat, draw_extent, erase, images_of, pixel_box


@keras.saving.register_keras_serializable("fused_mixup")  # type: ignore[untyped-decorator,unused-ignore]
class RandomErasing(keras.layers.RandomErasing):  # type: ignore[misc,unused-ignore]
    r"""Keras' ``RandomErasing``: fill a box of each image with a colour or with noise.

    A box has sides ``√s · size``, real numbers, one s ~ U(scale) for each side; the pixels in it
    are filled. Labels, boxes and masks stay as they are.

    Equivalent to (Keras itself, channels last)::

        side = sqrt(keras.random.uniform((B, 2), *scale, seed=generator))  # of width and height
        x0 = keras.random.uniform((B,), seed=generator) * (W - side[:, 0] * W)
        y0 = keras.random.uniform((B,), seed=generator) * (H - side[:, 1] * H)
        prob = keras.random.uniform((B,), *factor, seed=generator)
        erased = keras.random.uniform((B,), seed=generator) < prob
        fill = keras.random.normal(images.shape, seed=generator) * value_range[1]
        images = where(erased & inside, clip(fill, *value_range), images)

    Args:
        factor: bounds of the probability that an image is erased, in [0, 1]; one number stands for
            (0, factor), so an image is erased with half of it.
        scale: bounds of s, in [0, 1].
        fill_value: a number, three (one for each channel), or None for normal noise.
        value_range: (low, high) of the images; what fills a box is clipped to it.
        seed: an integer, or None for a random one.
        data_format: ``"channels_last"``, ``"channels_first"``, or None for Keras' own setting.
        compat: True gives what Keras gives where that is wrong; see the notes.
        kwargs: of Keras' layers: ``dtype``, ``name``, ….

    Called with images [B, H, W, C] (or one, without B), or a dict with the key ``images``.

    Returns:
        The same structure, images in the layer's compute dtype.

    Raises:
        ValueError: ``factor`` or ``scale`` outside [0, 1], another ``fill_value``, images that have
            not 3 or 4 dims.
        RuntimeError: three values for images that have not three channels.

    Notes:
        Equals Keras bit for bit, in half precision too. With channels first Keras gives the three
        values to columns and not to channels, and so raises unless the width is 3; of images of
        one channel it makes three. ``compat=True`` does as well. Noise is drawn for all pixels, as
        the draws of Keras say: most of the time goes there.

    Source: Zhong et al., Random Erasing, 2020, arXiv 1708.04896.
    """

    def __init__(
        self,
        factor: float | Sequence[float] = 1.0,
        scale: float | Sequence[float] = (0.02, 0.33),
        fill_value: float | Sequence[float] | None = None,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        *,
        compat: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(factor, scale, fill_value, value_range, seed, data_format, **kwargs)
        self.compat = check_compat(compat)

    def get_random_transformation(
        self, data: Any, training: bool = True, seed: Any = None
    ) -> dict[str, Any] | None:
        if not training:
            return None
        images = images_of(self, data)
        shape = tuple(images.shape) if len(images.shape) == 4 else (1, *images.shape)
        color = self._color(shape)  # raises before anything is drawn
        count, height, width = shape[0], shape[self.height_axis], shape[self.width_axis]
        seed, dtype = seed or self.generator, self.compute_dtype
        share = torch.sqrt(keras.random.uniform((count, 2), *self.scale, dtype=dtype, seed=seed))
        columns = draw_extent(count, width, share[:, 0], seed)
        rows = draw_extent(count, height, share[:, 1], seed)
        prob = keras.random.uniform((count,), *self.factor, seed=seed)
        erased = keras.random.uniform((count,), seed=seed) < prob
        box = pixel_box(rows, columns, height, width)
        if color is None:
            # Of this shape: an image alone has other numbers than a batch of one.
            noise = keras.random.normal(tuple(images.shape), dtype=dtype, seed=seed)
            color = noise.mul_(self.value_range[1]).view(shape)
        return {
            "apply_erasing": erased,
            "box": torch.where(erased[:, None], box, 0),  # [B, 4]: y0, x0, y1, x1
            "fill_value": color.clamp_(*self.value_range),  # of the batch's shape, or broadcast
        }

    def transform_images(
        self,
        images: Tensor,
        transformation: dict[str, Any] | None = None,
        training: bool = True,
    ) -> Tensor:
        if not training or transformation is None:
            return super().transform_images(images, transformation, training)
        return erase(
            images,
            transformation["box"],
            transformation["fill_value"],
            getattr(torch, self.compute_dtype),
            self.data_format == "channels_last",
        )

    def _color(self, shape: Sequence[int]) -> Tensor | None:
        """What fills the boxes where it is not drawn, in four dims."""
        value = self.fill_value
        if value is None:
            return None
        several = isinstance(value, (tuple, list))
        if not isinstance(value, (int, float)) and not (several and len(value) == 3):
            raise ValueError(
                f"fill_value: expected None, a number, or a list of three, got {kind(value)}"
            )
        color = keras.ops.convert_to_tensor(value, dtype=self.compute_dtype)
        axis = -1 if self.compat else self.channel_axis
        if several and shape[axis] not in ((1, 3) if self.compat else (3,)):
            raise RuntimeError(
                f"fill_value: expected a number for images of {shape[axis]} "
                f"{'columns' if axis != self.channel_axis else 'channels'}, got three"
            )
        dims = [1, 1, 1, 1]
        dims[axis] = -1
        return color.reshape(dims)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **({"compat": True} if self.compat else {})}
