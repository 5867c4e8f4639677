"""What the replacements share: a whole batch in one pass, its gate included, and clear errors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from ..tracing import call_eagerly
from .installed import DataKey, theirs

Params = dict[str, Tensor]
_IMAGE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Fused(theirs.MixAugmentationBaseV2):
    """A mix of Kornia whose images go through a kernel; draws, labels and boxes are Kornia's."""

    def _mix(self, x: Tensor, params: Params, flags: Any, gate: Tensor) -> Tensor | None:
        """The mixed images [B, C, H, W]; None where Kornia's own lines have to mix them.

        ``gate``: bools [B], which samples are mixed; at least one is.
        """
        raise NotImplementedError

    def forward(self, *input: Any, params: Any = None, data_keys: Any = None) -> Any:
        keys = self.data_keys if data_keys is None else [DataKey.get(key) for key in data_keys]
        check_count(keys, input)
        return super().forward(*input, params=params, data_keys=data_keys)

    def transform_tensor(self, input: Any, **options: Any) -> Tensor:
        check_image(input)
        return super().transform_tensor(input, **options)

    def transform_input(self, input: Tensor, params: Params, flags: Any) -> Tensor:
        if torch.compiler.is_compiling():
            return call_eagerly(self._transform, input, params, flags)
        return self._transform(input, params, flags)

    def transform_class(self, input: Tensor, params: Params, flags: Any) -> Tensor:
        gate = params["batch_prob"] > 0.5
        count = gate.numel()
        if isinstance(input, Tensor) and input.shape != (count,):
            short = input.ndim > 0 and len(input) < count
            raise (IndexError if short else RuntimeError)(
                f"class: expected class indices [{count}], one for each image, got shape "
                f"{list(input.shape)}; one-hot labels become indices by .argmax(-1)"
            )
        if bool(gate.all()):  # Kornia counts it tensor by tensor, which costs as much as a mix
            return self.apply_transform_class(input, params, flags)
        return super().transform_class(input, params, flags)

    def _transform(self, input: Tensor, params: Params, flags: Any) -> Tensor:
        x = self.transform_tensor(input)
        gate = torch.atleast_1d(params["batch_prob"] > 0.5)
        if not x.numel() or not (x.is_cpu or x.is_cuda):
            return super().transform_input(input, params, flags)
        if len(gate) != len(x):
            try:
                return super().transform_input(input, params, flags)
            except (RuntimeError, IndexError) as error:
                raise type(error)(
                    f"params: expected those of {len(x)} images, got those of {len(gate)}; leave "
                    "params out to draw new ones"
                ) from error
        if not bool(gate.any()):
            return super().transform_input(input, params, flags)  # the input, perhaps padded
        mixed = self._mix(x, params, flags, gate)
        if mixed is None:
            return super().transform_input(input, params, flags)
        return self.transform_output_tensor(mixed, input.shape)

    def _validate_data_key(self, key: Any) -> None:
        try:
            super()._validate_data_key(key)
        except (NotImplementedError, RuntimeError) as error:
            name = type(self).__name__
            raise type(error)(
                f"data_keys: expected keys that {name} can mix, got {key.name.lower()!r}; pass "
                "it to no mix, or see the data keys in Kornia's documentation of the class"
            ) from None


def check_count(keys: list[Any], inputs: tuple[Any, ...]) -> None:
    """Raise where Kornia would drop an input that no key names, or a key that has no input."""
    first = keys.index(DataKey.INPUT) if DataKey.INPUT in keys else 0
    if first < len(inputs) != len(keys):
        names = [key.name.lower() for key in keys]
        raise ValueError(
            f"input: expected {len(keys)} as in data_keys={names}, got {len(inputs)}; name each "
            'input, as in data_keys=["input", "class"]'
        )


def check_image(x: Any) -> None:
    """Raise for images that Kornia refuses, with its types of errors."""
    if not isinstance(x, Tensor):
        raise AttributeError(f"input: expected a tensor [B, C, H, W], got {kind(x)}")
    if x.dtype not in _IMAGE_DTYPES:
        raise TypeError(
            f"input: expected float16, bfloat16, float32 or float64, got {x.dtype}; bytes become "
            "floats by .float() / 255"
        )
    if x.ndim not in (2, 3, 4):
        raise ValueError(
            f"input: expected [H, W], [C, H, W] or [B, C, H, W], got shape {list(x.shape)}"
        )


def wants_grad(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()
