"""Random calls of mix_normalize over dtypes, layouts and plans, and the same written by hand."""

from __future__ import annotations

import random

import torch

from fused_mixup import Erasing, MixPlan, backend, mix_normalize

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SOURCES = ("nchw", "nhwc", "crop", "nhwc crop", "turned", "every second", "grey")
RESULTS = ("channels_last", "contiguous", "scattered", "gaps")
INPUTS = (torch.uint8,) * 4 + (torch.float16, torch.bfloat16, torch.float32)
OUTPUTS = (torch.float32, torch.bfloat16, torch.float16)


def images(kind, dtype, b, c, h, w, device="cpu"):
    """[B, C, H, W] in the layout ``kind``."""

    def values(*shape):
        x = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        return x if dtype == torch.uint8 else (x.float() / 255).to(dtype)

    if kind == "nchw":
        return values(b, c, h, w)
    if kind == "nhwc":
        return values(b, h, w, c).permute(0, 3, 1, 2)
    if kind == "crop":
        return values(b, c, h + 3, w + 5)[:, :, 1 : 1 + h, 2 : 2 + w]
    if kind == "nhwc crop":
        return values(b, h + 3, w + 5, c).permute(0, 3, 1, 2)[:, :, 1 : 1 + h, 2 : 2 + w]
    if kind == "turned":  # by EXIF's orientation
        return values(b, w, h, c).permute(0, 3, 2, 1)
    if kind == "every second":
        return values(b, c, 2 * h, 2 * w)[:, :, ::2, ::2]
    return values(b, 1, h, w).expand(b, c, h, w)


def result(kind, dtype, b, c, h, w, device="cpu"):
    """Memory of a result [B, C, H, W], filled with NaN."""
    if kind == "channels_last":
        return torch.full((b, h, w, c), torch.nan, dtype=dtype, device=device).permute(0, 3, 1, 2)
    if kind == "contiguous":
        return torch.full((b, c, h, w), torch.nan, dtype=dtype, device=device)
    if kind == "scattered":
        return torch.full((b, w, c, h), torch.nan, dtype=dtype, device=device).permute(0, 2, 3, 1)
    whole = torch.full((b, h + 1, w + 2, c), torch.nan, dtype=dtype, device=device)
    return whole.permute(0, 3, 1, 2)[:, :, 1:, :w]


def bounds(rng, n):
    return sorted((rng.randint(0, n), rng.randint(0, n)))


def random_box(rng, h, w, dims=2):
    (y0, y1), (x0, x1) = bounds(rng, h), bounds(rng, w)
    return {0: [], 1: [x0, x1], 2: [y0, x0, y1, x1]}[dims]


def random_plan(rng, b, h, w):
    dims = rng.choice((0, 1, 2, 2))
    kind = rng.choice(("none", "uniform", "flip", "permutation", "any"))
    if kind == "none":
        return None
    boxes = [random_box(rng, h, w, dims) for _ in range(b)]
    if kind == "uniform" or b == 0:
        box = boxes[0] if boxes and dims and rng.random() < 0.5 else None
        lam = rng.choice((0.0, 1.0, 0.3, 0.7))
        return MixPlan.uniform(b, rng.choice(("flip", "roll", "self")), lam, box)
    lam = torch.tensor([rng.choice((0.0, 1.0, rng.random())) for _ in range(b)]).double()
    partner = {"flip": "flip", "permutation": torch.randperm(b), "any": torch.randint(0, b, (b,))}
    cut = [rng.random() < 0.6 for _ in range(b)] if dims else None
    plan = MixPlan.per_sample(lam, partner[kind], torch.tensor(boxes) if dims else None, cut)
    if rng.random() < 0.2:  # rows that blend outside their box
        blend = torch.rand(b, 2, dtype=torch.float64)
        plan = MixPlan(plan.partner, plan.weight, blend, plan.box)
    return plan


def random_erasing_of(rng, b, c, h, w):
    n = rng.choice((1, 2, 3))
    boxes = torch.tensor([[random_box(rng, h, w) for _ in range(n)] for _ in range(b)])
    boxes = boxes.view(b, n, 4).int()
    fill = rng.choice(("zero", "colour", "colours", "noise"))
    if fill == "noise":
        return Erasing(boxes, noise=torch.randint(-(2**63), 2**63 - 1, (b,)))
    if fill == "colours":
        return Erasing(boxes, torch.randn(rng.choice((1, b)), rng.choice((1, n)), c))
    return Erasing(boxes) if fill == "zero" else Erasing(boxes, torch.randn(c).tolist())


def random_call(rng, dtypes=(INPUTS, OUTPUTS), largest=224):
    """(images, keyword arguments with ``plan`` and ``out``, description)."""
    dtype, out_dtype = map(rng.choice, dtypes)
    b, c = rng.choice((0, 1, 2, 3, 4, 5, 8)), rng.choice((1, 2, 3, 3, 3, 4, 5))
    h = rng.choice((1, 2, 7, 16, 33, 60))
    w = rng.choice([n for n in (1, 2, 5, 6, 31, 32, 33, 64, 100, 224) if n <= largest])
    source, written = rng.choice(SOURCES), rng.choice(RESULTS)
    arguments = {
        "plan": random_plan(rng, b, h, w),
        "mean": [rng.random() for _ in range(c)],
        "std": [rng.random() + 0.05 for _ in range(c)],
        "mix": rng.choice(("before", "after")),
        "flip": None if rng.random() < 0.4 else torch.rand(b) < 0.5,
        "erase": random_erasing_of(rng, b, c, h, w) if rng.random() < 0.5 else None,
        "layout": "NCHW",
        "out": result(written, out_dtype, b, c, h, w),
    }
    x = images(source, dtype, b, c, h, w)
    x = list(x.unbind(0)) if b and rng.random() < 0.3 else x
    return x, arguments, (dtype, out_dtype, (b, c, h, w), source, written)


def random_results(count, seed=7):
    """(result, that of the reference, description) of random calls."""
    rng = random.Random(seed)
    for _ in range(count):
        x, call, what = random_call(rng)
        expected = call["out"].clone()
        mix_normalize(x, **call)
        with backend("reference"):
            mix_normalize(x, **{**call, "out": expected})
        yield call["out"], expected, what


def by_hand(x, *, plan, mean, std, mix, flip, erase, **_):
    """float32 [B, C, H, W], a sample at a time, in the arithmetic that is promised.

    ``x``: [B, C, H, W]. No noise.
    """
    scale = 255 if x.dtype == torch.uint8 else 1
    m, s = (torch.tensor([v * scale for v in t]).view(-1, 1, 1) for t in (mean, std))
    mirrored = [v.flip(2) if flip is not None and flip[i] else v for i, v in enumerate(x)]
    outs = []
    for i, own in enumerate(mirrored):
        w0, w1, other, box = 1.0, 0.0, own, []
        if plan is not None:
            w0, w1 = plan.blend[i].float().tolist()
            other, box = mirrored[int(plan.partner[i])], plan.box[i].tolist()
        if mix == "after":
            own, other = (own.float() - m) / s, (other.float() - m) / s
        terms = [v.float() * w for v, w in ((own, w0), (other, w1)) if w]
        out = sum(terms) if terms else torch.zeros_like(own.float())
        if (w0, w1) == (1.0, 0.0):
            out = own.float().clone()
        elif mix == "before" and x.dtype == torch.uint8:
            out = out.round().clamp(0, 255)
        if len(box) == 2:
            box = [0, box[0], out.shape[1], box[1]]
        if box:
            at = (slice(None), slice(box[0], box[2]), slice(box[1], box[3]))
            out[at] = other[at].float()
        if mix == "before":
            out = (out - m) / s
        if erase is not None:
            for k, (y0, x0, y1, x1) in enumerate(erase.box[i].tolist()):
                value = erase.value.expand(*erase.box.shape[:2], -1)[i, k].view(-1, 1, 1)
                out[:, y0:y1, x0:x1] = value
        outs.append(out)
    return torch.stack(outs) if outs else x.float()
