"""The labels under an image: which class has which share of its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from .. import MixedTarget, MixPlan
from ..reference.dense import label_columns

Names = Mapping[int, str] | Sequence[str] | None

OWN, PARTNER, OTHERS = "own", "partner", "others"
MOST_CLASSES = 3  # of a dense target
LEAST_SHARE = 0.005  # what is less is not shown as the share of others


class Share(NamedTuple):
    name: str
    weight: float
    source: str  # OWN, PARTNER or OTHERS: the colour


def class_name(names: Names, index: int) -> str:
    if isinstance(names, Mapping):
        return str(names.get(index, f"class {index}"))
    if names is not None and 0 <= index < len(names):
        return str(names[index])
    return f"class {index}"


def weight_text(weight: float) -> str:
    """Two decimals, of which none says 0 or 1 for a weight that only comes near it."""
    if 0.0 < weight < 0.005:
        return "<0.01"
    if 0.995 <= weight < 1.0:
        return ">0.99"
    return f"{weight:.2f}"


def plan_shares(plan: MixPlan, rows: int) -> list[list[Share]]:
    """The weights of samples by their numbers, where no labels are given."""
    partners = plan.partner[:rows].tolist()
    shares = []
    for i, (own, other) in enumerate(plan.weight[:rows].tolist()):
        row = [Share(f"#{i}", own, OWN), Share(f"#{partners[i]}", other, PARTNER)]
        if partners[i] == i:
            row = [Share(f"#{i}", own + other, OWN)]
        shares.append(_used(row))
    return shares


def target_shares(target: MixedTarget, rows: int, names: Names) -> list[list[Share]]:
    """The share of each label of a row in the target that a loss sees, and of all others."""
    target = target[:rows].to("cpu")
    dense = target.dense().double()  # label smoothing and ignored labels are in it
    labels = [y.tolist() for y in label_columns(target.labels, target.partner_labels)]
    shares = []
    for i, weights in enumerate(target.weight.tolist()):
        kept: list[tuple[int, float, str]] = []
        for j, weight in enumerate(weights):
            if weight != 0.0 and all(labels[j][i] != label for label, *_ in kept):
                kept.append((labels[j][i], weight, PARTNER if j else OWN))
        kept = kept or [(labels[0][i], weights[0], OWN)]
        row = [
            Share("ignored", weight, OTHERS)
            if label == target.ignore_index
            else Share(class_name(names, label), float(dense[i, label]), source)
            for label, weight, source in kept
        ]
        said = sum(share.weight for share in row if share.name != "ignored")
        shares.append(row + _others(float(dense[i].sum()) - said))
    return shares


def dense_shares(target: Tensor, rows: int, names: Names) -> list[list[Share]]:
    """The largest entries of dense targets [B, K], and the sum of the others."""
    dense = target[:rows].detach().cpu().double()
    shares = []
    for row in dense:
        order = row.argsort(descending=True, stable=True)[:MOST_CLASSES].tolist()
        said = _used([Share(class_name(names, k), float(row[k]), OTHERS) for k in order])
        shares.append(said + _others(float(row.sum()) - sum(share.weight for share in said)))
    return shares


def _used(row: list[Share]) -> list[Share]:
    """The shares that are not 0, or the first one."""
    return [share for share in row if share.weight != 0.0] or row[:1]


def _others(rest: float) -> list[Share]:
    return [Share("others", rest, OTHERS)] if rest >= LEAST_SHARE else []
