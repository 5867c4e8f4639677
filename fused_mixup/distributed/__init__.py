"""Mixing with samples that live in other processes: what is needed travels, and nothing else."""

from .global_plan import GlobalPlan, Traffic, global_plan
from .module import GlobalMix

__all__ = ["GlobalMix", "GlobalPlan", "Traffic", "global_plan"]
