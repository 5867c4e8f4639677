"""What a :class:`fused_mixup.BatchMix` says of itself: its options and its text."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .epochs import Law
from .state import StreamModule


class DescribedModule(StreamModule):
    """A module of options, targets and a law, shown by their names."""

    _law: Law
    _options: Any  # of its entries
    _rules: dict[str, Any]
    _targets: Any

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
