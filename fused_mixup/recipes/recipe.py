"""A recipe: the mixer, the loss and the last mixed epoch of a training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from .. import BatchMix, SoftTargetBinaryCrossEntropy, SoftTargetCrossEntropy
from ..arguments import kind
from .names import LOSS_SETTINGS
from .settings import read_settings


class Recipe:
    """How a training mixes, and what it learns with: by a name, a mapping or a YAML file.

    Equivalent to (``"timm"``)::

        recipe.mix = BatchMix(num_classes, mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1)
        recipe.criterion = SoftTargetCrossEntropy()

    Args:
        recipe: a name of ``RECIPES``; a mapping; or the path of a YAML file (``.yaml`` or
            ``.yml``) of one. Keys are timm's: ``mixup``, ``cutmix``, ``cutmix_minmax``,
            ``mixup_prob``, ``mixup_switch_prob``, ``mixup_mode``, ``mixup_off_epoch``,
            ``smoothing``, ``bce_loss``, ``bce_target_thresh``, ``bce_sum``; or those of
            :class:`BatchMix`; ``loss: ce`` or ``bce``; ``disable_mixup_epochs`` with ``epochs``,
            the number of last epochs that are not mixed; ``recipe``, the named one that the others
            change. Without the latter, what is left out is as in timm's train.py, which
            smooths labels by 0.1 and mixes nothing.
        num_classes: as in :class:`BatchMix`; goes before that of the mapping.
        overrides: the same keys, which go first.

    Attributes:
        mix: the :class:`BatchMix`.
        criterion: :class:`SoftTargetCrossEntropy`, or for ``bce``
            :class:`SoftTargetBinaryCrossEntropy`. Label smoothing is in the targets.
        off_epoch: the first epoch (from 0) that is not mixed, or None. ``mix.set_epoch`` heeds it.
        settings: the arguments of ``mix``, a dict.
        loss: ``"ce"`` or ``"bce"``.

    Raises:
        TypeError, ValueError: an unknown name or key (the nearest is named), a key given twice, a
            value that :class:`BatchMix` or the loss refuses.
        ImportError: a YAML file without PyYAML.
        OSError: a file that cannot be read.

    Notes:
        Draws are those of this package, of the distributions that the recipe names.

    Source: docs/recipes.md has that of each name.
    """

    def __init__(
        self,
        recipe: str | os.PathLike[str] | Mapping[str, Any],
        num_classes: Any = None,
        **overrides: Any,
    ) -> None:
        settings = read_settings(recipe, overrides)
        of_loss = {name: settings.pop(name) for name in LOSS_SETTINGS}
        if num_classes is not None:
            settings["num_classes"] = num_classes
        self.name = recipe if isinstance(recipe, str) else type(recipe).__name__
        self.settings = settings
        self.loss: str = of_loss.pop("loss")
        self.criterion = make_criterion(self.loss, **of_loss)
        self.mix = BatchMix(**settings)

    @property
    def off_epoch(self) -> int | None:
        return self.settings["off_after_epoch"]

    def __repr__(self) -> str:
        return f"Recipe({self.name!r}, loss={self.loss!r}, mix={self.mix!r})"


def make_criterion(loss: str, target_threshold: float | None, sum_classes: bool) -> nn.Module:
    if loss == "bce":
        return SoftTargetBinaryCrossEntropy(
            target_threshold=target_threshold, sum_classes=sum_classes
        )
    if target_threshold is not None or sum_classes:
        raise ValueError(
            "bce_target_thresh, bce_sum: expected None and False with loss 'ce', got "
            f"{kind(target_threshold)} and {kind(sum_classes)}; set bce_loss: true"
        )
    return SoftTargetCrossEntropy()
