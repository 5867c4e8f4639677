"""Times loss and gradient against timm and PyTorch, which use a dense target.

Every side builds its target in the timed call.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

from .. import installed_peers
from ..registry import OURS_TRITON, Case, Provider, Work
from ..sides import LAM, SMOOTHING, compiler, our_providers, reference
from ..timing import rotate

IN_FORWARD = "in the forward"  # grad_in_forward=True: 2N of traffic
CHECKED_ROWS = 256  # are compared: the reference's temporaries are several times the logits


def dense_target(labels: torch.Tensor, num_classes: int) -> torch.Tensor:  # timm's mixup_target
    off = SMOOTHING / num_classes
    on = 1.0 - SMOOTHING + off

    def one_hot(y: torch.Tensor) -> torch.Tensor:
        y = y.view(-1, 1)
        return torch.full((len(y), num_classes), off, device=y.device).scatter_(1, y, on)

    return one_hot(labels) * LAM + one_hot(labels.flip(0)) * (1.0 - LAM)


def logits(case: Case, device: str) -> list[torch.Tensor]:
    def one() -> torch.Tensor:
        return torch.randn(case.shape, device=device).to(case.dtype).requires_grad_()

    return rotate(one)


def first_rows(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of the sum, in float32: a row of the mean's gradient is 1/B of it."""
    return gradient[:CHECKED_ROWS].float() * len(gradient)


def tolerance(dtype: torch.dtype, rows: int) -> tuple[float, float]:
    """In float16 the mean's gradient has subnormal steps, 2^-24; the sum's are rows times that."""
    step = rows * 2.0**-24 if dtype == torch.float16 else 0.0
    return (1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps), 2e-6 + step


def eager_tolerance(dtype: torch.dtype) -> tuple[float, float]:
    """Eager half types round the softmax, which is below 1, before they subtract the target."""
    return (1e-4, 1e-5) if dtype == torch.float32 else (0.05, torch.finfo(dtype).eps)


def mixup(case: Case, device: str, **mode: bool) -> Work:
    """The loss of a batch after MixUp: two labels, two weights, smoothing."""
    batch_size, num_classes = case.shape
    zs = logits(case, device)
    labels = torch.randint(0, num_classes, (batch_size,), device=device)
    plan = MixPlan.uniform(batch_size, "flip", LAM)

    def fused(z: torch.Tensor) -> torch.Tensor:
        target = MixedTarget.from_labels(labels, plan, num_classes, SMOOTHING)
        return torch.autograd.grad(fm.soft_target_cross_entropy(z, target, **mode), z)[0]

    def timm(z: torch.Tensor) -> torch.Tensor:  # SoftTargetCrossEntropy
        target = dense_target(labels, num_classes)
        loss = torch.sum(-target * F.log_softmax(z, dim=-1), dim=-1).mean()
        return torch.autograd.grad(loss, z)[0]

    def builtin(z: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(F.cross_entropy(z, dense_target(labels, num_classes)), z)[0]

    def two_losses(z: torch.Tensor) -> torch.Tensor:  # one with each label
        own, other = (
            F.cross_entropy(z.float(), y, label_smoothing=SMOOTHING)
            for y in (labels, labels.flip(0))
        )
        return own * LAM + other * (1.0 - LAM)

    eager = eager_tolerance(case.dtype)
    providers = our_providers(fused, device, tolerance(case.dtype, batch_size))
    providers["timm's lines"] = Provider(timm, eager)
    if case.sweep is None:
        providers["F.cross_entropy"] = Provider(builtin, eager)
    if case.sweep is None and case.clock == "device":
        fusing = compiler(two_losses, device, eager)
        providers["torch.compile"] = _add_gradient(fusing)
    return _work(zs, providers, labels, plan, SMOOTHING)


def hard(case: Case, device: str) -> Work:
    """The loss with λ = 1 and no smoothing, which other fused losses have too."""
    batch_size, num_classes = case.shape
    zs = logits(case, device)
    labels = torch.randint(0, num_classes, (batch_size,), device=device)
    plan = MixPlan.identity(batch_size)

    def fused(z: torch.Tensor) -> torch.Tensor:
        target = MixedTarget.from_labels(labels, plan, num_classes)
        return torch.autograd.grad(fm.soft_target_cross_entropy(z, target), z)[0]

    def builtin(z: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(F.cross_entropy(z, labels), z)[0]

    eager = eager_tolerance(case.dtype)
    providers = our_providers(fused, device, tolerance(case.dtype, batch_size))
    providers["F.cross_entropy"] = Provider(builtin, eager)
    liger = installed_peers.liger(device)
    if isinstance(liger, str):
        providers["Liger-Kernel"] = liger
    else:
        # It writes the gradient over the logits, and a copy would add time. Timed calls therefore
        # read logits that an earlier call has overwritten; the cost is the same.
        loss = liger()
        run = lambda z: torch.autograd.grad(loss(z, labels), z)[0]  # noqa: E731
        providers["Liger-Kernel"] = Provider(run, eager)
    return _work(zs, providers, labels, plan, 0.0)


def _add_gradient(loss: Provider | str) -> Provider | str:
    if isinstance(loss, str):
        return loss
    return Provider(lambda z: torch.autograd.grad(loss.run(z), z)[0], loss.tolerance)


def _work(
    zs: list[torch.Tensor],
    providers: dict[str, Provider | str],
    labels: torch.Tensor,
    plan: MixPlan,
    smoothing: float,
) -> Work:
    def exact(z: torch.Tensor) -> torch.Tensor:
        """The first rows of the sum's gradient, in float32 on the same logits."""
        rows = min(len(z), CHECKED_ROWS)
        partners = labels.flip(0) if plan.blends else labels
        pairs = labels[:rows], partners[:rows]
        target = MixedTarget(*pairs, plan.weight[:rows], z.shape[1], smoothing)
        z = z.detach()[:rows].float().requires_grad_()
        loss = fm.soft_target_cross_entropy(z, target, reduction="sum")
        return torch.autograd.grad(loss, z)[0]

    # At least 2N bytes: the forward can write the gradient.
    size = zs[0].numel() * zs[0].element_size()
    return Work(zs, providers, reference(exact), size, size, select=first_rows)


PEERS = (OURS_TRITON, "timm's lines", "F.cross_entropy", "torch.compile")


def cases(device: str) -> Iterator[Case]:
    half, single = torch.bfloat16, torch.float32
    if device == "cpu":
        sizes = [(single, 256, 21843), (single, 256, 1000), (half, 256, 21843)]
        sizes += [(torch.float16, 256, 21843), (half, 256, 1000)]
    else:
        sizes = [(half, *s) for s in ((65536, 1000), (16384, 21841), (8192, 131072))]
        sizes += [(half, 1024, 1000), (single, 16384, 1000), (torch.float16, 16384, 1000)]
    op, name = "soft_target_cross_entropy", "fwd+bwd"
    for i, (dtype, rows, k) in enumerate(sizes):
        shape, full = (rows, k), i > (2 if device == "cpu" else 3)
        group = f"{op} {dtype} {shape}"
        goals: tuple[str, ...] = ()
        if i < (1 if device == "cpu" else 3):
            goals = ("cpu cross-entropy" if device == "cpu" else f"cuda cross-entropy {rows}×{k}",)
        in_forward_only = device == "cuda" and bool(goals)  # see goals.py
        kept = () if in_forward_only else goals
        yield Case(op, name, shape, dtype, mixup, group, PEERS, goals=kept, full=full)
        if i == 0 or in_forward_only:
            build, variant = partial(mixup, grad_in_forward=True), f"{name}, {IN_FORWARD}"
            yield Case(op, variant, shape, dtype, build, group, PEERS, goals=goals)
        if i == 0:
            goals = (f"{device} hard labels",)
            peers = (OURS_TRITON, "F.cross_entropy", "Liger-Kernel")
            yield Case(op, f"{name}, hard labels", shape, dtype, hard, group, peers, goals=goals)
        if device == "cuda" and shape == (1024, 1000):
            # Launches dominate here: time the host, and the kernels alone in a CUDA graph.
            clocks = {"host": "cuda launch-bound", "graph": "cuda launch-bound graph"}
            for clock, goal in clocks.items():
                peers = PEERS[:-1]
                yield Case(op, name, shape, dtype, mixup, group, peers, clock=clock, goals=(goal,))
    rows, dtype = (256, single) if device == "cpu" else (4096, half)
    for k in (10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000):
        rare = k not in {10, 100, 1000, 10000, 30000}
        sweep = ("number of classes", k)
        peers = PEERS[:2]
        yield Case(op, name, (rows, k), dtype, mixup, "sweep", peers, sweep=sweep, full=rare)
