"""What a :class:`fused_mixup.BatchMix` says of itself, and how it is made by a recipe."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .epochs import Law
from .state import StreamModule

if TYPE_CHECKING:
    from typing_extensions import Self


class DescribedModule(StreamModule):
    """A module of options, targets and a law, shown by their names."""

    _law: Law
    _options: Any  # of its entries
    _rules: dict[str, Any]
    _targets: Any

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
        recipes = importlib.import_module("fused_mixup.recipes")
        return cls(**recipes.Recipe(recipe, num_classes, **overrides).settings)

    @property
    def num_classes(self) -> Any:
        return self._targets.num_classes

    @property
    def spatial_dims(self) -> int | None:
        return self._options.spatial_dims

    @property
    def label_smoothing(self) -> float:
        return self._targets.label_smoothing

    @property
    def ignore_index(self) -> int | None:
        return self._targets.ignore_index

    @property
    def dense_targets(self) -> bool:
        return self._targets.dense

    @dense_targets.setter
    def dense_targets(self, dense: bool) -> None:
        self._targets.dense = bool(dense)

    def extra_repr(self) -> str:
        shown = {"num_classes": self.num_classes, **self._law.numbers, **self._rules}
        shown |= {"label_smoothing": self.label_smoothing, "ignore_index": self.ignore_index}
        shown["rank"] = self.rank
        return ", ".join(f"{name}={value!r}" for name, value in shown.items() if value is not None)

    def _settings_error(self, name: str, settings: Tensor) -> str | None:
        return self._law.settings_error(name, settings)
