"""draw_variants: what each variant draws, on every backend alike; what is refused."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from draw_cases import draw_cases
from variant_cases import (
    KINDS,
    NAMES,
    NUMBERS,
    assert_same_variants,
    one_variant,
    record,
    variant_cases,
)

import fused_mixup as fm
from fused_mixup import ops, reference
from fused_mixup.codes import (
    BATCH,
    CUTMIX_ALPHA,
    DRAW_BANDS,
    DRAW_FREQUENCY,
    DRAW_GAMMA,
    DRAW_PLACE,
    DRAW_SHAPE,
    DRAW_SQUARE,
    MASK_RANK,
    MAX_ATTEMPTS,
    MAX_MASK_SIZE,
    MINMAX_HIGH,
    MINMAX_LOW,
    MIXUP_ALPHA,
    PROB,
    STEP_WORD,
    SWITCH_PROB,
    VARIANT_RANKS,
    VERSION_WORD,
)
from fused_mixup.masks import MixMask
from fused_mixup.reference.fmix import frequencies
from fused_mixup.reference.random import Stream, normal, short_uniform, turn

pytestmark = pytest.mark.usefixtures("one_thread")

MASKED = [name for name in NUMBERS if KINDS[name] in VARIANT_RANKS]
COUNTED = ("gridmix", "specmix", "cutmix_seg")


def drawn(*arguments):
    return dict(zip(NAMES, ops.draw_variants(*arguments), strict=True))


def mask_of(parts):
    batch = len(parts["code"])
    tables = (parts[name] for name in ("threshold", "rows", "columns"))
    return MixMask(parts["code"], *(t.expand(batch, *t.shape[1:]) for t in tables))


def words(state, unit, draw):
    return [int(w) for w in Stream(state).words(torch.tensor(unit), draw)]


def uniform(word):
    return (word + 0.5) / 2**32


# ------------------------------------------------------------------ what is drawn


def test_every_backend_gives_the_bits_of_the_reference():
    for args in variant_cases(30, seed=5):
        state, *rest = args
        expected = reference.draw_variants(state.clone(), *rest)
        assert_same_variants(ops.draw_variants(*args), expected)


GOLDEN = {
    "mixup": "c27a97c9",
    "cutmix": "81b05673",
    "hmix": "9370ed38",
    "gridmix": "a1ac6a3d",
    "smoothmix": "5608d79e",
    "gmix": "22c4cb69",
    "fmix": "bff42d50",
    "specmix": "4f527e3a",
    "cutmix_seg": "337440dc",
    "resizemix": "1fe195de",
}


@pytest.mark.parametrize("name", list(NUMBERS))
def test_drawn_numbers_never_change(name):
    """The numbers are part of the interface: a stream that is resumed goes on, on any version."""
    tensors = ops.draw_variants(*one_variant(name, 4, (16, 12)))
    bits = b"".join(t.numpy().tobytes() for t in tensors)
    assert hashlib.md5(bits).hexdigest()[:8] == GOLDEN[name]


def test_mixup_and_cutmix_are_those_of_draw_plan():
    for state, settings, labels, partner, batch, spatial, *rules in draw_cases(40, seed=2):
        numbers = settings.tolist()
        if min(numbers[: CUTMIX_ALPHA + 1]) <= 0 or len(spatial) != 2 or min(spatial) < 1:
            continue
        spatial = [min(n, MAX_MASK_SIZE) for n in spatial]
        expected = ops.draw_plan(state.clone(), settings, labels, partner, batch, spatial, *rules)
        cutmix = record(
            numbers[SWITCH_PROB], numbers[CUTMIX_ALPHA], numbers[MINMAX_LOW : MINMAX_HIGH + 1]
        )
        mixup = record(1.0, numbers[MIXUP_ALPHA], ())
        ours = torch.tensor([numbers[PROB], *cutmix, *mixup], dtype=torch.float64)
        kinds = [KINDS["cutmix"], KINDS["mixup"]]
        got = ops.draw_variants(state, ours, labels, partner, kinds, batch, *spatial, 0, *rules)
        for a, b in zip(got, expected, strict=False):
            assert torch.equal(a, b)


def test_no_two_draws_share_words():
    taken = {*range(6), *range(DRAW_GAMMA, DRAW_GAMMA + 2 * MAX_ATTEMPTS)}
    own = [DRAW_SHAPE, DRAW_BANDS, *range(DRAW_SQUARE, DRAW_SQUARE + MASK_RANK)]
    last = DRAW_FREQUENCY + frequencies(MAX_MASK_SIZE, MAX_MASK_SIZE)
    assert len(set(own)) == len(own) and not taken & set(own)
    assert max(taken) < 64 and last <= 1 << 16  # above are bits of the step


@pytest.mark.parametrize("size", [(31, 44), (8, 8), (1, 5)])
@pytest.mark.parametrize("name", COUNTED)
def test_weights_are_the_mean_of_the_mask(name, size):
    for numbers in NUMBERS[name]:
        parts = drawn(*one_variant(name, 40, size, numbers, rank=MASK_RANK))
        mask = mask_of(parts).dense()
        assert torch.equal(mask, mask.round())
        mean = mask.double().mean((1, 2, 3))
        assert torch.equal(parts["weight"][:, 0], mean.float())
        torch.testing.assert_close(parts["weight"].sum(1), torch.ones(40))


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (1, 1)])
@pytest.mark.parametrize("name", ["smoothmix", "gmix"])
def test_weights_of_bells_are_their_mean(name, size):
    for numbers in NUMBERS[name]:
        parts = drawn(*one_variant(name, 30, size, numbers, alpha=0.7))
        mean = mask_of(parts).dense().double().mean((1, 2, 3))
        torch.testing.assert_close(parts["weight"][:, 0].double(), mean, atol=2e-7, rtol=0)


def test_gridmix_is_the_formula():
    """Holes by Python's arithmetic from the words of docs/drawing.md."""
    args = one_variant("gridmix", 25, (50, 70), (2, 6, 0.5, 2, 0.5, 1, 0.5, 2))
    state = args[0].clone()
    parts = drawn(*args)
    mask = mask_of(parts).dense()[:, 0]
    lam = drawn(*one_variant("mixup", 25, (50, 70)))["blend"][:, 1].tolist()
    for i in range(25):
        place_y, place_x, *_ = words(state, i, DRAW_PLACE)
        holes, ratio, area, aspect = words(state, i, DRAW_SHAPE)
        aspect = 0.5 + 1.5 * uniform(aspect)
        crop_w = min(int(math.sqrt(int(3500 * (0.5 + 0.5 * uniform(area))) / aspect)), 70)
        crop_h = min(int(crop_w * aspect), 50)
        x0, y0 = place_x * (70 - crop_w) >> 32, place_y * (50 - crop_h) >> 32
        holes = min(2 + (holes * 5 >> 32), crop_w // 2)
        period_x = math.ceil(crop_w / holes)
        period_y = int(period_x * (0.5 + 1.5 * uniform(ratio)))
        scale = math.sqrt(lam[i])
        hole_x, hole_y = (min(max(int(p * scale), 1), p - 1) for p in (period_x, period_y))
        expected = torch.ones(50, 70)
        for y in range(y0, y0 + crop_h):
            for x in range(x0, x0 + crop_w):
                if (x - x0) % period_x < hole_x and (y - y0) % period_y < hole_y:
                    expected[y, x] = 0
        assert torch.equal(mask[i], expected), i


def test_smoothmix_and_gmix_are_the_formulas():
    height, width = 24, 31
    y = torch.arange(height, dtype=torch.float64)[:, None]
    x = torch.arange(width, dtype=torch.float64)
    args = one_variant("smoothmix", 20, (height, width))
    state = args[0].clone()
    smooth = mask_of(drawn(*args)).dense()[:, 0]
    bell = mask_of(drawn(*one_variant("gmix", 20, (height, width)))).dense()[:, 0]
    lam = drawn(*one_variant("mixup", 20, (height, width)))["blend"][:, 0].tolist()
    for i in range(20):
        place_y, place_x, *_ = words(state, i, DRAW_PLACE)
        place_y, place_x = place_y * 24 >> 32, place_x * 31 >> 32
        sigma = (0.25 + 0.25 * uniform(words(state, i, DRAW_SHAPE)[0])) * math.sqrt(24 * 31)
        centre = 24 / 2 - 0.5 + place_y - 12, 31 / 2 - 0.5 + place_x - 15
        g = torch.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma**2))
        torch.testing.assert_close(smooth[i].double(), 1 - g, atol=2e-7, rtol=0)
        share = min(lam[i], 1 - lam[i])
        g = torch.exp(-math.pi * ((y - place_y) ** 2 + (x - place_x) ** 2) / (share * 24 * 31))
        g = g if lam[i] < 0.5 else 1 - g
        torch.testing.assert_close(bell[i].double(), g, atol=2e-7, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (12, 20), (15, 9)])
def test_fmix_is_the_image_of_the_published_code(size):
    """A low-frequency image by NumPy's FFT, from the same normal deviates."""
    height, width = size
    args = one_variant("fmix", 5, size)
    state = args[0].clone()
    parts = drawn(*args)
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.fftfreq(width)[: width // 2 + 1 + width % 2]
    decay = np.maximum(np.sqrt(fx * fx + fy * fy), 1.0 / max(size)) ** -3.0
    for i in range(5):
        deviates = np.zeros((height, len(fx), 2))
        for k in range(frequencies(*size)):
            four = Stream(state).words(torch.tensor([i]), DRAW_FREQUENCY + k)
            deviates[:2, k] = torch.stack([normal(short_uniform(w)) for w in four]).view(2, 2)
        spectrum = decay[..., None] * deviates
        spectrum = spectrum[0] + 1j * spectrum[1]  # the axis of rows, where parts are meant
        image = np.fft.irfft2(spectrum, size) * height * width * max(size) ** -3.0
        ours = torch.einsum("kh,kw->hw", parts["rows"][i].double(), parts["columns"][i].double())
        assert np.abs(ours.numpy() - image).max() < 2e-6 * np.abs(image).max()


@pytest.mark.parametrize("size", [(1, 1), (9, 7), (32, 31), (150, 130)])
@pytest.mark.parametrize("per", [BATCH, 2])
def test_fmix_keeps_a_share_of_pixels(size, per):
    pixels, batch = size[0] * size[1], 4 if size[0] > 99 else 30
    for alpha in (0.05, 1.0):
        parts = drawn(*one_variant("fmix", batch, size, alpha=alpha, per=per))
        kept = mask_of(parts).dense().sum((1, 2, 3)).double()
        wanted = parts["weight"][:, 0].double() * pixels
        assert ((kept - wanted).abs() < 1 + 1e-6 * pixels).all()
    both = drawn(*one_variant("fmix", 400, (3, 3)))
    kept = mask_of(both).dense().sum((1, 2, 3)).double()
    above = kept > both["weight"][:, 0].double() * 9
    assert 120 < above.sum() < 280  # rounded up and down


def test_hmix_shows_the_share_of_lambda():
    parts = drawn(*one_variant("hmix", 200, (40, 30), (0.5,)))
    area = (parts["box"][:, 2:] - parts["box"][:, :2]).double().prod(1) / 1200
    own = parts["blend"][:, 0] * (1 - area)
    torch.testing.assert_close(own.float(), parts["weight"][:, 0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(parts["blend"].sum(1), torch.ones(200, dtype=torch.float64))
    assert (area > 0).any()


def test_resizemix_places_lie_inside():
    parts = drawn(*one_variant("resizemix", 500, (40, 30), alpha=0.0))
    start, stop = parts["resize_box"][:, :2], parts["resize_box"][:, 2:]
    side = stop - start
    assert (start >= 0).all() and (stop <= torch.tensor([40, 30])).all()
    assert side[:, 0].min() >= 4 and side[:, 0].max() <= 32
    share = side.double().prod(1) / 1200
    torch.testing.assert_close(parts["weight"][:, 1].double(), share, atol=1e-7, rtol=0)
    assert (parts["blend"] == torch.tensor([1.0, 0.0])).all()


def test_cosines_and_sines_of_turns():
    if np.finfo(np.longdouble).nmant < 60:
        pytest.skip("needs a long double of 64 bits")
    for n in (1, 2, 3, 7, 8, 224, 1000, 65536):
        j = torch.arange(n)
        two_pi = 8 * np.arctan(np.longdouble(1))
        angle = two_pi * j.numpy().astype(np.longdouble) / n
        for got, exact in zip(turn(j, n), (np.cos(angle), np.sin(angle)), strict=True):
            error = np.abs(got.numpy() - exact)
            unit = np.spacing(np.abs(got.numpy()))
            assert (error <= 2.0 * unit + 1e-18).all()
    cosine, sine = turn(torch.arange(4), 4)
    assert cosine.tolist() == [1, 0, -1, 0] and sine.tolist() == [0, 1, 0, -1]


def test_samples_that_share_a_draw_share_its_mask():
    plan = fm.draw_variants(
        6, (20, 20), state=fm.plan_state(1), mix={"fmix": 1, "gridmix": None}, prob=0.9
    )
    assert plan.mask.rows.stride(0) == 0 and plan.mask.code.stride(0) == 1
    pairs = fm.draw_variants(7, (9, 9), state=fm.plan_state(1), mix={"gmix": 1}, per="pair")
    dense = pairs.mask.dense()
    assert torch.equal(dense, dense.flip(0)) and pairs.mask.code[3] == 0


def test_a_state_of_another_version_cannot_be_overlooked():
    args = one_variant("fmix", 4, (8, 8))
    args[0][VERSION_WORD] = 1
    before = args[0].clone()
    parts = drawn(*args)
    assert parts["weight"].isnan().all() and parts["blend"].isnan().all()
    assert not parts["code"].any() and torch.equal(args[0], before)


@pytest.mark.proof
def test_compiled_draws_are_those_of_eager():
    def step(x, state, settings):
        mix = {"fmix": 1.0, "cutmix": 1.0}
        plan = fm.draw_variants(len(x), x.shape[2:], state=state, mix=mix, settings=settings)
        return fm.mix(x, plan), plan.weight

    settings = fm.variant_settings({"fmix": 1.0, "cutmix": 1.0})
    x = torch.rand(4, 1, 12, 10)
    states = fm.plan_state(3), fm.plan_state(3)
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    pairs = list(zip((compiled, step), states, strict=True))
    for _ in range(3):
        for a, b in zip(*(run(x, s, settings) for run, s in pairs), strict=True):
            assert torch.equal(a, b)
    assert states[0].tolist() == states[1].tolist() and states[0][STEP_WORD] == 3
