"""Half-type logits that are not rounded in between: the checks take the ops of one backend."""

from __future__ import annotations

import torch
from torch import Tensor

from fused_mixup import reference


def logits_of(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Logits whose distances from the maximum no half type holds."""
    generator = torch.Generator().manual_seed(shape[1])
    return torch.randn(shape, generator=generator).mul(3).sub(4).to(dtype)


def check_unrounded(
    ops: object, shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu", truncates=False
) -> None:
    """A loss within a few float32 roundings, a gradient within half a unit in the last place.

    ``truncates``: the gradient is cut to its dtype, which is one whole unit.
    """
    logits = logits_of(shape, dtype)
    b, k, *rest = shape
    labels = torch.randint(0, k, (2, b, *rest), generator=torch.Generator().manual_seed(1))
    weight = torch.stack((torch.linspace(0.3, 0.9, b), torch.linspace(0.7, 0.1, b)), 1)
    dense = torch.softmax(logits.float().roll(1, 1), 1).to(dtype)
    eps, least = torch.finfo(dtype).eps, torch.finfo(dtype).smallest_normal
    rtol, atol = eps * (1.01 if truncates else 0.505) + 1e-5, eps * least + 3e-7

    def near(got: Tensor, want: Tensor, what: str) -> None:
        got = got.cpu()
        if got.dtype == torch.float32:
            torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-7, msg=what)
        else:
            torch.testing.assert_close(got.double(), want, rtol=rtol, atol=atol, msg=what)

    for target in ((labels[0], labels[1], weight), (dense, None, None)):
        for smoothing in (0.0, 0.1):
            args = (*target, None, -100, 0.0, smoothing, 0.0, 0.0, 1)
            wide = [t.double() if t is dense else t for t in args]
            want = reference.soft_target_cross_entropy_grad(logits.double(), *wide, False)
            placed = [t.to(device) if isinstance(t, Tensor) else t for t in args]
            z = logits.to(device)
            loss, grad, _ = ops.soft_target_cross_entropy_grad(z, *placed, False)
            near(loss, want[0], "loss with gradient")
            near(grad, want[1], "gradient with loss")
            loss, stats, count, _ = ops.soft_target_cross_entropy(z, *placed, False)
            near(loss, want[0], "loss")
            one = torch.ones((), device=device)
            grad = ops.soft_target_cross_entropy_backward(one, z, stats, count, *placed)
            near(grad, want[1], "gradient")
        args = (*target, None, None, 0.0, None, 0.0, 1, True)
        wide = [t.double() if t is dense else t for t in args]
        want = reference.soft_target_binary_cross_entropy_grad(logits.double(), *wide)
        placed = [t.to(device) if isinstance(t, Tensor) else t for t in args]
        loss, grad = ops.soft_target_binary_cross_entropy_grad(logits.to(device), *placed)
        near(loss, want[0], "binary loss")
        near(grad, want[1], "binary gradient")
    # All distances but those of the maxima are one number: errors that agree add up in a sum.
    logits = torch.full(shape, 0.4011).to(dtype)
    logits[:, ::8] = 2.5
    args = (labels[0], labels[1], weight, None, -100, 0.0, 0.0, 0.0, 0.0, 1, False)
    want = reference.soft_target_cross_entropy(logits.double(), *args)
    placed = [t.to(device) if isinstance(t, Tensor) else t for t in args]
    near(
        ops.soft_target_cross_entropy(logits.to(device), *placed)[0], want[0], "loss of few values"
    )


# Several tiles of every kernel: a warp's row, a block's, more than one step of the largest block,
# and columns with whole vectors, without, and in slices.
UNROUNDED = ((3, 1000), (2, 4099), (2, 33000), (2, 1000, 8), (2, 1000, 3), (1, 2100, 16))
# The interpreter takes seconds for the larger ones. 9000 classes are two steps of its largest tile.
INTERPRETED = ((3, 1000), (1, 9000), (1, 1000, 8), (1, 600, 3))
