"""Times losses of maps, of binary labels and of the last layer; every side builds its target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch.torch_version import TorchVersion

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

from ..registry import OURS_TRITON, Case, Provider, Work
from ..sides import LAM, SMOOTHING, our_providers
from ..timing import rotate
from .losses import IN_FORWARD, dense_target, eager_tolerance

Gradients = Callable[[torch.Tensor], torch.Tensor]
GAMMA, Z_LOSS = 2.0, 1e-4
TOLERANCE = (1e-4, 1e-5)  # rtol, atol of the sum's gradient


def _gradient(loss: Gradients) -> Gradients:
    return lambda z: torch.autograd.grad(loss(z), z)[0]


def _work(case: Case, device: str, fused: Gradients, others: dict[str, Gradients]) -> Work:
    """Work that compares gradients of the sum: those of the mean are far smaller."""
    zs = rotate(lambda: torch.randn(case.shape, device=device).to(case.dtype).requires_grad_())
    rows = zs[0].numel() // case.shape[1]
    providers = our_providers(_gradient(fused), device, TOLERANCE)
    providers |= {name: Provider(_gradient(loss), TOLERANCE) for name, loss in others.items()}
    truth = _gradient(next(iter(others.values())))
    size = zs[0].numel() * zs[0].element_size()
    return Work(
        zs,
        providers,
        lambda z: truth(z.detach().double().requires_grad_()).float() * rows,
        size,
        size,
        select=lambda gradient: gradient.float() * rows,
    )


def segmentation(case: Case, device: str) -> Work:
    """Every pixel has its own label and its image's λ."""
    batch_size, num_classes, *size = case.shape
    labels = torch.randint(0, num_classes, (batch_size, *size), device=device)
    plan = MixPlan.uniform(batch_size, "flip", LAM)

    def fused(z: torch.Tensor) -> torch.Tensor:
        target = MixedTarget.from_labels(labels, plan, num_classes, SMOOTHING)
        return fm.soft_target_cross_entropy(z, target)

    def one_hot(y: torch.Tensor) -> torch.Tensor:
        off = SMOOTHING / num_classes
        empty = torch.full(case.shape, off, device=device)
        return empty.scatter_(1, y.unsqueeze(1), 1.0 - SMOOTHING + off)

    def eager(z: torch.Tensor) -> torch.Tensor:
        target = one_hot(labels) * LAM + one_hot(labels.flip(0)) * (1.0 - LAM)
        return torch.sum(-target.to(z.dtype) * F.log_softmax(z, dim=1), dim=1).mean()

    def builtin(z: torch.Tensor) -> torch.Tensor:
        target = one_hot(labels) * LAM + one_hot(labels.flip(0)) * (1.0 - LAM)
        return F.cross_entropy(z, target.to(z.dtype))

    return _work(case, device, fused, {"timm's lines": eager, "F.cross_entropy": builtin})


def binary(case: Case, device: str, **mode: bool) -> Work:
    batch_size, num_classes = case.shape
    labels = torch.randint(0, num_classes, (batch_size,), device=device)
    plan = MixPlan.uniform(batch_size, "flip", LAM)

    def fused(z: torch.Tensor) -> torch.Tensor:
        target = MixedTarget.from_labels(labels, plan, num_classes, SMOOTHING)
        return fm.soft_target_binary_cross_entropy(z, target, sum_classes=True, **mode)

    def timm(z: torch.Tensor) -> torch.Tensor:  # BinaryCrossEntropy(sum_classes=True)
        target = dense_target(labels, num_classes).to(z.dtype)
        loss = F.binary_cross_entropy_with_logits(z, target, reduction="none")
        return loss.sum(-1).mean()

    return _work(case, device, fused, {"timm": timm})


def focal(case: Case, device: str) -> Work:
    """γ and a z-loss, of hard labels that are mixed."""
    batch_size, num_classes = case.shape
    labels = torch.randint(0, num_classes, (batch_size,), device=device)
    plan = MixPlan.uniform(batch_size, "flip", LAM)

    def fused(z: torch.Tensor) -> torch.Tensor:
        target = MixedTarget.from_labels(labels, plan, num_classes)
        return fm.soft_target_cross_entropy(z, target, focal_gamma=GAMMA, z_loss=Z_LOSS)

    def eager(z: torch.Tensor) -> torch.Tensor:
        wide = z if z.dtype == torch.float64 else z.float()
        log_z = wide.logsumexp(1)

        def of(y: torch.Tensor) -> torch.Tensor:
            log_p = wide.gather(1, y.unsqueeze(1)).squeeze(1) - log_z
            return -((1 - log_p.exp()) ** GAMMA) * log_p

        rows = LAM * of(labels) + (1 - LAM) * of(labels.flip(0))
        return (rows + Z_LOSS * log_z.square()).mean()

    return _work(case, device, fused, {"PyTorch": eager})


def binary_focal(case: Case, device: str) -> Work:
    batch_size, num_classes = case.shape
    labels = torch.randint(0, num_classes, (batch_size,), device=device)
    plan = MixPlan.uniform(batch_size, "flip", LAM)

    def fused(z: torch.Tensor) -> torch.Tensor:
        target = MixedTarget.from_labels(labels, plan, num_classes)
        return fm.soft_target_binary_cross_entropy(z, target, focal_gamma=GAMMA, sum_classes=True)

    def eager(z: torch.Tensor) -> torch.Tensor:
        off = F.one_hot(labels, num_classes).to(z.dtype)
        t = off * LAM + off.flip(0) * (1.0 - LAM)
        p, below = z.sigmoid(), torch.sigmoid(-z)
        present, absent = below**GAMMA * -F.logsigmoid(z), p**GAMMA * -F.logsigmoid(-z)
        return (t * present + (1 - t) * absent).sum(1).mean()

    return _work(case, device, fused, {"PyTorch": eager})


def linear(case: Case, device: str) -> Work:
    """The last layer and the loss in one op, without a [B, K] tensor; two steps hold several."""
    batch_size, features, num_classes = case.shape
    labels = torch.randint(0, num_classes, (batch_size,), device=device)
    plan = MixPlan.uniform(batch_size, "flip", LAM)
    weight, x = (torch.randn(n, features, device=device) for n in (num_classes, batch_size))
    weight = (weight / 32).to(case.dtype).requires_grad_()
    xs = [x.to(case.dtype).requires_grad_()]

    def fused(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        target = MixedTarget.from_labels(labels, plan, num_classes)
        loss = fm.linear_soft_target_cross_entropy(x, weight, None, target)
        return torch.autograd.grad(loss, (x, weight))

    def dense() -> torch.Tensor:
        off = F.one_hot(labels, num_classes).float()
        return off * LAM + off.flip(0) * (1.0 - LAM)

    def two_steps(x: torch.Tensor) -> tuple[torch.Tensor, ...]:  # with timm's lines
        z = F.linear(x, weight)
        loss = torch.sum(-dense().to(z.dtype) * F.log_softmax(z, -1), -1).mean()
        return torch.autograd.grad(loss, (x, weight))

    def builtin(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        loss = F.linear_cross_entropy(x, weight, dense().to(x.dtype))
        return torch.autograd.grad(loss, (x, weight))

    def first_rows(gradients: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.cat([g[:64].flatten() for g in gradients]) * batch_size

    providers = our_providers(fused, device, eager_tolerance(case.dtype))
    providers["timm's lines"] = Provider(two_steps, eager_tolerance(case.dtype))
    providers["F.linear_cross_entropy"] = (
        Provider(builtin, eager_tolerance(case.dtype))
        if TorchVersion(torch.__version__) >= (2, 14)
        else "it takes probabilities from PyTorch 2.14 on"
    )
    return Work(xs, providers, lambda x: first_rows(two_steps(x)), select=first_rows)


def cases(device: str) -> Iterator[Case]:
    single, fwd_bwd = torch.float32, "fwd+bwd"
    dtype = single if device == "cpu" else torch.bfloat16
    eager = (OURS_TRITON, "timm's lines", "F.cross_entropy")
    goals = ("cpu segmentation",) if device == "cpu" else ()
    shape = (8, 21, 256, 256)
    op = "soft_target_cross_entropy"
    yield Case(op, f"{fwd_bwd}, maps", shape, dtype, segmentation, "maps", eager, goals=goals)
    goals = ("cpu binary",) if device == "cpu" else ()
    op, shape = "soft_target_binary_cross_entropy", (256, 21843)
    peers: tuple[str, ...] = OURS_TRITON, "timm"
    yield Case(op, fwd_bwd, shape, dtype, binary, "binary", peers, goals=goals)
    build = partial(binary, grad_in_forward=True)
    yield Case(op, f"{fwd_bwd}, {IN_FORWARD}", shape, dtype, build, "binary", peers, goals=goals)
    op, shape, peers = "soft_target_cross_entropy", (256, 21843), (OURS_TRITON, "PyTorch")
    yield Case(op, f"{fwd_bwd}, focal and z-loss", shape, dtype, focal, "focal", peers)
    op = "soft_target_binary_cross_entropy"
    yield Case(op, f"{fwd_bwd}, focal", shape, dtype, binary_focal, "focal", peers)
    goals = ("cpu linear",) if device == "cpu" else ()
    op, shape = "linear_soft_target_cross_entropy", (512, 1024, 100_000)
    peers = (OURS_TRITON, "timm's lines", "F.linear_cross_entropy")
    yield Case(op, fwd_bwd, shape, single, linear, "linear", peers, goals=goals)
    shape = (1024, 768, 21843)
    yield Case(op, fwd_bwd, shape, torch.bfloat16, linear, "linear", peers)
