"""Spans of tokens moved between texts: :class:`SSMix`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import check_number, kind
from ..collage.rectangles import mix_rectangles
from ..plan.mix_plan import MixPlan
from ..plan.rectangles import RectanglePlan
from ..reference.pairing import partner_indices
from .checks import check_mask
from .inputs import embedding_of, samples_dim
from .module import TextBatch, TextMixup
from .token_saliency import token_saliency


class SSMix(TextMixup):
    r"""Call a classifier with the least salient span of each text replaced by its partner's most.

    A span has ``w = max(int(share · n), 1)`` of the n tokens between the ends of a text; the target
    is ``(1 - w/n) y_i + (w/n) y_j``. Ids are moved and never blended::

        ssmix = SSMix(model)
        for batch in loader:  # input_ids [B, T], attention_mask [B, T], labels [B]
            output, target = ssmix(**batch)
            loss = soft_target_cross_entropy(output.logits, target)

    Equivalent to (of a sample i with partner j, whose scores are averages of w neighbours)::

        to, at = score[i, 1:-1].argmin() + 1, score[j, 1:-1].argmax() + 1
        ids[i, to : to + w] = input_ids[j, at : at + w]

    Args:
        model: a classifier of transformers. Give ``saliency=`` in the call for another one.
        share: of a text's tokens that are replaced, in (0, 1].
        num_classes, prob, per, pairing, label_smoothing, ignore_index, dense_targets, seed, rank,
            schedule, off_after_epoch: as in :class:`WordMixup`; there is no λ to draw.

    Called, with shapes and results, as :class:`WordMixup`, and with:
        saliency: floats [B, T], how much each token matters; None computes the norm of the loss's
            gradient at each embedding, by a forward and a backward in evaluation mode.
        special_tokens_mask: [B, T], 1 for tokens that stay where they are, as the tokenizer gives
            it with ``return_special_tokens_mask=True``: needed for pairs of sentences.

    Raises:
        TypeError, ValueError: as :class:`WordMixup`; a saliency of another shape.

    Notes:
        Without ``special_tokens_mask`` the first and the last valid token stay, on either side of
        padding. A text that has no span of that length, or whose partner has none, stays as it is;
        so does one that is its own partner. (The authors' code takes the partner's first tokens,
        the start token among them, where a partner is barely as long as the span.) Positions,
        token types and the mask are the sample's own: a text keeps its length.

        The paper averages the losses of both orders and of the clean batch: two calls and one of
        the model. Gradients of parameters are not touched by the saliency.

    Source: Yoon et al., SSMix, 2021, arXiv 2106.08062.
    """

    _own_inputs = ("saliency", "special_tokens_mask")

    def __init__(self, model: nn.Module, share: float = 0.1, **options: Any) -> None:
        super().__init__(model, **options)
        self.share = _check_share(share)
        embedding_of(self.inner)

    def _check(self, batch: TextBatch) -> None:
        for name in self._own_inputs:
            check_tokens(name, batch.inputs.get(name), batch.input_ids)
        if batch.inputs.get("saliency") is None and not _have_classes(batch.labels):
            raise ValueError(
                "labels: expected class indices [B] or probabilities [B, K], whose cross-entropy "
                f"gives the saliency, got {kind(batch.labels)}; give saliency="
            )

    def _call(self, plan: MixPlan, batch: TextBatch) -> tuple[Any, MixPlan]:
        input_ids, attention_mask, labels, inputs = batch
        inputs = dict(inputs)
        saliency, special = (inputs.pop(name, None) for name in self._own_inputs)
        if saliency is None:
            given = {**inputs, "input_ids": input_ids, "attention_mask": attention_mask}
            dim = samples_dim(self.inner)
            saliency = token_saliency(self.inner, labels, given, dim, self._targets.ignored)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        spans = span_plan(saliency, mask, plan, share=self.share, special_tokens_mask=special)
        size, length = input_ids.shape
        moved = mix_rectangles(input_ids.view(size, 1, length), spans).view(size, length)
        output = self._run(input_ids=moved, attention_mask=attention_mask, **inputs)
        return output, plan.with_weight(spans.weight.to(plan.weight.device))


def span_plan(
    saliency: Tensor,  # [B, T]
    attention_mask: Tensor,  # [B, T]
    plan: MixPlan,
    *,
    share: float = 0.1,
    special_tokens_mask: Tensor | None = None,  # [B, T]
) -> RectanglePlan:
    """Which span of its partner each text gets, and where: the plan of :class:`SSMix`.

    ``mix_rectangles(ids.view(B, 1, T), span_plan(saliency, attention_mask, plan))`` moves them.

    Args:
        saliency: floats [B, T], how much each token matters.
        attention_mask: [B, T], 0 where padded.
        plan: who is mixed with whom; rows whose partner has a weight of 0 stay.
        share, special_tokens_mask: as in :class:`SSMix`.

    Returns:
        One rectangle for each text, of height 1 and empty where it stays; its ``weight`` is
        (1 - w/n, w/n).

    Raises:
        TypeError, ValueError: an argument that is not as described.

    Notes:
        No value is read from a device.

    Source: Yoon et al., SSMix, 2021, arXiv 2106.08062.
    """
    check_tokens("saliency", saliency, attention_mask)
    check_mask(attention_mask, attention_mask.shape, attention_mask.device)
    share, device = _check_share(share), attention_mask.device
    size, length = attention_mask.shape
    partner = plan.partner_or_none
    partner = partner_indices(plan.rule, size, device) if partner is None else partner.to(device)
    valid = attention_mask != 0
    movable = valid & ~_ends(valid) if special_tokens_mask is None else valid
    if special_tokens_mask is not None:
        check_tokens("special_tokens_mask", special_tokens_mask, attention_mask)
        movable = valid & (special_tokens_mask == 0)
    count = movable.sum(1)  # [B], n
    width = (count.double() * share).long().clamp(min=1)
    to, room = _best_window(saliency, movable, width, largest=False)
    other = partner.long()
    at, supply = _best_window(saliency[other], movable[other], width, largest=True)
    itself = other == torch.arange(size, device=device)
    mixed = room & supply & ~itself & (plan.blend.to(device)[:, 1] != 0)
    width = torch.where(mixed, width, 0)
    top, bottom = torch.zeros_like(to), torch.ones_like(to)
    source_box = torch.stack((top, at, bottom, at + width), 1)[:, None]
    box = torch.stack((top, to, bottom, to + width), 1)[:, None]
    moved = width.double() / count.clamp(min=1)
    weight = torch.stack((1 - moved, moved), 1).float()
    return RectanglePlan(partner[:, None], source_box, box, weight)


def _have_classes(labels: Any) -> bool:
    """Whether the cross-entropy with these labels tells tokens apart."""
    if not isinstance(labels, Tensor):
        return False
    if labels.is_floating_point():
        return labels.ndim == 2 and labels.shape[1] > 1
    return labels.ndim == 1


def _check_share(share: float) -> float:
    share = check_number("share", share)
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share: expected a number in (0, 1], got {share}")
    return share


def check_tokens(name: str, value: Any, like: Tensor) -> None:
    """Raise unless ``value`` is None or a tensor [B, T] as ``like``."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor [B, T], got {kind(value)}")
    if value.shape != like.shape or value.device != like.device:
        raise ValueError(
            f"{name}: expected shape {list(like.shape)} on {like.device}, got {kind(value)}"
        )


def _ends(valid: Tensor) -> Tensor:
    """Bool [B, T]: the first and the last valid place of each row."""
    from_left = valid.long().cumsum(1)
    return valid & ((from_left == 1) | (from_left == from_left[:, -1:]))


def _best_window(
    saliency: Tensor, movable: Tensor, width: Tensor, largest: bool
) -> tuple[Tensor, Tensor]:
    """int64 [B]: where the window of ``width`` movable places with the best mean starts; whether
    there is one. Sums are compared, as all windows of a row have one width."""
    size, length = saliency.shape
    start = torch.arange(length, device=saliency.device).expand(size, length)
    stop = start + width[:, None]
    fits = stop <= length
    stop = stop.clamp(max=length)
    values = torch.where(movable, saliency.double(), 0.0)
    sums, counts = (_running(t) for t in (values, movable.long()))
    allowed = fits & (counts.gather(1, stop) - counts.gather(1, start) == width[:, None])
    score = sums.gather(1, stop) - sums.gather(1, start)
    worst = -torch.inf if largest else torch.inf
    score = torch.where(allowed, score, worst)
    best = score.argmax(1) if largest else score.argmin(1)
    return best, allowed.any(1)


def _running(t: Tensor) -> Tensor:
    """[B, T + 1]: sums of the places before each."""
    return torch.nn.functional.pad(t.cumsum(1), (1, 0))
