"""How well a model's probabilities are calibrated: calibration error, Brier score, diagrams.

Each is computed where the predictions live, in one pass, without a value read back.
"""

from .diagram import ReliabilityDiagram
from .scores import brier_score, expected_calibration_error, reliability_diagram

__all__ = [
    "ReliabilityDiagram",
    "brier_score",
    "expected_calibration_error",
    "reliability_diagram",
]
