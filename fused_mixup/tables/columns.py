"""Mixing of tables: numeric columns as they are, categories after their embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..arguments import check_plain_tensor, kind
from ..dtypes import FLOATING
from ..mixing import mix
from ..plan.mix_plan import MixPlan

_INDICES = (torch.int32, torch.int64)


def mix_table(
    numeric: Tensor | None,  # [B, C]
    categories: Tensor | None,  # [B, F]
    embeddings: Sequence[Callable[[Tensor], Tensor]],
    plan: MixPlan | None,
) -> Tensor:
    """Mix the rows of a table: numeric columns as they are, categories after their embedding.

    ``row_i = [numeric_i | E_1(c_i1) | … | E_F(c_iF)]``, mixed by ``λ row_i + (1-λ) row_partner``

    Equivalent to::

        embedded = [e(c) for e, c in zip(embeddings, categories.unbind(1))]
        mix(torch.cat([numeric, *embedded], 1), plan)

    Args:
        numeric: [B, C], floating; None for none.
        categories: int32 or int64 [B, F], codes as the embeddings take them; None for none.
        embeddings: F functions from codes [B] to [B, E_f], such as an ``nn.ModuleList`` of
            ``nn.Embedding``, in the order of the columns.
        plan: a plan without boxes; None mixes nothing, for evaluation.

    Returns:
        [B, C + ΣE_f], differentiable in ``numeric`` and the embeddings.

    Raises:
        TypeError, ValueError: an argument that is not as described; codes among the numeric
            columns.

    Notes:
        A code is a name: half of codes 2 and 4 is not code 3, so that codes never blend, and
        their embeddings do. A missing value (NaN) makes the mixed value NaN: fill it before.
        Labels follow by :func:`mix_labels` (real-valued) or :class:`MixedTarget`.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """
    if not hasattr(embeddings, "__len__") or not hasattr(embeddings, "__iter__"):
        raise TypeError(
            f"embeddings: expected a list of functions, one for each column of categories, got "
            f"{kind(embeddings)}; [] for none"
        )
    parts = [] if numeric is None else [_check_numeric(numeric)]
    columns = [] if categories is None else _check_categories(categories, len(embeddings))
    if categories is None and len(embeddings):
        raise ValueError(
            f"categories: expected [B, {len(embeddings)}] for the embeddings, got None"
        )
    parts += [embed(column) for embed, column in zip(embeddings, columns, strict=True)]
    if not parts:
        raise ValueError("numeric, categories: expected columns in one of them, got none")
    for f, part in enumerate(parts):
        if not isinstance(part, Tensor) or part.ndim != 2 or len(part) != len(parts[0]):
            raise ValueError(
                f"embeddings: expected each to give [{len(parts[0])}, E], got {kind(part)} as "
                f"part {f} of the row"
            )
        if not part.is_floating_point():
            raise TypeError(
                f"embeddings: expected each to give floats, got {kind(part)} as part {f} of the "
                "row; codes do not blend, and one-hot rows take .float()"
            )
    rows = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
    if plan is None:
        return rows
    if not isinstance(plan, MixPlan):
        raise TypeError(f"plan: expected a MixPlan or None, got {kind(plan)}")
    if plan.spatial_dims:
        raise ValueError(
            f"plan: expected one without boxes for a table, got boxes of {plan.spatial_dims} "
            "dims; columns have no order to cut in: set cutmix_alpha=0"
        )
    return mix(rows, plan)


def _check_numeric(numeric: Tensor) -> Tensor:
    check_plain_tensor("numeric", numeric)
    if not isinstance(numeric, Tensor) or numeric.dtype not in FLOATING:
        raise TypeError(
            f"numeric: expected a floating tensor [B, C], got {kind(numeric)}; codes of categories "
            "go into categories, measured whole numbers: .float()"
        )
    if numeric.ndim != 2:
        raise ValueError(f"numeric: expected shape [B, C], got {list(numeric.shape)}")
    return numeric


def _check_categories(categories: Tensor, count: int) -> list[Tensor]:
    check_plain_tensor("categories", categories)
    if not isinstance(categories, Tensor) or categories.dtype not in _INDICES:
        raise TypeError(
            f"categories: expected int32 or int64 codes [B, F], got {kind(categories)}; numbers to "
            "blend go into numeric"
        )
    if categories.ndim != 2 or categories.shape[1] != count:
        raise ValueError(
            f"categories: expected shape [B, {count}], a column for each embedding, got "
            f"{list(categories.shape)}"
        )
    return list(categories.unbind(1))
