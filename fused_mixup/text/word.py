"""Input embeddings mixed: :class:`WordMixup`."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..plan.mix_plan import MixPlan
from .checks import check_last_token
from .embeddings import mix_embeddings
from .inputs import counted_positions, embedding_of, mixed_inputs, position_padding
from .module import TextBatch, TextMixup


class WordMixup(TextMixup):
    r"""Call a model of transformers with its input embeddings mixed (wordMixup).

    ``e_i ← λ e_i + (1-λ) e_j`` place by place, padding counted as zero, with ``λ ~ Beta(α, α)``;
    the target is ``λ y_i + (1-λ) y_j``::

        mixup = WordMixup(model, alpha=1.0)
        for batch in loader:  # input_ids [B, T], attention_mask [B, T], labels [B]
            output, target = mixup(**batch)
            loss = soft_target_cross_entropy(output.logits, target)

    Equivalent to::

        e = model.get_input_embeddings()(input_ids)
        e, mask = mix_embeddings(e, attention_mask, plan)
        model(inputs_embeds=e, attention_mask=mask), MixedTarget.from_labels(labels, plan, K)

    Args:
        model: any encoder, decoder or classifier of transformers that takes ``inputs_embeds``.
        alpha: α of λ; the paper's is not known.
        num_classes: K of labels that are class indices; None takes the logits' ``shape[1]``.
        prob, per, pairing, symmetric: as in :func:`draw_plan`; ``pairing`` by name.
        label_smoothing, ignore_index, dense_targets, seed, rank, schedule, off_after_epoch: as in
            :class:`BatchMix`.

    Called with ``(input_ids, labels, attention_mask, …)``, or a batch's entries by these names; all
    but ``labels`` goes to the model.

    Shapes:
        input_ids, attention_mask: [B, T].
        labels: int64 [B], or floats [B, …].

    Returns:
        What the model returned, and the target: a :class:`MixedTarget` of class indices (dense with
        ``dense_targets``), floats blended by :func:`mix_labels`. In eval mode (of the model or of
        this) the plain model's output and the labels as they are.

    Raises:
        TypeError: ids that are no ids, a model without ``get_input_embeddings``.
        ValueError: labels that are missing, a mask of another shape, a sequence without a valid
            token, packed sequences, right padding where a decoder's head takes the last token, and
            no mask where ids hold the padding token. Values are looked at on the CPU.

    Notes:
        Positions that a model counts from its ids (RoBERTa's line, MPNet) are counted from the
        merged mask, on either side of padding. ``token_type_ids`` and ``position_ids`` are the
        sample's own, and past its end its partner's.

        ``state_dict()`` of this module (it holds no parameters, and not the model's) resumes the
        stream to the bit.

    Source: Guo et al., Augmenting Data with Mixup for Sentence Classification, 2019,
    arXiv 1905.08941.
    """

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        embedding_of(self.inner)
        self._position_padding = position_padding(self.inner)

    def _check(self, batch: TextBatch) -> None:
        check_last_token(self.inner, batch.attention_mask)

    def _call(self, plan: MixPlan, batch: TextBatch) -> tuple[Any, MixPlan]:
        embeddings = embedding_of(self.inner)(batch.input_ids)
        mixed, merged = mix_embeddings(embeddings, batch.attention_mask, plan)
        inputs = mixed_inputs(batch.inputs, batch.attention_mask, plan)
        padding = self._position_padding
        if padding is not None and merged is not None and inputs.get("position_ids") is None:
            inputs["position_ids"] = counted_positions(merged, padding)
        return self._run(inputs_embeds=mixed, attention_mask=merged, **inputs), plan
