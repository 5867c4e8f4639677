"""What is timed: our ops beside the eager lines that users have now, on equal work.

The eager lines follow timm's and torchvision's, with the same λ, box and partners. Each case
checks our result against the reference before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import torch
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

from .timing import rotated

LAM = 0.3


@dataclass
class Case:
    """One comparison. ``bytes`` is what the work must move at least; None: no floor is quoted."""

    name: str
    ours: Callable[[], object]
    peers: dict[str, Callable[[], object]]
    bytes: int | None


def check(got: torch.Tensor, expected: torch.Tensor, name: str, rtol: float = 0.0) -> None:
    if rtol == 0.0:
        assert torch.equal(got, expected), f"{name}: differs from the reference"
    torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol, msg=lambda m: f"{name}: {m}")


def in_turn(tensors: list[torch.Tensor], run: Callable[[torch.Tensor], object]) -> Callable:
    turn = cycle(tensors)
    return lambda: run(next(turn))


def eager_flip(x: torch.Tensor) -> None:  # timm, mode "batch"
    flipped = x.flip(0).mul_(1.0 - LAM)
    x.mul_(LAM).add_(flipped)


def eager_elem(x: torch.Tensor, lam: list[float]) -> None:  # timm, mode "elem"
    original = x.clone()
    for i, own in enumerate(lam):
        x[i] = original[i] * own + original[len(lam) - 1 - i] * (1 - own)


def mixing(device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Iterator[Case]:
    def batch() -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype)

    b, height, width = shape[0], shape[2], shape[3]
    xs = rotated(batch)
    size = xs[0].numel() * xs[0].element_size()
    label = f"{str(dtype).removeprefix('torch.')} {'×'.join(map(str, shape))}"
    out = torch.empty_like(xs[0])
    shuffled = torch.randperm(b, device=device)
    lam = torch.rand(b)
    box, area_lam = fm.cutmix_box((height, width), 0.75, (height // 2, width // 2))
    top, left, bottom, right = box
    at = (slice(None), slice(None), slice(top, bottom), slice(left, right))
    flip = MixPlan.uniform(b, "flip", LAM)
    permutation = MixPlan.uniform(b, shuffled, LAM)
    elem = MixPlan.per_sample(lam, "flip", device=device)
    cut, cut_roll = (MixPlan.uniform(b, rule, area_lam, box) for rule in ("flip", "roll"))

    def eager_cut(x: torch.Tensor) -> None:  # timm
        x[at] = x.flip(0)[at]

    def eager_cut_roll(x: torch.Tensor) -> torch.Tensor:  # torchvision
        rolled = x.roll(1, 0)
        output = x.clone()
        output[at] = rolled[at]
        return output

    for name, plan in (("flip", flip), ("permutation", permutation), ("cut", cut), ("elem", elem)):
        with fm.backend("reference"):
            expected = fm.mix(xs[0], plan)
        check(fm.mix_(xs[0].clone(), plan), expected, name)

    def ours(plan: MixPlan) -> Callable[[], object]:
        return in_turn(xs, lambda x: fm.mix_(x, plan))

    memcpy = {"copy of N": in_turn(xs, lambda x: out.copy_(x))}
    flips = {"timm's lines": in_turn(xs, eager_flip), **memcpy}
    yield Case(f"mix_ flip, {label}", ours(flip), flips, 2 * size)
    gathered = {
        "eager": in_turn(xs, lambda x: x * LAM + x[shuffled] * (1 - LAM)),
        "mix_ flip": ours(flip),
    }
    yield Case(f"mix_ permutation, {label}", ours(permutation), gathered, 2 * size)
    weights = lam.tolist()
    one_by_one = {"timm's elem lines": in_turn(xs, lambda x: eager_elem(x, weights))}
    yield Case(f"mix_ per sample, {label}", ours(elem), one_by_one, 2 * size)
    area = 2 * size * (bottom - top) * (right - left) // (height * width)
    yield Case(f"mix_ CutMix ¼, {label}", ours(cut), {"timm's lines": in_turn(xs, eager_cut)}, area)
    rolls = {"torchvision's lines": in_turn(xs, eager_cut_roll)}
    yield Case(f"mix_ CutMix ¼ roll, {label}", ours(cut_roll), rolls, area)


def losses(device: str, dtype: torch.dtype, batch_size: int, num_classes: int) -> Iterator[Case]:
    smoothing = 0.1

    def logits() -> torch.Tensor:
        z = torch.randn(batch_size, num_classes, device=device).to(dtype)
        return z.requires_grad_()

    zs = rotated(logits)
    labels = torch.randint(0, num_classes, (batch_size,), device=device)
    plan = MixPlan.uniform(batch_size, "flip", LAM)

    def ours(z: torch.Tensor) -> torch.Tensor:
        target = MixedTarget.from_labels(labels, plan, num_classes, smoothing)
        return torch.autograd.grad(fm.soft_target_cross_entropy(z, target), z)[0]

    def dense() -> torch.Tensor:  # timm's mixup_target
        off = smoothing / num_classes
        on = 1.0 - smoothing + off

        def one_hot(y: torch.Tensor) -> torch.Tensor:
            y = y.view(-1, 1)
            return torch.full((len(y), num_classes), off, device=device).scatter_(1, y, on)

        return one_hot(labels) * LAM + one_hot(labels.flip(0)) * (1.0 - LAM)

    def eager(z: torch.Tensor) -> torch.Tensor:  # timm's SoftTargetCrossEntropy
        loss = torch.sum(-dense() * F.log_softmax(z, dim=-1), dim=-1).mean()
        return torch.autograd.grad(loss, z)[0]

    def builtin(z: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(F.cross_entropy(z, dense()), z)[0]

    size = zs[0].numel() * zs[0].element_size()
    label = f"{str(dtype).removeprefix('torch.')} {batch_size}×{num_classes}"
    rtol = 1e-5 if dtype == torch.float32 else 2e-2
    check(ours(zs[0]), eager(zs[0]), label, rtol)
    peers = {
        "timm's lines": in_turn(zs, eager),
        "F.cross_entropy": in_turn(zs, builtin),
    }
    yield Case(f"loss fwd+bwd, {label}", in_turn(zs, ours), peers, 3 * size)


def groups(device: str) -> dict[str, Callable[[], Iterator[Case]]]:
    """The cases of one shape and dtype, by name. Each group is measured in a process of its own."""
    mixes: list[tuple[torch.dtype, tuple[int, ...]]]
    if device == "cuda":
        mixes = [(torch.bfloat16, (1024, 3, 224, 224)), (torch.float32, (256, 3, 224, 224))]
        sizes = [(65536, 1000), (16384, 21841), (1024, 1000)]
        loss_cases = [(torch.bfloat16, *size) for size in sizes]
    else:
        mixes = [(dtype, (64, 3, 224, 224)) for dtype in (torch.float32, torch.bfloat16)]
        loss_cases = [
            (torch.float32, 256, 21843),
            (torch.float32, 256, 1000),
            (torch.bfloat16, 256, 21843),
        ]
    found: dict[str, Callable[[], Iterator[Case]]] = {}
    for dtype, shape in mixes:
        found[f"mix {dtype} {list(shape)}"] = partial(mixing, device, dtype, shape)
    for dtype, batch_size, num_classes in loss_cases:
        name = f"loss {dtype} {batch_size} {num_classes}"
        found[name] = partial(losses, device, dtype, batch_size, num_classes)
    return found
