"""``MixUp``, ``CutMix`` and ``RandomErasing`` of Keras 3, on this package's kernels.

    from fused_mixup.keras import CutMix, MixUp, RandomErasing   # from keras.layers

Subclasses of Keras' own layers: same arguments, same draws from the same seeds, same images and
labels. They need Keras with its PyTorch backend (``KERAS_BACKEND=torch``); importing this module
without it raises ImportError. Where Keras is wrong, ours are right, and ``compat=True`` gives what
Keras gives.
"""

from .mix import CutMix, MixUp
from .random_erasing import RandomErasing

__all__ = ["CutMix", "MixUp", "RandomErasing"]
