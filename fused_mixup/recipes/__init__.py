"""The mixing of published trainings by their names, and of mappings and YAML files in timm's names.

``Recipe(…)`` has the mixer, the loss and the epoch that ends the mixing;
``BatchMix.from_recipe(…)`` gives the mixer alone.
"""

from .names import KEYS
from .recipe import Recipe
from .table import RECIPES

__all__ = ["KEYS", "RECIPES", "Recipe"]
