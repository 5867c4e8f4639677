"""Manifold Mixup: hidden states of any model mixed by hooks, and the targets that go with them."""

from .module import ManifoldMixup

__all__ = ["ManifoldMixup"]
