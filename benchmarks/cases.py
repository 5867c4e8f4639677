"""What is timed: our ops beside the eager lines that users have now, on equal work.

The eager lines follow timm's and torchvision's, with the same λ, box and partners. Each case
checks our result against the reference before it is timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle

import torch
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

from . import installed_peers
from .timing import rotated

LAM = 0.3


@dataclass
class Case:
    """One comparison. ``bytes`` is what the work must move at least; None: no floor is quoted.

    ``clock``: "device" for the work itself, "host" for what a call costs the host, "graph" for the
    work in a CUDA graph. ``goals``, for a GPU of the H200's class: "floor" for the share of the
    floor, "us" for microseconds at most, a peer's name for how many times faster ours should be.
    """

    name: str
    ours: Callable[[], object]
    peers: dict[str, Callable[[], object]]
    bytes: int | None
    clock: str = "device"
    goals: dict[str, float] = field(default_factory=dict)


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


def compiled_flip(x: torch.Tensor) -> None:  # the equation, for torch.compile
    x.copy_(x * LAM + x.flip(0) * (1.0 - LAM))


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
        got = fm.mix_(xs[0].clone(), plan)
        assert torch.equal(got, expected), f"{label} {name}: differs from the reference"
        del got, expected

    def ours(plan: MixPlan) -> Callable[[], object]:
        return in_turn(xs, lambda x: fm.mix_(x, plan))

    memcpy = {"copy of N": in_turn(xs, lambda x: out.copy_(x))}
    flips = {"timm's lines": in_turn(xs, eager_flip), **memcpy}
    if device == "cuda":
        # Our own 16-byte copy, and the equation as the compiler fuses it.
        stay = MixPlan.identity(b)
        flips["mix out of place, identity"] = in_turn(xs, lambda x: fm.mix(x, stay, out=out))
        compiled = torch.compile(compiled_flip, dynamic=False)
        flips["torch.compile"] = in_turn(xs, compiled)
    goals = {"floor": 0.95, "timm's lines": 4.2, "torch.compile": 2.2}
    yield Case(f"mix_ flip, {label}", ours(flip), flips, 2 * size, goals=goals)
    gathered = {
        "eager": in_turn(xs, lambda x: x * LAM + x[shuffled] * (1 - LAM)),
        "mix_ flip": ours(flip),
    }
    goals = {"floor": 0.92 if b <= 256 else 0.86}
    yield Case(f"mix_ permutation, {label}", ours(permutation), gathered, 2 * size, goals=goals)
    weights = lam.tolist()
    one_by_one = {"timm's elem lines": in_turn(xs, lambda x: eager_elem(x, weights))}
    if b <= 256:  # its launches alone would take seconds
        goals = {"timm's elem lines": 60}
        yield Case(f"mix_ per sample, {label}", ours(elem), one_by_one, 2 * size, goals=goals)
    area = 2 * size * (bottom - top) * (right - left) // (height * width)
    cuts = {"timm's lines": in_turn(xs, eager_cut)}
    goals = {"floor": 0.75, "timm's lines": 3.8}
    yield Case(f"mix_ CutMix ¼, {label}", ours(cut), cuts, area, goals=goals)
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

    def twice(z: torch.Tensor) -> torch.Tensor:  # the labels' indices, once each
        own, other = (
            F.cross_entropy(z.float(), y, label_smoothing=smoothing)
            for y in (labels, labels.flip(0))
        )
        return own * LAM + other * (1.0 - LAM)

    size = zs[0].numel() * zs[0].element_size()
    label = f"{str(dtype).removeprefix('torch.')} {batch_size}×{num_classes}"
    check_loss(ours(zs[0]), zs[0], labels, plan, num_classes, smoothing, label)
    peers = {
        "timm's lines": in_turn(zs, eager),
        "F.cross_entropy": in_turn(zs, builtin),
    }
    goals = {"timm's lines": 5.0, "torch.compile": 1.4}
    small = size <= 2**22
    if device == "cuda" and not small:
        fused = torch.compile(twice, dynamic=False)
        peers["torch.compile"] = in_turn(zs, lambda z: torch.autograd.grad(fused(z), z)[0])
    yield Case(f"loss fwd+bwd, {label}", in_turn(zs, ours), peers, 3 * size, goals=goals)
    if device == "cuda" and small:
        # Bound by launches: what the host spends, and what is left in a CUDA graph.
        one = {"timm's lines": partial(eager, zs[0])}
        name = f"loss fwd+bwd, {label}"
        goals = {"us": 25, "timm's lines": 5.0}
        yield Case(f"{name}, host", partial(ours, zs[0]), one, None, "host", goals)
        yield Case(f"{name}, graph", partial(ours, zs[0]), one, None, "graph", {"us": 8})


def other_losses(device: str) -> Iterator[Case]:
    """The binary loss, and the last layer with its loss: our sparse target, eager's dense one."""
    batch_size, num_classes, features = 256, 21843 if device == "cuda" else 10_000, 256
    labels = torch.randint(0, num_classes, (batch_size,), device=device)
    target = MixedTarget.from_labels(labels, MixPlan.uniform(batch_size, "flip", LAM), num_classes)
    zs = rotated(lambda: torch.randn(batch_size, num_classes, device=device).requires_grad_())

    def binary(z: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(fm.soft_target_binary_cross_entropy(z, target), z)[0]

    def eager(z: torch.Tensor) -> torch.Tensor:
        loss = F.binary_cross_entropy_with_logits(z, target.dense())
        return torch.autograd.grad(loss, z)[0]

    torch.testing.assert_close(binary(zs[0]), eager(zs[0]), rtol=1e-5, atol=1e-10)
    shape = f"float32 {batch_size}×{num_classes}"
    peers = {"F.binary_cross_entropy_with_logits": in_turn(zs, eager)}
    yield Case(f"binary loss fwd+bwd, {shape}", in_turn(zs, binary), peers, 12 * zs[0].numel())

    x = torch.randn(batch_size, features, device=device).requires_grad_()
    w = (torch.randn(num_classes, features, device=device) / 16).requires_grad_()

    def linear() -> tuple[torch.Tensor, ...]:
        loss = fm.linear_soft_target_cross_entropy(x, w, None, target)
        return torch.autograd.grad(loss, (x, w))

    def two_steps() -> tuple[torch.Tensor, ...]:
        loss = F.cross_entropy(F.linear(x, w), target.dense())
        return torch.autograd.grad(loss, (x, w))

    for got, expected in zip(linear(), two_steps(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)
    peers = {"F.linear, F.cross_entropy": two_steps}
    yield Case(f"linear and loss fwd+bwd, {shape}", linear, peers, None)


def check_loss(
    got: torch.Tensor,
    z: torch.Tensor,
    labels: torch.Tensor,
    plan: MixPlan,
    num_classes: int,
    smoothing: float,
    name: str,
) -> None:
    """The gradient of the first rows against the reference, in float32 on the same logits.

    Not all rows: the reference's temporaries would be several times the largest logits here.
    """
    n = min(len(z), 256)
    pairs = labels[:n], labels.flip(0)[:n]
    target = MixedTarget(*pairs, plan.weight[:n], num_classes, smoothing)
    exact = z.detach()[:n].float().requires_grad_()
    with fm.backend("reference"):
        loss = fm.soft_target_cross_entropy(exact, target, reduction="sum")
    (expected,) = torch.autograd.grad(loss, exact)
    rtol = 1e-5 if z.dtype == torch.float32 else torch.finfo(z.dtype).eps
    # Of the mean, so each row's gradient is one B-th.
    got = got[:n].float() * len(z)
    torch.testing.assert_close(got, expected, rtol=rtol, atol=2e-6, msg=lambda m: f"{name}: {m}")


def host_costs(device: str) -> Iterator[Case]:
    """What one call costs the host, on tensors so small that nothing else counts."""
    x, z = torch.randn(8, 3, 8, 8, device=device), torch.randn(8, 10, device=device)
    z.requires_grad_()
    labels = torch.randint(0, 10, (8,), device=device)
    plan = MixPlan.uniform(8, "flip", LAM)
    target = MixedTarget.from_labels(labels, plan, 10, 0.1)
    bare = {"bare launch": x.zero_}

    def both() -> torch.Tensor:
        return torch.autograd.grad(fm.soft_target_cross_entropy(z, target), z)[0]

    yield Case("host time of mix_", lambda: fm.mix_(x, plan), bare, None, "host")
    yield Case("host time of loss fwd+bwd", both, bare, None, "host")


def groups(device: str) -> dict[str, Callable[[], Iterator[Case]]]:
    """The cases of one shape and dtype, by name. Each group is measured in a process of its own."""
    mixes: list[tuple[torch.dtype, tuple[int, ...]]]
    if device == "cuda":
        mixes = [(torch.bfloat16, (b, 3, 224, 224)) for b in (1024, 256)]
        sizes = [(65536, 1000), (16384, 21841), (8192, 131072), (1024, 1000)]
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
    found["other losses"] = partial(other_losses, device)
    if device == "cuda":
        found["host"] = partial(host_costs, device)
    return found | _drop_ins(device)


def _drop_ins(device: str) -> dict[str, Callable[[], Iterator[Case]]]:
    if (why := installed_peers.missing()) is not None:
        print(f"left out: the drop-ins, as {why}", file=sys.stderr)
        return {}
    from . import drop_ins  # which takes Case from here

    found = {"timm": drop_ins.timm_mixup, "torchvision": drop_ins.torchvision_mix}
    if device == "cpu":
        found["collate"] = drop_ins.collate
    return {name: partial(cases, device) for name, cases in found.items()}
