"""Mixing in Hugging Face's ``Trainer`` without a change in the model: :class:`MixupTrainerMixin`.

``transformers`` is imported when a trainer is made.
"""

from .trainer import MixupTrainerMixin

__all__ = ["MixupTrainerMixin"]
