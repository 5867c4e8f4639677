"""Partners with labels near by, as C-Mixup pairs a batch: :func:`draw_neighbors`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import as_tensor, check_choice, check_number, check_plain_tensor, kind
from ..checks import check_memory
from ..codes import MAX_POOL, NEIGHBOR_KERNELS
from ..dtypes import FLOATING
from ..plan.draw_checks import check_state, has_float64
from ..plan.draw_replay import draw_partners
from ..tracing import has_host_values

_BANDWIDTHS = 1e-100, 1e100  # their squares and the inverse of these are normal doubles


def draw_neighbors(
    labels: Tensor,  # [B] or [B, D]
    bandwidth: float | Tensor,
    *,
    state: Tensor,  # [4]
    pool: Tensor | None = None,  # [N] or [N, D]
    kernel: str = "gaussian",
) -> Tensor:
    """Draw each sample's partner among those with labels near by, in one launch, as C-Mixup does.

    ``P(j | i) ∝ exp(-|y_i - y_j|² / (2 h²))``, the sample itself included; with
    ``kernel="tophat"`` all j with ``|y_i - y_j| < h`` are alike.

    Equivalent to (with PyTorch's generator, which gives other numbers)::

        distance = torch.cdist(labels[:, None], labels[:, None])  # [B, B], never held here
        density = torch.exp(-distance.square() / (2 * bandwidth**2))
        torch.multinomial(density, 1)[:, 0].int()

    Args:
        labels: [B] or [B, D], floating, the real-valued labels; D of them form a vector.
        bandwidth: h > 0, in the units of the labels; or float64 [1], on the CPU or the device of
            ``state``, for one that changes during training.
        state: int64 [4] of :func:`plan_state`; advanced by one step.
        pool: [N] or [N, D], the labels to choose from, such as those of the whole data set. None:
            those of the batch.
        kernel: ``"gaussian"`` or ``"tophat"``.

    Returns:
        int32 [B] on the device of ``state``: partners in [0, B), or in [0, N) with a pool. They
        go into a plan: ``draw_plan(B, state=state, mixup_alpha=2.0, pairing=partner)``, or
        ``MixPlan.uniform(B, partner, lam, pool=N)``.

    Raises:
        TypeError, ValueError: an argument that is not as described; labels that are NaN or
            infinite (on the CPU); a state of another device or version.

    Notes:
        Deterministic: a state gives the same partners on every backend, to the bit (docs/tables.md
        specifies them). Takes O(B N) time and O(B + N) memory; a matrix [B, N] is never held.
        Densities below 2^-33 of the nearest's are 0. Where no label of a pool lies within reach,
        the nearest is taken. On a device a label that is not finite is its own partner (or a
        sample of the pool), and a state of another version gives every sample itself.
        Compiles, and under torch.utils.checkpoint draws the same again, as :func:`draw_plan`.

    Source: Yao et al., C-Mixup: Improving Generalization in Regression, 2022, arXiv 2210.05775.
    """
    check_state(state)
    chosen = check_choice("kernel", kernel, NEIGHBOR_KERNELS)
    own = _columns("labels", labels, state)
    others = None if pool is None else _columns("pool", pool, state)
    if pool is not None and others is not None:
        if pool.shape[1:] != labels.shape[1:]:
            raise ValueError(
                f"pool: expected labels of shape {['N', *labels.shape[1:]]} as in labels, got "
                f"{list(pool.shape)}"
            )
        if len(pool) < min(len(labels), 1):
            raise ValueError("pool: expected at least one sample to choose from, got none")
        if own.dtype != others.dtype:
            own, others = own.double(), others.double()
    settings = _settings(bandwidth, state)
    if has_float64(state.device):
        return draw_partners(state, settings, own, others, chosen)
    host = state.cpu()
    theirs = None if others is None else others.cpu()
    partner = draw_partners(host, settings.cpu(), own.cpu(), theirs, chosen)
    state.copy_(host)
    return partner.to(state.device)


def _columns(name: str, labels: Tensor, state: Tensor) -> Tensor:
    """The labels as float32 or float64 [B, D]."""
    check_plain_tensor(name, labels)
    if not isinstance(labels, Tensor) or labels.dtype not in FLOATING:
        raise TypeError(
            f"{name}: expected floating labels [B] or [B, D], got {kind(labels)}; whole numbers "
            "that measure something: .float(); classes have no distance: draw_plan"
        )
    check_memory(name, labels)
    if labels.ndim not in (1, 2) or (labels.ndim == 2 and labels.shape[1] == 0):
        raise ValueError(
            f"{name}: expected shape [B] or [B, D] with D >= 1, got {list(labels.shape)}; "
            "use .flatten(1)"
        )
    if labels.device != state.device:
        raise ValueError(f"{name}: expected them on {state.device} like state, got {labels.device}")
    if len(labels) > MAX_POOL:
        raise ValueError(f"{name}: expected up to {MAX_POOL:,} samples, got {len(labels):,}")
    labels = labels.detach()
    if has_host_values(labels) and not bool(labels.isfinite().all()):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; leave them out")
    if labels.dtype not in (torch.float32, torch.float64):
        labels = labels.float()
    return labels if labels.ndim == 2 else labels.unsqueeze(1)


def _settings(bandwidth: float | Tensor, state: Tensor) -> Tensor:
    """float64 [1], checked where it lies on the host."""
    if isinstance(bandwidth, Tensor):
        near = as_tensor("bandwidth", bandwidth).device in (state.device, torch.device("cpu"))
        if bandwidth.dtype != torch.float64 or bandwidth.shape != (1,) or not near:
            raise TypeError(
                f"bandwidth: expected a number, or float64 [1] on {state.device} or the CPU, got "
                f"{kind(bandwidth)}; torch.tensor([h], dtype=torch.float64)"
            )
        if has_host_values(bandwidth):
            _check_bandwidth(float(bandwidth))
        return bandwidth
    h = _check_bandwidth(check_number("bandwidth", bandwidth))
    return torch.tensor([h], dtype=torch.float64, device="cpu")


def _check_bandwidth(h: float) -> float:
    low, high = _BANDWIDTHS
    if not low <= h <= high:
        raise ValueError(
            f"bandwidth: expected a number in [{low:g}, {high:g}], in the units of the labels, "
            f"got {h}"
        )
    return h
