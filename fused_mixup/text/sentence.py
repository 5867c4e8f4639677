"""Sentence vectors mixed, before the classifier: :class:`SentenceMixup`."""

from __future__ import annotations

import difflib
from typing import Any

from torch import Tensor, nn

from ..arguments import kind
from ..batch_mix.structure import New, replace
from ..mixing import mix
from ..plan.mix_plan import MixPlan
from ..saliency.modes import logits_of
from .checks import pools_last_token
from .hooks import InputHook
from .module import HookedTextMixup, TextBatch


class SentenceMixup(HookedTextMixup):
    r"""Call a classifier with its sentence vectors mixed in front of the last layer (senMixup).

    ``v_i ← λ v_i + (1-λ) v_j`` with ``λ ~ Beta(α, α)`` and v the pooled vector that enters the
    classifier; the target is ``λ y_i + (1-λ) y_j``::

        mixup = SentenceMixup(model, alpha=1.0)
        output, target = mixup(input_ids, labels, attention_mask=attention_mask)
        loss = soft_target_cross_entropy(output.logits, target)

    Equivalent to::

        v = pool(encoder(input_ids, attention_mask))  # [B, H]
        classifier(lam * v + (1 - lam) * v[partner]), MixedTarget.from_labels(labels, plan, K)

    Args:
        model: a classifier of transformers, or a model whose ``layer`` is named.
        layer: the name of the module whose input is mixed; None: the last ``nn.Linear`` of the
            model, in transformers' classifiers of their head: the one that gives the logits.
        alpha: α of λ; the paper's is not known.
        num_classes, prob, per, pairing, symmetric, label_smoothing, ignore_index, dense_targets,
            seed, rank, schedule, off_after_epoch: as in :class:`WordMixup`.

    Called, with shapes and results, as :class:`WordMixup`.

    Raises:
        TypeError, ValueError: as :class:`WordMixup`; a layer that the model has not, or that takes
            no vectors [B, H].
        RuntimeError: a layer that is not called, or is called in a backward.

    Notes:
        Each sentence is encoded by itself, so masks, positions and padding stay as they are, on
        either side. A decoder's head is linear and has no bias, and runs before its last token is
        picked: there the logits are mixed, which is the same.

        The hook is registered here, does nothing without a plan, and goes with ``close()`` or
        with this object; a copy of the model is a plain one.

    Source: Guo et al., Augmenting Data with Mixup for Sentence Classification, 2019,
    arXiv 1905.08941.
    """

    def __init__(
        self, model: nn.Module, layer: str | None = None, *, alpha: float = 1.0, **options: Any
    ) -> None:
        super().__init__(model, alpha=alpha, **options)
        linear = pools_last_token(self.inner) and isinstance(self.inner.score, nn.Linear)
        self._mixes_logits = layer is None and linear
        self.layer, module = _find_layer(self.inner, layer)
        if not self._mixes_logits:
            hook = _VectorHook(self._slot, 0)
            self._handles.kept.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _call(self, plan: MixPlan, batch: TextBatch) -> tuple[Any, MixPlan]:
        inputs = {**batch.inputs, "input_ids": batch.input_ids}
        inputs["attention_mask"] = batch.attention_mask
        if self._mixes_logits:
            output = self._run(**inputs)
            mixed = mix(logits_of(output), plan)
            key = 0 if isinstance(output, (tuple, list)) else "logits"
            return replace(output, {(key,): New(mixed)}), plan
        missing = (
            f"{self.layer!r} to be called in the forward, got no call, so nothing was mixed; name "
            "another module with layer="
        )
        return self._run_hooked(plan, 0, missing, **inputs), plan


class _VectorHook(InputHook):
    """The same, for vectors of whole sentences."""

    def _mixed(self, hidden: Any) -> Tensor:
        if isinstance(hidden, Tensor) and hidden.ndim != 2:
            raise ValueError(
                "layer: expected a module whose input is a vector [B, H] for each sentence, got "
                f"shape {list(hidden.shape)}; name the classifier behind the pooling with layer="
            )
        return super()._mixed(hidden)


def _find_layer(model: nn.Module, layer: str | None) -> tuple[str, nn.Module]:
    modules = dict(model.named_modules())
    if layer is None:
        linear = [path for path, module in modules.items() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError(
                "layer: expected a model with an nn.Linear, got none; name the module whose input "
                "is mixed"
            )
        # Some heads are registered in front of the encoder (XLM-RoBERTa, CamemBERT).
        encoder = f"{getattr(model, 'base_model_prefix', '')}."
        name = ([path for path in linear if not path.startswith(encoder)] or linear)[-1]
        return name, modules[name]
    if not isinstance(layer, str):
        raise TypeError(f"layer: expected the name of a module, got {kind(layer)}")
    if layer not in modules or not layer:
        near = difflib.get_close_matches(layer, modules, n=3, cutoff=0.4) or list(modules)[1:9]
        raise ValueError(
            f"layer: expected the name of a module of the model, got {layer!r}; the nearest are "
            f"{near}"
        )
    return layer, modules[layer]
