"""Keras as it is installed, on its PyTorch backend; a clear error where that cannot be had."""

from __future__ import annotations

try:
    import keras  # type: ignore[import-not-found,unused-ignore]
except ImportError as error:  # Keras itself, or the package of the backend that it chose
    raise ImportError(
        f"fused_mixup.keras: expected Keras 3 with its PyTorch backend, got {error}; pip install "
        "keras, and set KERAS_BACKEND=torch before Keras is imported",
        name=error.name,
    ) from None

if keras.backend.backend() != "torch":
    raise ImportError(
        "fused_mixup.keras: expected Keras with its PyTorch backend, got "
        f"{keras.backend.backend()!r}; set KERAS_BACKEND=torch before Keras is imported",
        name="keras",
    )
if not all(hasattr(keras.layers, name) for name in ("MixUp", "CutMix", "RandomErasing")):
    raise ImportError(
        "fused_mixup.keras: expected a Keras with MixUp, CutMix and RandomErasing, got "
        f"{keras.__version__}; pip install --upgrade keras",
        name="keras",
    )

__all__ = ["keras"]
