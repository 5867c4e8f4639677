"""Checks of the arguments of :func:`draw_plan` and its companions, before anything is drawn."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import check_number, integer, integer_tuple, kind
from ..codes import (
    CROSS_CLASS,
    CUTMIX_ALPHA,
    MAX_BATCH,
    SETTINGS,
    STATE_VERSION,
    STATE_WORDS,
    VERSION_WORD,
)
from ..tracing import has_host_values
from .checks import check_partner_values, is_permutation

# Outside it λ would be 0, 1 or 1/2 in every draw, and the quotients of the algorithm overflow.
ALPHA_RANGE = 1e-6, 1e6
ALPHA_OF_BOUNDS = 1.0  # α of CutMix where cutmix_minmax alone turns it on, as in timm


def check_alpha(name: str, value: float) -> float:
    alpha = check_number(name, value)
    low, high = ALPHA_RANGE
    if alpha != 0.0 and not low <= alpha <= high:
        raise ValueError(
            f"{name}: expected a number in [{low:g}, {high:g}], or 0 to turn this mode off, "
            f"got {value}"
        )
    return alpha


def check_probability(name: str, value: float) -> float:
    probability = check_number(name, value)
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"{name}: expected a probability in [0, 1], got {value}")
    return probability


def check_minmax(bounds: Sequence[float] | None) -> tuple[float, float]:
    """The two bounds, or (0, 0) for none."""
    if bounds is None:
        return 0.0, 0.0
    if not hasattr(bounds, "__len__"):
        raise TypeError(
            f"cutmix_minmax: expected two numbers (low, high) or None, got {kind(bounds)}"
        )
    if isinstance(bounds, (str, Tensor)) or len(bounds) != 2:
        raise ValueError(f"cutmix_minmax: expected two numbers (low, high), got {kind(bounds)}")
    low, high = (check_number("cutmix_minmax", b) for b in bounds)
    if not 0.0 <= low < high <= 1.0:
        raise ValueError(
            "cutmix_minmax: expected 0 <= low < high <= 1, shares of each side, got "
            f"({low}, {high})"
        )
    return low, high


def has_float64(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda", "meta") or _has_float64(device.type)


@functools.cache
def _has_float64(device: str) -> bool:
    """Whether a device has float64: Apple's GPUs and some of Intel's have not."""
    try:
        torch.ones(1, dtype=torch.float64, device=device).mul_(2.0)
    except (TypeError, RuntimeError):
        return False
    return True


def check_state(state: Tensor) -> None:
    """Raise unless ``state`` is one that :func:`plan_state` makes (version: only on the CPU)."""
    remedy = "make one with plan_state(seed, rank, device=…)"
    if not isinstance(state, Tensor):
        raise TypeError(f"state: expected a tensor, got {type(state).__name__}; {remedy}")
    if state.dtype != torch.int64:
        raise TypeError(f"state: expected an int64 tensor, got {state.dtype}; {remedy}")
    if state.shape != (STATE_WORDS,) or not state.is_contiguous():
        raise ValueError(
            f"state: expected {STATE_WORDS} adjacent words, got shape {list(state.shape)} and "
            f"strides {list(state.stride())}; {remedy}"
        )
    # A state on a device is not read: there a draw gives weights of NaN instead.
    if has_host_values(state):
        version = state.tolist()[VERSION_WORD]
        if version != STATE_VERSION:
            raise ValueError(
                f"state: expected version {STATE_VERSION:#x}, got {version:#x}; it was made by "
                f"another version of this package, or is no state: {remedy}"
            )


def check_settings(
    settings: Tensor, state: Tensor, maker: str = "plan_settings", count: int = SETTINGS
) -> None:
    if not isinstance(settings, Tensor) or settings.dtype != torch.float64:
        got = settings.dtype if isinstance(settings, Tensor) else type(settings).__name__
        raise TypeError(f"settings: expected float64 [{count}] of {maker}(), got {got}")
    if settings.shape != (count,) or not settings.is_contiguous():
        raise ValueError(
            f"settings: expected {count} adjacent numbers, as {maker}() makes them, got "
            f"shape {list(settings.shape)} and strides {list(settings.stride())}"
        )
    if settings.device.type != "cpu" and settings.device != state.device:
        raise ValueError(
            f"settings: expected it on {state.device} like state, or on the CPU, got "
            f"{settings.device}; make it with {maker}(…, device={str(state.device)!r})"
        )


def saved_state_error(name: str, state: Tensor) -> str | None:
    """Why a state from a checkpoint cannot be drawn from, or None."""
    version = int(state[VERSION_WORD])
    if version == STATE_VERSION:
        return None
    return (
        f"{name}: expected version {STATE_VERSION:#x}, got {version:#x}; another version of this "
        "package saved it"
    )


def saved_settings_error(
    name: str, settings: Tensor, blends: bool, cuts: bool, scheduled: bool
) -> str | None:
    """Why settings from a checkpoint do not fit the modes of a BatchMix, or None."""
    alphas = settings.tolist()[: CUTMIX_ALPHA + 1]
    modes = ("mixup_alpha", "cutmix_alpha")
    for mode, alpha, on in zip(modes, alphas, (blends, cuts), strict=True):
        if alpha > 0.0 and not on:
            return (
                f"{name}: expected 0 for {mode}, which is off in this BatchMix, got {alpha}; make "
                "it with the modes of the one that was saved"
            )
    # A schedule may turn all modes off for an epoch.
    if not any(alphas) and (blends or cuts) and not scheduled:
        return (
            f"{name}: expected mixup_alpha or cutmix_alpha > 0, got 0 and 0; make this BatchMix "
            "with the modes of the one that was saved"
        )
    return None


def check_box_sizes(spatial: Sequence[int], cutmix_alpha: float) -> None:
    if cutmix_alpha and not spatial:
        raise ValueError(
            f"spatial: expected 1 to 3 sizes for CutMix (cutmix_alpha={cutmix_alpha}), got none; "
            "set cutmix_alpha=0 for MixUp alone"
        )


def check_sizes(batch_size: int, spatial: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    # While compiling, sizes may be symbols, which a conversion to int would pin to one value.
    if not torch.compiler.is_compiling():
        batch_size, spatial = integer("batch_size", batch_size), integer_tuple("spatial", spatial)
    if not 0 <= batch_size <= MAX_BATCH:
        raise ValueError(
            f"batch_size: expected 0 to {MAX_BATCH:,}, got {batch_size}; draw a plan for each part "
            "of a larger batch"
        )
    if len(spatial) > 3:
        raise ValueError(
            f"spatial: expected at most 3 sizes, got {len(spatial)}; leave batch and channel "
            "dims out"
        )
    if any(n < 0 or n >= 2**31 for n in spatial):
        raise ValueError(f"spatial: expected sizes in [0, 2^31), got {list(spatial)}")
    return batch_size, tuple(spatial)


def _check_per_sample(name: str, value: Tensor, batch_size: int, state: Tensor) -> None:
    if value.shape != (batch_size,):
        raise ValueError(
            f"{name}: expected shape [{batch_size}], one for each sample, got {list(value.shape)}"
        )
    if value.device != state.device:
        raise ValueError(
            f"state: expected it on {value.device} like {name}, got {state.device}; make one "
            f"there with plan_state(seed, rank, device={str(value.device)!r})"
        )


def check_drawn_labels(
    labels: Tensor | None, pairing: int, batch_size: int, state: Tensor
) -> Tensor | None:
    """The labels as the op takes them: None where the pairing does not ask for them."""
    if labels is None:
        if pairing == CROSS_CLASS:
            raise ValueError(
                "labels: expected int64 [B] for pairing='cross_class', got None; give the class "
                "of each sample, or use pairing='derangement'"
            )
        return None
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels: expected an int64 tensor [B] of classes, got {got}")
    _check_per_sample("labels", labels, batch_size, state)
    return labels.contiguous() if pairing == CROSS_CLASS else None


def check_given_partner(partner: Tensor, batch_size: int, state: Tensor) -> bool | None:
    """Whether ``partner`` is a permutation, None where only a device knows."""
    if partner.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"pairing: expected int32 or int64 partners [B], got {partner.dtype}")
    _check_per_sample("pairing", partner, batch_size, state)
    if partner.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    check_partner_values(partner, batch_size)
    return is_permutation(partner)
