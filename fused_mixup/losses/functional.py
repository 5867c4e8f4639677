"""The losses: checks, then one call into ``cross_entropy`` or ``binary_cross_entropy``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..codes import IGNORE_INDEX, MEAN, NONE
from ..dtypes import arithmetic
from ..schemas import BinaryCrossEntropyArguments
from ..target.mixed_target import MixedTarget
from .accuracy import accuracy_of_ranks, check_topk, dense_accuracy
from .arguments import as_column, binary_target, cross_entropy_arguments, divide_or_nan, promote
from .binary_cross_entropy import binary_cross_entropy
from .checks import (
    check_broadcast_weight,
    check_coefficient,
    check_dense_target,
    check_logits,
    check_modes,
    check_probabilities,
    check_reduction,
    check_target_threshold,
)
from .cross_entropy import cross_entropy


def soft_target_cross_entropy(
    logits: Tensor,  # [B, K, d1, …]
    target: Tensor | MixedTarget,  # [B, K, d1, …] or [B, d1, …]
    *,
    weight: Tensor | None = None,  # [K]
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    z_loss: float = 0.0,
    inplace_backward: bool = False,
    grad_in_forward: bool = False,
    validate: bool = False,
    return_accuracy: bool | Sequence[int] = False,
) -> Any:  # Tensor, or with accuracy a tuple: a union would burden every caller
    """Cross-entropy with soft targets, in one pass over the logits.

    ``loss_i = -Σ_c w_c t'_ic (1-p_ic)^γ log p_ic + z logsumexp(logits_i)²`` with ``p = softmax``,
    ``t' = (1-ε) t + ε/K``. From a :class:`MixedTarget` no [B, K] tensor is ever built.

    Equivalent to (γ and z 0)::

        F.cross_entropy(logits.float(), target_or_target_dense, weight=weight,
                        ignore_index=ignore_index, reduction=reduction,
                        label_smoothing=label_smoothing)

    Args:
        logits: [B, K, d1, …], floating; read where they lie, classes last in memory or not.
        target: a :class:`MixedTarget` with labels [B, d1, …], two or more a row; dense
            probabilities of the shape of the logits, floating, whose rows need not sum to one; or
            int64 class indices [B, d1, …].
        weight: floating [K], the weight of each class.
        ignore_index: terms with this label are left out; a row without others (of weight other
            than 0) has loss 0 and gradient 0, and the mean does not count it. A target's own
            ``ignore_index`` holds where this one is the default.
        reduction: ``"mean"`` (over the rows that count; for class indices with ``weight`` divided
            by the sum of the labels' weights, as F.cross_entropy), ``"sum"`` or ``"none"``.
        label_smoothing: ε in [0, 1], on top of the target's own.
        focal_gamma: γ >= 0 of a focal loss, which gives classes that are learnt less weight. It is
            linear in the target: that of a mix is ``Σ_k weight_k · loss(label_k)``. With smoothing
            or a dense target every class has such a term, and the loss runs in plain PyTorch.
        z_loss: z >= 0, what keeps logits near zero. A row that is ignored has none; class weights
            do not weigh it; a mean divides it as the rest.
        inplace_backward: the backward writes the gradient over the logits, which saves a tensor of
            their size. Then the logits must be no leaf and no view of one, and nothing else may
            need their values: another backward that saved them (of a sigmoid, of a second loss, of
            one on another view of the same tensor) raises PyTorch's error.
        grad_in_forward: the gradient is written in the sweep of the forward, so that the logits
            are read once, and may be freed; the backward scales it.
        validate: check that rows of a target are nonnegative and sum to one. On a GPU this waits
            for the device.
        return_accuracy: also return the top-1 accuracy, from the same sweep, or with numbers k
            a tuple of top-k accuracies, as :func:`mixed_accuracy` defines them.

    Returns:
        A scalar, or [B, d1, …] for ``"none"``; float32 for half and float32 logits, float64 for
        float64 logits or a float64 dense target (then computed in the type of the logits).
        With ``return_accuracy`` (loss, accuracy).

    Raises:
        TypeError: logits that are not floating; a target that is none of the three.
        ValueError: shapes, devices or options that do not fit, both memory modes together, rows
            that ``validate`` refuses.
        IndexError: labels outside [0, K) on the CPU. On a GPU such a row's loss and gradient
            become NaN.
        RuntimeError: from a second backward, or one with ``create_graph``, in a mode without it;
            from a backward with ``inplace_backward`` whose logits were written to.

    Notes:
        Every exponent uses z - max(z), so logits far from zero lose nothing. A target of exactly 0
        drops its term, so a logit of -inf where t is 0 keeps the loss finite (eager gives NaN).
        Deterministic. Double backward works in the default mode, at eager speed. A dense target
        that requires grad gets its gradient (default mode); ``weight`` gets none. A target with
        k > 2 labels a row takes the sweeps of two, and small ops on the k logits of a row; its
        ``grad_in_forward`` reads the logits twice, its accuracy once more for each two labels. With
        ``grad_in_forward`` the gradient of half logits is rounded before it is scaled: with float16
        and a GradScaler, whose scale keeps small gradients from vanishing, use another mode.
        torch.compile and torch.func use the default mode; vmap, jacrev, forward mode (jvp, hessian)
        and torch.func inside torch.compile take the loss in plain PyTorch, which is slower, and a
        label outside [0, K) gives NaN there. On the CPU the memory of a gradient is reused, as that
        of a batch in :func:`fused_mixup.mix`.

    Source: Szegedy et al., 2016, arXiv 1512.00567 (label smoothing); Zhang et al., 2018,
    arXiv 1710.09412; Lin et al., 2017, arXiv 1708.02002 (focal); Chowdhery et al., PaLM, 2022,
    arXiv 2204.02311 (z-loss).
    """
    check_logits(logits)
    check_modes(logits, target, inplace_backward, grad_in_forward)
    options = weight, ignore_index, check_reduction(reduction)
    rest = label_smoothing, focal_gamma, z_loss
    arguments, divisor = cross_entropy_arguments(logits, target, *options, *rest)
    if validate:
        check_probabilities(target)
    topk = check_topk((1,) if return_accuracy is True else return_accuracy or (), "return_accuracy")
    ranked = bool(topk) and arguments[1] is not None
    loss, ranks = cross_entropy(logits, arguments, ranked, inplace_backward, grad_in_forward)
    if divisor is not None:
        loss = divide_or_nan(loss, divisor)
    loss = promote(loss, target)
    if not topk:
        return loss
    if ranked:
        labels, partner_labels, row_weight, _, ignored, *_ = arguments
        sparse = labels, partner_labels, row_weight
        accuracy = accuracy_of_ranks(ranks, *sparse, logits.shape[1], ignored, topk)
    else:
        accuracy = dense_accuracy(logits.detach(), target.detach(), topk)  # type: ignore[union-attr]
    return loss, accuracy[0] if return_accuracy is True else accuracy


def soft_target_binary_cross_entropy(
    logits: Tensor,  # [B, K, d1, …] or [B]
    target: Tensor | MixedTarget,  # as logits, or [B, d1, …]
    *,
    weight: Tensor | None = None,  # broadcasts to the logits
    pos_weight: Tensor | None = None,  # [K]
    target_threshold: float | None = None,
    focal_gamma: float = 0.0,
    sum_classes: bool = False,
    reduction: str = "mean",
    inplace_backward: bool = False,
    grad_in_forward: bool = False,
    validate: bool = False,
) -> Tensor:
    """Binary cross-entropy of every class with soft targets, in one pass over the logits.

    ``loss_ic = -w_c (q_c t_ic (1-p_ic)^γ log p_ic + (1-t_ic) p_ic^γ log(1-p_ic))`` with
    ``p = σ(x)``. From a :class:`MixedTarget` of two labels a row no [B, K] target is ever built;
    of more, the loss reads a dense one of a few samples at a time, its gradient none.

    Equivalent to (γ = 0)::

        F.binary_cross_entropy_with_logits(logits.float(), target_or_target_dense, weight,
                                           pos_weight=pos_weight, reduction=reduction)

    Args:
        logits: [B, K, d1, …], floating. One logit a row, [B, 1, d1, …] or [B], is a binary
            classifier's.
        target: a :class:`MixedTarget` with labels [B, d1, …]; dense targets of the shape of the
            logits, floating (a row with several labels has several ones); or int64 class indices
            [B, d1, …]. For one logit a row indices are 0 (absent) and 1 (present), of two classes:
            the target is the weight of class 1.
        weight: floating, of a shape that broadcasts to that of the logits. One that differs along
            the classes alone ([K], or [K, 1, …] with positions) goes into the kernel; any other is
            applied to the loss of every element in plain PyTorch, which is slower. For logits [B]:
            one number, or [B].
        pos_weight: floating, one for each class (broadcasting as ``weight``): q.
        target_threshold: targets above it count as 1, others as 0, after mixing.
        focal_gamma: γ >= 0. The loss is linear in the target. With hard targets,
            ``weight=1-alpha`` and ``pos_weight=alpha/(1-alpha)`` it is torchvision's
            ``sigmoid_focal_loss(logits, target, alpha, gamma)``.
        sum_classes: sum over the classes first, so that the mean is one over rows.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        inplace_backward, grad_in_forward: memory modes, see :func:`soft_target_cross_entropy`.
        validate: check that rows of a target are nonnegative and sum to one (for one logit a row:
            lie in [0, 1]). On a GPU this waits for the device.

    Returns:
        A scalar; for ``"none"`` the shape of the logits, or [B, d1, …] with ``sum_classes``.
        float32 for half and float32 logits, float64 for float64 logits or a float64 dense target.

    Raises:
        TypeError, ValueError: arguments that do not fit; a target with an ``ignore_index`` of its
            own, for which no class would be right or wrong.
        IndexError: labels outside [0, K) on the CPU. On a GPU, and where labels of a target were
            written to after it was made, such a row becomes NaN.
        RuntimeError: as :func:`soft_target_cross_entropy`.

    Notes:
        ``log(1 + e^-x)`` is computed so that no logit overflows. Deterministic. Double backward
        works in the default mode, at eager speed. A dense target that requires grad gets its
        gradient (zero with ``target_threshold``); the weights get none. torch.func and
        torch.compile: as :func:`soft_target_cross_entropy`.

    Source: Wightman et al., ResNet strikes back, 2021, arXiv 2110.00476; Lin et al., Focal Loss for
    Dense Object Detection, 2017, arXiv 1708.02002.
    """
    if isinstance(logits, Tensor) and logits.ndim == 1:
        check_modes(logits, target, inplace_backward, grad_in_forward)
        if isinstance(target, Tensor) and target.is_floating_point():
            check_dense_target(logits, target)
        loss = soft_target_binary_cross_entropy(
            logits.unsqueeze(1),
            as_column(target, logits),
            weight=as_column(weight, logits),
            pos_weight=as_column(pos_weight, logits),
            target_threshold=target_threshold,
            focal_gamma=focal_gamma,
            sum_classes=sum_classes,
            reduction=reduction,
            inplace_backward=inplace_backward,
            grad_in_forward=grad_in_forward,
            validate=validate,
        )
        return loss.squeeze(1) if loss.ndim == 2 else loss
    check_logits(logits)
    check_modes(logits, target, inplace_backward, grad_in_forward)
    code = check_reduction(reduction)
    class_weight = check_broadcast_weight("weight", weight, logits)
    positive = check_broadcast_weight("pos_weight", pos_weight, logits)
    if pos_weight is not None and positive is None:
        shape = [logits.shape[1], *[1] * (logits.ndim - 2)]
        raise ValueError(
            f"pos_weight: expected one number for each class, {shape}, got {list(pos_weight.shape)}"
        )
    target_threshold = check_target_threshold(target_threshold)
    gamma = check_coefficient("focal_gamma", focal_gamma)
    sparse, smoothing, target_threshold = binary_target(logits, target, target_threshold)
    if validate:
        check_probabilities(target, one_logit=logits.shape[1] == 1)
    modes = inplace_backward, grad_in_forward
    if weight is not None and class_weight is None:
        arguments = BinaryCrossEntropyArguments(
            *sparse, None, positive, smoothing, target_threshold, gamma, NONE, False
        )
        loss = binary_cross_entropy(logits, arguments, *modes)
        loss = loss * weight.to(arithmetic(logits.dtype))
        if sum_classes:
            loss = loss.sum(1)
        loss = loss if code == NONE else loss.mean() if code == MEAN else loss.sum()
    else:
        arguments = BinaryCrossEntropyArguments(
            *sparse, class_weight, positive, smoothing, target_threshold, gamma, code, sum_classes
        )
        loss = binary_cross_entropy(logits, arguments, *modes)
    return promote(loss, target)
