"""Times mix_embeddings, forward and backward, against index, multiply, add and maximum of masks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fused_mixup import MixPlan
from fused_mixup.text import mix_embeddings

from ..registry import OURS_TRITON, Case, Provider, Work
from ..sides import LAM, our_providers, reference, rounding
from ..timing import rotate

Mixed = tuple[Tensor, Tensor, Tensor]  # embeddings, mask, gradient


def embeddings(case: Case, device: str) -> Work:
    """Sequences of all lengths; partners are any permutation. Both sides give the gradient too."""
    batch_size, length, _ = case.shape
    order = torch.randperm(batch_size, device=device)
    lengths = torch.randint(1, length + 1, (batch_size, 1), device=device)
    mask = (torch.arange(length, device=device) < lengths).long()
    plan = MixPlan.uniform(batch_size, order, LAM, device=device)
    above = torch.randn(case.shape, device=device).to(case.dtype)
    xs = rotate(lambda: torch.randn(case.shape, device=device).to(case.dtype).requires_grad_())

    def ours(x: Tensor) -> Mixed:
        mixed, merged = mix_embeddings(x, mask, plan)
        return mixed.detach(), merged, torch.autograd.grad(mixed, x, above)[0]

    def blend(x: Tensor, e: Tensor) -> Mixed:
        mixed = e * LAM + e[order] * (1 - LAM)
        merged = torch.maximum(mask, mask[order])
        return mixed.detach(), merged, torch.autograd.grad(mixed, x, above)[0]

    tolerance = rounding(case.dtype)
    providers = our_providers(ours, device, tolerance)
    providers["plain PyTorch"] = Provider(lambda x: blend(x, x * mask[..., None]), tolerance)
    # Padding is blended too, as where embeddings of padding are zero.
    providers["eager"] = Provider(lambda x: blend(x, x), checked=False)
    size = 2 * xs[0].numel() * xs[0].element_size()
    return Work(xs, providers, reference(ours), size, size)


def cases(device: str) -> Iterator[Case]:
    shape = (32, 128, 768) if device == "cpu" else (256, 512, 1024)
    goals = ("cpu embeddings",) if device == "cpu" else ()
    peers = (OURS_TRITON, "plain PyTorch", "eager")
    variant = "fwd+bwd, permutation"
    for dtype in (torch.float32, torch.bfloat16):
        marks = goals if dtype == torch.float32 else ()
        yield Case("mix_embeddings", variant, shape, dtype, embeddings, "text", peers, goals=marks)
