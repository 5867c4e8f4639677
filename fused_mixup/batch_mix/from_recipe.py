"""How a :class:`fused_mixup.BatchMix` is made by a recipe."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .state import StreamModule

if TYPE_CHECKING:
    from typing_extensions import Self


class RecipeModule(StreamModule):
    """A mixer of batches that named recipes make."""

    _options: Any  # of its entries

    @classmethod
    def from_recipe(cls, recipe: Any, num_classes: Any = None, **overrides: Any) -> Self:
        """The mixer of a published training, or of a mapping or YAML file in timm's names.

        Equivalent to::

            BatchMix(**fused_mixup.recipes.Recipe(recipe, num_classes, **overrides).settings)

        Args:
            recipe: ``"timm"``, ``"torchvision"``, ``"deit"`` and more, a mapping, or the path of a
                ``.yaml`` file; see :class:`fused_mixup.recipes.Recipe`.
            num_classes: as in :class:`BatchMix`.
            overrides: settings that go before those of the recipe, in timm's names or those here.

        Returns:
            A :class:`BatchMix`. A Recipe has the loss too, which may be binary cross-entropy.

        Raises:
            TypeError, ValueError, ImportError, OSError: as Recipe.
        """
        # By name, as importing this package must not import the recipes.
        recipes = importlib.import_module("..recipes", __package__)
        return cls(**recipes.Recipe(recipe, num_classes, **overrides).settings)

    @property
    def spatial_dims(self) -> int | None:
        return self._options.spatial_dims
