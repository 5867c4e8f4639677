"""What a loader around another one passes on."""

from __future__ import annotations

from typing import Any


class AroundLoader:
    """The length, samplers and data set of ``self.loader``."""

    loader: Any

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def sampler(self) -> Any:
        """The loader's."""
        return self.loader.sampler

    @property
    def batch_sampler(self) -> Any:
        """The loader's."""
        return self.loader.batch_sampler

    @property
    def dataset(self) -> Any:
        """The loader's."""
        return self.loader.dataset
