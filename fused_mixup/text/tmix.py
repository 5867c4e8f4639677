"""Hidden layers of an encoder mixed: :class:`TMix`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..arguments import integer, integer_tuple
from ..plan.mix_plan import MixPlan
from .blocks import find_blocks
from .checks import check_last_token
from .embeddings import merge_masks
from .hooks import InputHook, LayerHook
from .inputs import samples_dim
from .module import HookedTextMixup, TextBatch


class TMix(HookedTextMixup):
    r"""Call a model of transformers with the state behind one of its layers mixed.

    ``h_i ← λ h_i + (1-λ) h_j`` behind a layer that each call draws from ``layers``, each as likely,
    with ``λ = max(λ', 1-λ')``, ``λ' ~ Beta(α, α)``; the target is ``λ y_i + (1-λ) y_j``::

        tmix = TMix(model, layers=(7, 9, 12))
        for batch in loader:  # input_ids [B, T], attention_mask [B, T], labels [B]
            output, target = tmix(**batch)
            loss = soft_target_cross_entropy(output.logits, target)

    Equivalent to (an encoder written out)::

        mask = torch.maximum(attention_mask, attention_mask[partner])
        for k, layer in enumerate([embed, *model.layers]):
            h = layer(h, mask)
            if k == drawn:
                h = lam * h + (1 - lam) * h[partner]

    Args:
        model: an encoder, decoder or classifier of transformers, or a model whose ``blocks`` are
            named.
        layers: numbers of layers, counted from 1; 0 is what enters the first, the embeddings with
            positions and types. The default is the paper's, for 12 layers.
        alpha: α of λ. The paper has 16; its code's default is 0.75.
        blocks: the name of the ``ModuleList`` of layers, as ``model.named_modules()`` gives it;
            None finds that of transformers' models.
        batch_dim: the dim of samples in the hidden state; None: 1 for XLNet, else 0.
        symmetric: take max(λ, 1-λ), as the paper does.
        num_classes, prob, per, pairing, label_smoothing, ignore_index, dense_targets, seed, rank,
            schedule, off_after_epoch: as in :class:`WordMixup`.

    Called, with shapes and results, as :class:`WordMixup`.

    Raises:
        TypeError, ValueError: as :class:`WordMixup`; layers that the model has not, blocks that are
            not found.
        RuntimeError: a layer that is not called, or is called in a backward.

    Notes:
        The model gets the merged mask before the forward, as its layers turn it into masks of their
        own. So below the mixed layer a sample sees its own padding where its partner is longer; all
        places are blended, padding too, as in the paper's code (which keeps the first mask).

        Of a layer's tuple only the state is mixed. Where layers share a module (ALBERT), calls are
        counted. Hooks are registered here, do nothing without a plan, and go with ``close()`` or
        with this object; a copy of the model is a plain one. Checkpointing by
        ``gradient_checkpointing_enable()`` leaves hooks alone; one around a layer is refused.

        Which layer a call draws is a function of seed, rank and step.

    Source: Chen et al., MixText, 2020, arXiv 2004.12239.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[int] = (7, 9, 12),
        *,
        alpha: float = 16.0,
        blocks: str | None = None,
        batch_dim: int | None = None,
        symmetric: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(model, alpha=alpha, symmetric=symmetric, **options)
        modules, count = find_blocks(self.inner, blocks)
        self.layers = self._stream.layers = _layer_numbers(layers, count)
        self.last_layer: int | None = None
        dim = samples_dim(self.inner) if batch_dim is None else integer("batch_dim", batch_dim)
        shared = len(modules) < count
        # In front of the hooks by which transformers records hidden states.
        hooks = (LayerHook(self._slot, dim, None if shared else k + 1) for k in range(len(modules)))
        for module, hook in zip(modules, hooks, strict=True):
            self._handles.kept.append(module.register_forward_hook(hook, prepend=True))
        enter = InputHook(self._slot, dim)
        self._handles.kept.append(modules[0].register_forward_pre_hook(enter, with_kwargs=True))

    def _check(self, batch: TextBatch) -> None:
        super()._check(batch)
        check_last_token(self.inner, batch.attention_mask)

    def _call(self, plan: MixPlan, batch: TextBatch) -> tuple[Any, MixPlan]:
        mask = batch.attention_mask
        merged = None if mask is None else merge_masks(mask, plan)
        inputs = {**batch.inputs, "input_ids": batch.input_ids, "attention_mask": merged}
        missing = (
            f"layer {self.last_layer} to be called in the forward, got no call, so nothing was "
            "mixed; name the ModuleList that the model calls with blocks="
        )
        return self._run_hooked(plan, self.last_layer or 0, missing, **inputs), plan

    def _draw(self, batch: TextBatch) -> MixPlan:
        self._state_on(batch.input_ids.device)
        self.last_layer = self._draw_layer()
        return super()._draw(batch)


def _layer_numbers(layers: Sequence[int], count: int) -> tuple[int, ...]:
    numbers = integer_tuple("layers", layers)
    if not numbers:
        raise ValueError(f"layers: expected some of 0 to {count}, got none")
    wrong = [k for k in numbers if not 0 <= k <= count]
    if wrong:
        raise ValueError(
            f"layers: expected numbers from 0 to {count}, as the model has {count} layers, got "
            f"{wrong[0]}; the nearest is {min(max(wrong[0], 0), count)}"
        )
    return numbers
