"""How a batch is mixed: the plan, what it is made of and checked for, and how one is drawn."""

from .mix_plan import MixPlan

__all__ = ["MixPlan"]
