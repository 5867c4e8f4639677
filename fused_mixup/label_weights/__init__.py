"""Label weights [B, 2] by other rules than λ: areas, attention, maps of classes, class counts.

Each is computed where its inputs live, without a value read back, and goes into a plan
(``plan.with_weight(weight)``) or a target. Weights need not sum to one.
"""

from .attention import (
    attention_weights,
    mixpro_weights,
    snapmix_weights,
    tokenmix_weights,
    transmix_weights,
)
from .boxes import area_weights
from .classes import mamix_weights, remix_weights

__all__ = [
    "area_weights",
    "attention_weights",
    "mamix_weights",
    "mixpro_weights",
    "remix_weights",
    "snapmix_weights",
    "tokenmix_weights",
    "transmix_weights",
]
