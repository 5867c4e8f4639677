"""Random calls of mix_normalize: the host harness against the reference, bit for bit."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import torch
from comparing import same_bits

from fused_mixup import reference
from fused_mixup.codes import PAIRINGS as RULES

from . import lib
from .batches import BLENDS, ORDERS, PAIRINGS, make_blend, make_partner
from .batches import random as random_values
from .normalize_ops import mix_normalize

INPUTS = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
OUTPUTS = (torch.bfloat16, torch.float16, torch.float32)
# Those of one, three and four channels whose lines are whole groups, of 16 or of 8 pixels; others.
SIZES = ((3, 5, 16), (3, 9, 64), (1, 3, 32), (4, 2, 48), (3, 40, 16), (3, 4, 8), (4, 3, 24))
SIZES += ((1, 5, 8), (3, 5, 7), (2, 3, 16), (1, 1, 1), (5, 6, 4), (6, 2, 32), (3, 1, 16))
LAYOUTS = ("NCHW", "NHWC", "cropped NCHW", "cropped NHWC", "offset", "turned", "every other")
BATCHES = (2, 3, 1, 5)
BOXES = ("none", "host", "rows", "line", "lines")
ERASES = ("none", "none", "value", "values", "noise")


def images(batch, size, dtype, layout, generator):
    """A tensor [B, C, H, W] of this layout, and its storage."""
    c, h, w = size
    channels_last = layout.endswith("NHWC")
    shape = [batch, h, w, c] if channels_last else [batch, c, h, w]
    if layout == "turned":
        shape = [batch, c, w, h]
    elif layout == "every other":
        shape = [batch, c, h, 2 * w]
    elif layout.startswith("cropped"):  # lines lie apart, by whole vectors
        shape[1 if channels_last else 2] += 2
        shape[2 if channels_last else 3] += 16
    base = random_values(shape, dtype, generator)
    if layout == "offset":  # no line starts at a multiple of 16 bytes
        base = random_values([base.numel() + 1], dtype, generator)
        return base[1:].view(shape), base
    x = base.permute(0, 3, 1, 2) if channels_last else base
    if layout == "turned":
        x = x.transpose(2, 3)
    elif layout == "every other":
        x = x[..., ::2]
    return x[:, :, :h, 16 if layout.startswith("cropped") else 0 :], base


def boxes(kind, batch, height, width, generator):
    if kind == "none":
        return torch.empty((batch, 0), dtype=torch.int32)
    rows = 1 if kind == "host" else batch
    sizes = [width] if kind.startswith("line") else [height, width]
    ends = torch.rand((2, rows, len(sizes)), generator=generator) * (torch.tensor(sizes) + 5) - 2
    box = torch.cat((ends.amin(0), ends.amax(0)), 1).int()
    if kind == "line":  # one row for all
        box = box[:1]
    return box.expand(batch, -1) if len(box) == 1 else box


def erasing(kind, size, out, generator):
    if kind == "none":
        return None, None, None
    batch, channels, height, width = out.shape
    n = 1 + size % 3
    ends = torch.rand((2, batch, n, 2), generator=generator)
    ends = ends * (torch.tensor([height, width]) + 5) - 2
    box = torch.cat((ends.amin(0), ends.amax(0)), 2).int()
    if kind == "noise":
        keys = torch.randint(-(2**63), 2**63 - 1, (batch,), generator=generator)
        return box, None, keys
    shape = (1, 1, 1) if kind == "value" else (batch, n, channels)
    return box, torch.randn(shape, generator=generator), None


def constants(rng, channels, scale):
    """Means and deviations; rarely numbers whose quotients lie beyond what is fast."""
    wild = rng.random() < 0.1
    means = (0.0, 0.485, 0.5, rng.random(), 1e-38 * wild)
    stds = (0.229, 1.0, -0.5, 0.01 + rng.random(), 1e-37 if wild else 0.3)
    mean, std = ([scale * rng.choice(some) for _ in range(channels)] for some in (means, stds))
    return mean, std


def calls(count, seed) -> Iterator[tuple]:
    """(order, layouts of images and result, storage of the result, arguments)."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    # The kernel is chosen by these; what remains is drawn.
    kernels = list(itertools.product(SIZES, INPUTS, OUTPUTS))
    for k in range(count):
        size, given, made = kernels[(k * 61 + seed) % len(kernels)]
        batch = rng.choice(BATCHES) if k % 50 else 0
        layouts = [
            rng.choice(("NCHW", "NHWC", rng.choice(LAYOUTS[2:])) if size[2] % 8 == 0 else LAYOUTS)
            for _ in range(2)
        ]
        x, _ = images(batch, size, given, layouts[0], generator)
        if rng.random() < 0.1 and given != torch.uint8 and x.numel():
            x[:, :, 0, 0], x[:1, :, -1, -1] = -0.0, torch.inf
        out, storage = images(batch, size, made, layouts[1], generator)
        pairing = rng.choice(list(PAIRINGS)) if batch else "flip"
        partner = make_partner(pairing, batch, generator)
        if partner is not None and rng.random() < 0.1:
            partner = partner - 1  # clamped
        blend = make_blend(rng.choice(BLENDS), batch, generator)
        box = boxes(rng.choice(BOXES), batch, *size[1:], generator)
        flip = torch.rand(batch, generator=generator) < 0.5 if rng.random() < 0.5 else None
        mean, std = constants(rng, size[0], 255.0 if given == torch.uint8 else 1.0)
        erase = erasing(rng.choice(ERASES), k, out, generator)
        first = rng.random() < 0.4
        args = ([x], partner, blend, box, PAIRINGS[pairing], mean, std, flip, *erase, first, out)
        yield ORDERS[k % len(ORDERS)], (layouts, pairing), storage, args


def check(order, what, storage, args) -> None:
    lib.set_order(order)
    *given, out = args
    expected, before = torch.empty_like(out), storage.clone()
    reference.mix_normalize(*given, expected)
    mix_normalize(*args)
    assert same_bits(out, expected), (what, [g for g in given if not isinstance(g, list)])
    # Outside the result nothing is written.
    for whole in (storage, before):
        whole.as_strided(out.shape, out.stride(), out.storage_offset()).zero_()
    assert same_bits(storage, before), what


def run(count, seed=5) -> int:
    for call in calls(count, seed):
        check(*call)
    return count


def several_passes() -> None:
    """A call that needs both barriers: float results of bytes leave in two passes."""
    generator = torch.Generator().manual_seed(3)
    x, _ = images(2, (3, 4, 64), torch.uint8, "NCHW", generator)
    out, storage = images(2, (3, 4, 64), torch.float32, "NHWC", generator)
    blend = make_blend((0.3, 0.7), 2, generator)
    box = torch.empty((2, 0), dtype=torch.int32)
    args = ([x], None, blend, box, RULES["flip"], [120.0] * 3, [60.0] * 3, None, None, None, None)
    check(0, "several passes", storage, (*args, False, out))


if __name__ == "__main__":  # under the sanitizers, which need a process of their own
    torch.set_num_threads(1)
    print(run(1000), "cases")
