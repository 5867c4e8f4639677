"""Objects of one image put into another, with their masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..masks.maps import stored_mask
from ..mixing import mix
from ..plan.mix_plan import MixPlan
from .base import Params, check_image
from .installed import DataKey, theirs

_COUNTABLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_MOST_LABELS = 1 << 16  # above, a histogram would be longer than the masks
_NEEDED = ("acceptor_indices", "donor_indices", "selection")


class RandomTransplantation(theirs.RandomTransplantation):
    r"""Kornia's ``RandomTransplantation``: move one object of image i-1 into image i.

    ``out[i, …, p] = x[i-1, …, p]`` where ``mask[i-1, p]`` is the label drawn for i; masks likewise.

    Equivalent to (Kornia itself, where every image accepts)::

        donor = torch.arange(B) - 1
        label = [m[torch.randperm(len(m))[0]] for m in (mask[d].unique() for d in donor)]
        here = mask[donor] == torch.stack(label).view(-1, 1, 1)
        images = torch.where(here[:, None], images[donor], images)
        mask = torch.where(here, mask[donor], mask)

    Args:
        excluded_labels: labels that are never moved; None for none.
        p: how probable it is that an image accepts.
        p_batch: how probable it is that a batch is changed.
        data_keys: what the inputs are, at least one of them ``"mask"``; None for
            ``["input", "mask"]``.

    Called with images [B, C, H, W] and label maps [B, H, W] in the order of the keys.

    Returns:
        A list of what came, changed; a tensor for one input.

    Raises:
        TypeError: images that are no floats.
        Exception: what Kornia raises for a call without a mask, and for a mask of another size
            than the images.
        NotImplementedError: inputs that are neither images nor masks.

    Notes:
        Equals Kornia bit for bit. Images of two spatial dims go through the kernel, masks through
        one ``torch.where``, volumes through Kornia's own lines. Labels of integer masks are found
        by marking them, not by sorting. Gradients flow to the images.

    Source: Sellner et al., Semantic segmentation of surgical hyperspectral images under geometric
    domain shifts, 2023, arXiv 2303.10972.
    """

    def forward(
        self, *input: Any, params: Any = None, data_keys: Any = None, **options: Any
    ) -> Any:
        keys = self.data_keys if data_keys is None else [DataKey.get(key) for key in data_keys]
        if params is None:
            self._check_mask_given(input, keys)
            params = self.forward_parameters(input[keys.index(DataKey.MASK)].shape)
        self._params = params
        if any(name not in params for name in _NEEDED):
            params.update(self.params_from_input(*input, data_keys=keys, params=params))
        results = [self._apply_to(x, key, params) for x, key in zip(input, keys, strict=False)]
        return results[0] if len(results) == 1 else results

    def params_from_input(
        self, *input: Any, data_keys: Any, params: Params, extra_args: Any = None
    ) -> Params:
        self._check_mask_given(input, data_keys)
        mask = input[data_keys.index(DataKey.MASK)]
        if "selected_labels" not in params and "selection" not in params and _counts(mask):
            images = [x for x, key in zip(input, data_keys, strict=True) if key == DataKey.INPUT]
            if mask.shape[1] == 1 and any(x.ndim == mask.ndim for x in images):
                mask = mask[:, 0]  # [B, 1, H, W], as containers pass it on
            self._draw(mask, params)
        return super().params_from_input(
            *input, data_keys=data_keys, params=params, extra_args=extra_args
        )

    def _draw(self, mask: Tensor, params: Params) -> None:
        """Draw a label of each donor in Kornia's order; an acceptor whose donor has none drops."""
        gate = params["batch_prob"].cpu()
        acceptors = params.get("acceptor_indices", torch.where(gate > 0.5)[0])
        donors = params.get("donor_indices", (acceptors - 1) % len(gate))
        given = mask[donors]
        index = given.flatten(1).long()
        present = torch.zeros(len(index), int(mask.max()) + 1, dtype=torch.bool)
        present.scatter_(1, index, True)
        labels = torch.arange(present.shape[1])
        present &= ~torch.isin(labels, self.excluded_labels.cpu())
        chosen, eligible = [], []
        for i, row in enumerate(present):
            found = labels[row]
            if len(found):
                chosen.append(found[torch.randperm(len(found))[0]])
                eligible.append(i)
        keep = torch.tensor(eligible, dtype=torch.long)
        if len(eligible) < len(donors):
            closed = torch.ones(len(acceptors), dtype=torch.bool)
            closed[keep] = False
            params["batch_prob"] = params["batch_prob"].clone()
            params["batch_prob"][acceptors[closed]] = 0
            given = given[keep]
        params["acceptor_indices"], params["donor_indices"] = acceptors[keep], donors[keep]
        picked = torch.stack(chosen).to(mask.dtype) if chosen else mask.new_empty(0)
        params["selected_labels"] = picked
        params["selection"] = given == picked.view(-1, *[1] * (mask.ndim - 1))

    def _apply_to(self, x: Any, key: Any, params: Params) -> Any:
        selection = params["selection"]
        if not len(selection) or not _fits(x, key, selection):
            return super().forward(x, params=params, data_keys=[key])
        acceptors, donors = (params[f"{name}_indices"].cpu() for name in ("acceptor", "donor"))
        partner = torch.arange(len(x))
        partner[acceptors] = donors
        shape = len(x), *selection.shape[1:]
        moved = torch.zeros(shape, dtype=torch.bool, device=x.device)
        moved[acceptors.to(x.device)] = selection.to(x.device)
        if key == DataKey.MASK:  # of any dtype; paste_ by a mask takes ten times as long here
            moved = moved[:, None] if x.ndim > moved.ndim else moved
            return torch.where(moved, x[partner.to(x.device)], x)
        check_image(x)
        plan = MixPlan.per_sample(torch.ones(len(x)), partner, device=x.device)
        return mix(x, plan.with_mask(stored_mask(moved, complement=True)))


def _fits(x: Any, key: Any, selection: Tensor) -> bool:
    """Whether x is a batch that ``selection`` covers, and for images one of two spatial dims."""
    if not isinstance(x, Tensor) or not (x.is_cpu or x.is_cuda):
        return False
    if key == DataKey.MASK and x.shape[1:] == selection.shape[1:]:
        return True
    spatial = x.shape[2:] == selection.shape[1:] and x.ndim > 2
    return spatial and (key == DataKey.MASK or (key == DataKey.INPUT and x.ndim == 4))


def _counts(mask: Tensor) -> bool:
    """Whether the labels of a mask can be counted: integers on the host, small, not negative."""
    if mask.dtype not in _COUNTABLE or not mask.is_cpu or mask.ndim < 2 or not mask.numel():
        return False
    low, high = torch.aminmax(mask)
    return int(low) >= 0 and int(high) < _MOST_LABELS
