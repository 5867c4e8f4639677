"""How a batch is mixed: the plan, its tensors, its checks, and how one is drawn."""

from .mix_plan import MixPlan

__all__ = ["MixPlan"]
