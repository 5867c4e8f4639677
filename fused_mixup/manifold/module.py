"""Manifold Mixup as a wrapper of the training call: :class:`ManifoldMixup`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import integer
from ..batch_mix.epochs import PlanLaw, Schedule
from ..batch_mix.labels import Targets
from ..mixing import mix
from ..plan.mix_plan import MixPlan
from ..tracing import call_eagerly
from .checks import check_inputs, heads_of
from .hidden import Axes
from .hooks import INPUT, Call, Hooks
from .layers import Predicate, find_layers, inner_model
from .model_mixup import ModelMixup


class ManifoldMixup(ModelMixup):
    r"""Call a model with one of its hidden states mixed, drawn anew for each call.

    ``h_i ← λ h_i + (1-λ) h_j`` at one of ``layers``, or at the input, with ``λ ~ Beta(α, α)``; the
    target is ``λ y_i + (1-λ) y_j``. The blend is :func:`mix`, placed by a forward hook::

        manifold = ManifoldMixup(model, layers=["layer1", "layer2"], alpha=2.0)
        for x, labels in loader:
            logits, target = manifold(x, labels)  # x [B, C, H, W], labels [B]
            loss = soft_target_cross_entropy(logits, target)

    Equivalent to (a model of three parts)::

        h, layer = x, rng.integers(3)
        for k, part in enumerate((first, second, third)):
            if k == layer:
                h = lam * h + (1 - lam) * h[partner]
            h = part(h)
        y = F.one_hot(labels, K)
        h, lam * y + (1 - lam) * y[partner]

    Args:
        model: the model, also inside torch.compile, DistributedDataParallel or fully_shard. Its
            code, ``state_dict`` and copies stay as they are.
        layers: names of modules, as ``model.named_modules()`` gives them, or a function of (name,
            module). Each call draws one of them, each as likely.
        include_input: the input is drawn too, as one layer more.
        alpha: α of λ where values are blended; 0 turns this mode off. The paper has 2 for CIFAR.
        cutmix: α of CutMix, whose boxes are drawn in the sizes of the feature map; 0 turns it off.
        num_classes: K of labels that are class indices; None takes the logits' ``shape[1]``. For
            several heads a dict or list of them.
        switch_prob, prob, per, pairing, cutmix_minmax, correct_lam, symmetric: as in
            :func:`draw_plan`; ``pairing`` by name.
        label_smoothing, ignore_index, dense_targets, seed, rank, schedule, off_after_epoch: as in
            :class:`BatchMix`.
        batch_dim: the dim of samples in what the layers return: 1 for XLNet's [T, B, H].
        channel_dim: the dim of channels there, for CutMix: -1 for tokens [B, N, C] and feature maps
            [B, H, W, C] (Swin). By default 1, and tokens are refused. That of the input is 1.
        compiled: the model is compiled as a whole, so that its hooks are set now and stay. None
            sees what ``torch.compile(model)`` returns, and blocks made so; after
            ``model.compile()`` give True.

    Called with ``(x, labels, …)``; all but ``labels`` goes to the model.

    Shapes:
        x: [B, …]. None where the model takes keywords alone.
        labels: int64 [B], or floats [B, …], or a dict, list or tuple of those, one for each head.

    Returns:
        What the model returned, and the target: a :class:`MixedTarget` of class indices (dense
        with ``dense_targets``), floats blended by :func:`mix_labels`. In eval mode (of the model or
        of this) the plain model's output and the labels as they are, None too.

    Raises:
        ValueError: names that match no module, labels that are missing or of another size, a layer
            whose batch is of another size than the input.
        TypeError: a layer that returns no floating hidden state; ids where the input is mixed.
        RuntimeError: a layer that is called twice in one forward, or not at all; a call inside
            another, inside a backward, or after :meth:`close`.

    Notes:
        Only the hidden state is mixed: of tuples the first entry, of dicts and dataclasses
        ``last_hidden_state``, else the first; the type stays.

        Hooks live for one call, also where it raises; those of layers inside a region of
        torch.utils.checkpoint and of compiled models until :meth:`close`. In a recompute the layer
        is mixed as in its forward.

        Which layer a call draws is a function of seed, rank and step. ``state_dict()`` of this
        module (it holds no parameters, and not the model's) resumes both streams to the bit.

    Source: Verma et al., Manifold Mixup, 2019, arXiv 1806.05236; Yun et al., CutMix, 2019,
    arXiv 1905.04899.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | Predicate,
        *,
        include_input: bool = True,
        alpha: float = 2.0,
        cutmix: float = 0.0,
        num_classes: Any = None,
        switch_prob: float = 0.5,
        prob: float = 1.0,
        per: str = "batch",
        pairing: str = "flip",
        cutmix_minmax: Sequence[float] | None = None,
        correct_lam: bool = True,
        symmetric: bool = False,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        dense_targets: bool = False,
        batch_dim: int = 0,
        channel_dim: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        schedule: Schedule | None = None,
        off_after_epoch: int | None = None,
        compiled: bool | None = None,
    ) -> None:
        super().__init__(model)
        found, inside = find_layers(self.inner, layers)
        self._sees_compiled = compiled is None
        if compiled is None:
            compiled = inner_model(model)[1]
        elif not compiled:
            inside = set()
        self.layers = (*((INPUT,) if include_input else ()), *found)
        if not self.layers:
            raise ValueError("layers: expected at least one, got none and include_input=False")
        self.batch_dim = integer("batch_dim", batch_dim)
        self.channel_dim = None if channel_dim is None else integer("channel_dim", channel_dim)
        self._stream.layers = self.layers
        targets = Targets(num_classes, label_smoothing, ignore_index, bool(dense_targets))
        modes = alpha, cutmix, switch_prob, prob, cutmix_minmax
        law = PlanLaw(*modes, schedule, off_after_epoch)
        rules: dict[str, Any] = {"per": per, "pairing": pairing}
        rules |= {"correct_lam": bool(correct_lam), "symmetric": bool(symmetric)}
        self._set_up(targets, law, rules, seed, rank)
        axes = Axes(self.batch_dim, self.channel_dim)
        self._hooks = Hooks(found, axes, set(found) if compiled else inside, bool(compiled))

    # ---------------------------------------------------------------- a step

    @property
    def last_layer(self) -> str | None:
        """The layer that the last training call mixed, ``"input"`` for the input."""
        return self._stream.last[0]

    @property
    def last_plan(self) -> MixPlan | None:
        """The plan by which it was mixed."""
        return self._stream.last[1]

    def forward(self, x: Any = None, labels: Any = None, *args: Any, **kwargs: Any) -> Any:
        """What the model returns, and the target; see the class."""
        if torch.compiler.is_compiling():  # the host draws the layer
            return call_eagerly(self._step, x, labels, args, kwargs)
        return self._step(x, labels, args, kwargs)

    def _step(self, x: Any, labels: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._mixes:
            return self._plain(x, args, kwargs), labels
        self._hooks.check_idle()
        self._check_step()
        size = check_inputs(x, labels, INPUT in self.layers, self._targets, self._law.cuts)
        inputs = (x, *args, *kwargs.values())
        shapes = tuple(v.shape for v in inputs if isinstance(v, Tensor))
        call = self._begin(x, labels, size, shapes)
        if call.layer == INPUT:
            x = mix(x, self._plan_of_input(call, x))
        output = self._hooks.run(call, shapes, lambda: self._plain(x, args, kwargs))
        assert call.plan is not None
        self._stream.last = call.layer, call.plan
        return output, self._target(labels, call.plan, output)

    def _plain(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if x is None and not args:
            return self.model(**kwargs)
        return self.model(x, *args, **kwargs)

    def _begin(self, x: Any, labels: Any, size: int, shapes: Any) -> Call:
        first = next(iter(heads_of(labels))) if x is None else x
        state, stream = self._state_on(first.device), self._stream
        law, rules, settings, classes = self._law, self._rules, self.settings, self._classes(labels)

        def draw(spatial: tuple[int, ...], again: bool) -> MixPlan:
            plan = law.draw(state, settings, size, spatial, classes, rules)[0]
            stream.steps += not again
            return plan

        call = Call(self._draw_layer(), size, draw)
        call.cuts = law.cuts
        sizes = self._hooks.known_sizes(call.layer, shapes) if call.cuts else ()
        if sizes is None:
            call.draws = True
        else:
            call.draw(sizes)
        return call

    def _plan_of_input(self, call: Call, x: Tensor) -> MixPlan:
        if call.plan is not None:
            return call.plan
        return call.draw(tuple(x.shape[d] for d in Axes(0, 1).spatial(INPUT, x)))

    def call_through(self, model: nn.Module) -> None:
        super().call_through(model)
        if self._sees_compiled and inner_model(model)[1]:
            self._hooks.keep()

    def close(self) -> None:
        """Remove all hooks. Then only the plain model can be called, in eval mode."""
        self._hooks.close()

    def __enter__(self) -> ManifoldMixup:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def extra_repr(self) -> str:
        return f"layers={list(self.layers)}, {super().extra_repr()}"
