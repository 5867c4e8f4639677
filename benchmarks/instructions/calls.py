"""The calls that are counted. As a program, it makes each call between two markers.

    python -m benchmarks.instructions.calls stepping|callgrind

The inputs are small: a step costs some ten microseconds. Each has a tail shorter than a vector.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator

import torch

import fused_mixup as fm
from fused_mixup import Erasing, MixedTarget, MixPlan, ops

from . import SKIPPED

B, SHAPE, K = 4, (2, 5, 33), 331
PARTNERS = (2, 0, 3, 1)  # one cycle, no involution
DTYPES = (torch.float32, torch.bfloat16)


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields name and call. A new kernel adds one."""
    torch.manual_seed(0)
    plans = {
        "flip": MixPlan.uniform(B, "flip", 0.3),
        "permutation": MixPlan.uniform(B, torch.tensor(PARTNERS), 0.3),
        "box": MixPlan.uniform(B, "roll", 0.7, (1, 5, 4, 30)),
    }
    for dtype in DTYPES:
        x = torch.randn(B, *SHAPE).to(dtype)
        name = str(dtype).removeprefix("torch.")
        for kind, plan in plans.items():
            yield f"mix_ {kind} {name}", lambda x=x, plan=plan: fm.mix_(x, plan)
        out = torch.empty_like(x)
        plan = plans["flip"]
        yield f"mix flip {name}", lambda x=x, out=out, plan=plan: fm.mix(x, plan, out=out)
    pixels = torch.randint(0, 256, (B, *SHAPE), dtype=torch.uint8)
    yield "mix_ flip uint8", lambda: fm.mix_(pixels, plans["flip"])
    samples = list(pixels.clone().contiguous(memory_format=torch.channels_last))
    yield "mix_samples uint8 HWC", lambda: fm.mix_samples(samples, plans["flip"])
    for name, weights in (("blend", (0.3, 0.7)), ("paste", (0.0, 1.0))):
        yield f"mix_ragged {name} uint8 HWC", _ragged(samples, weights)
    for name, images, plan, options in _normalized(pixels, samples, plans):
        yield (
            f"mix_normalize {name}",
            lambda x=images, plan=plan, options=options: fm.mix_normalize(x, plan, **options),
        )
    half = torch.randn(B, *SHAPE).half()
    yield "mix_ flip float16", lambda: fm.mix_(half, plans["flip"])
    labels = torch.arange(B)
    yield "mix_targets float32", lambda: fm.mix_targets(labels, plans["flip"], K, 0.1)
    for dtype in DTYPES:
        z = torch.randn(B, K).to(dtype).requires_grad_()
        target = MixedTarget.from_labels(labels, plans["flip"], K, 0.1)
        dense = target.dense()
        name = str(dtype).removeprefix("torch.")
        yield f"loss sparse {name}", lambda z=z, t=target: _loss_gradient(z, t)
        yield f"loss dense {name}", lambda z=z, t=dense: _loss_gradient(z, t)
    maps = torch.randn(2, 5, 3, 35).requires_grad_()
    pixels_of = torch.arange(210).view(2, 3, 35) % 5
    mixed = MixedTarget.from_labels(pixels_of, MixPlan.uniform(2, "flip", 0.3), 5, 0.1)
    yield "loss maps float32", lambda: _loss_gradient(maps, mixed)
    logits = torch.randn(B, K).requires_grad_()
    target = MixedTarget.from_labels(labels, plans["flip"], K, 0.1)
    yield "binary loss sparse float32", lambda: _binary_gradient(logits, target)
    hard = MixedTarget.from_labels(labels, plans["flip"], K)
    yield "focal loss float32", lambda: _loss_gradient(logits, hard, focal_gamma=2.0, z_loss=1e-4)
    yield "binary focal loss float32", lambda: _binary_gradient(logits, hard, focal_gamma=2.0)
    yield "ranks float32", lambda: fm.mixed_accuracy(logits, target)
    state = fm.plan_state(0)
    options = {"cutmix_alpha": 1.0, "per": "sample", "pairing": "shuffle"}
    yield "draw_plan", lambda: fm.draw_plan(9, (31, 33), state=state.clone(), **options)


def _ragged(samples: list[torch.Tensor], weights: tuple[float, float]) -> Callable[[], object]:
    """Two pairs of images of different sizes, mixed where both overlap."""
    images = [samples[0], samples[1][:, :4], samples[2], samples[3][:, :, :30]]
    region = torch.tensor([[0, 0, 0, 0, 4, 33]] * 2 + [[0, 1, 0, 0, 5, 30], [0, 0, 0, 1, 5, 30]])
    partner = torch.tensor((1, 0, 3, 2), dtype=torch.int32)
    blend = torch.tensor(weights, dtype=torch.float64).expand(B, 2)
    out = torch.empty(sum(x.numel() for x in images), dtype=images[0].dtype)
    region = region.int()
    return lambda: ops.mix_ragged(images, partner, blend, region, True, out)


def _normalized(
    pixels: torch.Tensor, samples: list[torch.Tensor], plans: dict[str, MixPlan]
) -> Iterator[tuple[str, torch.Tensor | list[torch.Tensor], MixPlan, dict]]:
    half = {"mean": 0.5, "std": 0.25}
    single = {**half, "dtype": torch.float32}
    flip = torch.arange(B) % 2 == 0
    erase = Erasing([[1, 3, 4, 20]] * B, noise=range(B))
    nhwc = pixels.contiguous(memory_format=torch.channels_last)
    yield "flip uint8 to bfloat16", pixels, plans["flip"], half
    yield "box uint8 to bfloat16", pixels, plans["box"], half
    yield "flip NHWC to bfloat16", nhwc, plans["flip"], half
    yield "permutation NHWC to float32", nhwc, plans["permutation"], single
    yield "flip HWC samples, before", samples, plans["flip"], {**single, "mix": "before"}
    yield "flip, mirrored, noise", pixels, plans["flip"], {**half, "flip": flip, "erase": erase}
    floats = pixels.float().div(255)
    yield "flip float32 to float32", floats, plans["flip"], single


def _loss_gradient(
    z: torch.Tensor, target: MixedTarget | torch.Tensor, **options: float
) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(fm.soft_target_cross_entropy(z, target, **options), z)


def _binary_gradient(
    z: torch.Tensor, target: MixedTarget, **options: float
) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(fm.soft_target_binary_cross_entropy(z, target, **options), z)


def main() -> None:
    from fused_mixup import _C

    def marker_for_steps() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    torch.set_num_threads(1)
    # Callgrind recognises a marker by a function's symbol, stepping by a signal.
    marker = _C.cpu_capability if sys.argv[1] == "callgrind" else marker_for_steps
    if sys.argv[1] == "stepping":
        from .stepping import trace_me

        trace_me()
    print(_C.cpu_capability(), flush=True)
    skipped = json.loads(os.environ.get(SKIPPED, "[]"))
    for name, call in calls():
        if name in skipped:
            continue
        call()  # first-use costs are not the kernel's
        print(name, flush=True)
        marker()
        call()
        marker()


if __name__ == "__main__":
    main()
