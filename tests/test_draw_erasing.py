"""random_erasing: what is drawn, on every backend alike, compiled or not; what it refuses."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
import torch._dynamo.testing
from erasing_cases import assert_same_erasing, erasing_case, erasing_cases

import fused_mixup as fm
from fused_mixup import ops, reference
from fused_mixup.codes import (
    CONST,
    DRAW_BOOST,
    DRAW_COLOR,
    DRAW_ERASE,
    DRAW_ERASED_BOX,
    DRAW_GAMMA,
    DRAW_MODE,
    DRAW_NEIGHBOR,
    DRAW_NOISE,
    DRAW_ORDER,
    DRAW_PLACE,
    DRAW_SHIFT,
    DRAW_SIDE,
    ERASE_ATTEMPTS,
    MAX_ATTEMPTS,
    MAX_CHANNELS,
    MAX_ERASED,
    PIXEL,
    RAND,
    STEP_WORD,
    VERSION_WORD,
)
from fused_mixup.reference.random import Stream

pytestmark = pytest.mark.usefixtures("one_thread")

NAN, INF = float("nan"), float("inf")


def erase(batch_size=64, spatial=(40, 30), *, state=None, device="cpu", **options):
    state = fm.plan_state(7, device=device) if state is None else state
    return fm.random_erasing(batch_size, spatial, state=state, **options)


# ------------------------------------------------------------------ what is drawn


def test_every_backend_gives_the_bits_of_the_reference(device):
    for args in erasing_cases(45, seed=1):
        state, *rest = args
        expected = reference.draw_erasing(state.clone(), *rest)
        there = [a.to(device, copy=True) if isinstance(a, torch.Tensor) else a for a in args]
        assert_same_erasing(ops.draw_erasing(*there), expected)
        state[STEP_WORD] += 1
        assert torch.equal(there[0].cpu(), state)


def test_no_two_draws_share_words():
    draws = [DRAW_MODE, DRAW_PLACE, DRAW_SIDE, DRAW_BOOST, DRAW_ORDER, DRAW_SHIFT]
    draws += range(DRAW_GAMMA, DRAW_GAMMA + 2 * MAX_ATTEMPTS)
    draws += [DRAW_ERASE, DRAW_NOISE, DRAW_NEIGHBOR]
    for k in range(MAX_ERASED):
        draws += (DRAW_ERASED_BOX + 16 * k + attempt for attempt in range(ERASE_ATTEMPTS))
        draws += (DRAW_COLOR + 32 * k + pair for pair in range(MAX_CHANNELS // 2))
    assert len(set(draws)) == len(draws) and max(draws) < 1 << 16  # above are bits of the step


def boxes_by_hand(state, batch_size, spatial, prob, area, aspect, max_count):
    """The boxes by the formulas of docs/drawing.md, with Python's functions."""
    stream, (height, width) = Stream(state), spatial
    low, high = map(math.log, aspect)

    def words(i, draw):
        return [int(w) for w in stream.words(torch.tensor(i), draw)]

    def uniform(word):
        return (word + 0.5) / 2**32

    found = torch.zeros(batch_size, max_count, 4, dtype=torch.int32)
    for i in range(batch_size):
        decision, count, *_ = words(i, DRAW_ERASE)
        count = 1 + count * max_count // 2**32
        for k in range(count) if decision < prob * 2**32 else ():
            for attempt in range(10):
                a, r, top, left = words(i, DRAW_ERASED_BOX + 16 * k + attempt)
                a = (area[0] + (area[1] - area[0]) * uniform(a)) * height * width / count
                r = math.exp(low + (high - low) * uniform(r))
                h, w = round(math.sqrt(a * r)), round(math.sqrt(a / r))
                if h < height and w < width:
                    top, left = top * (height - h + 1) >> 32, left * (width - w + 1) >> 32
                    if h and w:
                        found[i, k] = torch.tensor((top, left, top + h, left + w))
                    break
    return found


@pytest.mark.parametrize(
    ("spatial", "area", "aspect"),
    [((224, 160), (0.02, 1 / 3), (0.3, 1 / 0.3)), ((9, 31), (0.0, 0.9), (0.2, 20.0))],
)
def test_boxes_are_those_of_the_formulas(device, spatial, area, aspect):
    options = {"prob": 0.6, "area": area, "aspect": aspect, "max_count": 3}
    state = fm.plan_state(-5, rank=3, worker=1)
    got = erase(60, spatial, state=state.to(device, copy=True), **options).box.cpu()
    assert torch.equal(got, boxes_by_hand(state, 60, spatial, **options))
    assert 20 < int((got[:, 0] != 0).any(1).sum()) < 50


def test_drawn_numbers_never_change(device):
    """The numbers are part of the interface: a stream that is resumed goes on, on any version."""
    state = fm.plan_state(7, device=device)
    erasing = erase(4, (224, 224), state=state, prob=0.8, mode="rand", max_count=2)
    assert erasing.box.tolist() == GOLDEN_BOXES
    assert [[[v.hex() for v in c] for c in k] for k in erasing.value[:1].tolist()] == GOLDEN_COLORS
    assert erase(2, (224, 224), state=state, mode="pixel").noise.tolist() == GOLDEN_KEYS


def test_boxes_lie_inside_and_are_smaller(device):
    for spatial in ((40, 30), (7, 50), (2, 2), (1, 9), (0, 5)):
        box = erase(500, spatial, prob=1.0, area=(0.1, 1.0), max_count=3, device=device).box
        start, stop = box[..., :2], box[..., 2:]
        assert (start >= 0).all() and (start <= stop).all()
        assert (stop <= stop.new_tensor(spatial)).all()
        size = stop - start
        assert (size < size.new_tensor(spatial).clamp(min=1)).all()
        empty = (size == 0).any(-1)
        assert (box[empty] == 0).all()
        assert empty.all() == (min(spatial) < 2)


def test_what_decides_of_a_sample(device):
    options = {"area": (0.02, 0.1), "device": device}
    some = erase(1000, max_count=4, prob=0.4, **options).box
    drawn = (some != 0).any(-1)
    assert drawn[:, 0].float().mean().item() == pytest.approx(0.4, abs=0.05)
    assert torch.equal(drawn, drawn.sort(1, descending=True).values)  # the empty ones are the last
    assert drawn[drawn[:, 0]].sum(1).unique().tolist() == [1, 2, 3, 4]
    assert not erase(1000, prob=0.0, **options).box.any()
    assert (erase(1000, prob=1.0, **options).box != 0).any(-1).all()
    whole = erase(64, prob=1.0, max_count=2, **options).box
    part = erase(64, prob=1.0, max_count=2, clean=20, **options).box
    assert torch.equal(part[20:], whole[20:]) and not part[:20].any()
    assert torch.equal(erase(9, prob=1.0, max_count=2, **options).box, whole[:9])


def test_what_fills_the_boxes(device):
    options = {"prob": 0.5, "max_count": 2, "device": device}
    expected = erase(**options).box
    for value in (0.0, 0.1, [0.1, -2.0, 3], torch.tensor([0.1])):
        constant = erase(value=value, **options)
        assert constant.noise is None and constant.value.device.type == device
        wanted = torch.as_tensor(value, dtype=torch.float32).view(1, 1, -1)
        assert torch.equal(constant.value.cpu(), wanted)
        assert torch.equal(constant.box, expected)
    colors = erase(2000, (40, 30), mode="rand", channels=5, **options)
    drawn = (colors.box != 0).any(-1)
    assert torch.equal((colors.value != 0).all(-1), drawn) and colors.value.shape == (2000, 2, 5)
    values = colors.value[drawn].double()
    assert values.mean().abs() < 0.05 and abs(values.std() - 1.0) < 0.05
    assert (torch.corrcoef(values.T) - torch.eye(5, device=device)).abs().max() < 0.15
    noise = erase(mode="pixel", **options)
    assert noise.value is None and noise.noise.unique().numel() == 64
    assert torch.equal(noise.box, expected)


def test_it_is_what_mix_normalize_erases():
    x = torch.randint(0, 256, (8, 3, 20, 24), dtype=torch.uint8)
    constants = {"mean": 0.5, "std": 0.25, "dtype": torch.float32}
    plain = fm.mix_normalize(x, **constants)
    for mode in ("const", "rand", "pixel"):
        erasing = erase(8, (20, 24), prob=0.7, mode=mode, max_count=3)
        got = fm.mix_normalize(x, erase=erasing, **constants)
        inside = torch.zeros(8, 1, 20, 24, dtype=torch.bool)
        for i, k in itertools.product(range(8), range(3)):
            y0, x0, y1, x1 = erasing.box[i, k].tolist()
            inside[i, :, y0:y1, x0:x1] = True
        assert inside.any() and torch.equal(got.where(~inside, 0.0), plain.where(~inside, 0.0))
        assert (got == plain).where(inside, False).float().mean() < 0.01


def test_settings_in_a_tensor_count(device):
    numbers = {"prob": 0.7, "area": (0.1, 0.2), "aspect": (0.5, 2.0)}
    for place in {"cpu", device}:
        settings = fm.erasing_settings(**numbers, device=place)
        drawn = erase(settings=settings, prob=0.0, device=device)
        assert drawn == erase(**numbers, device=device)


def test_one_state_serves_plans_and_erasing(device):
    state = fm.plan_state(4, device=device)
    drawn = [erase(state=state), fm.draw_plan(8, state=state), erase(state=state)]
    assert int(state[STEP_WORD]) == 3 and drawn[0] != drawn[2]
    state = fm.plan_state(4, device=device)
    state[STEP_WORD] = 2
    assert drawn[2] == erase(state=state)


def test_a_state_of_another_version_erases_nothing(device):
    for mode in (CONST, RAND, PIXEL):
        state, *rest = erasing_case(random.Random(2), 40, mode, 3)
        state, rest[0] = state.to(device), fm.erasing_settings(prob=1.0)
        state[VERSION_WORD] += 2**32
        before = state.clone()
        box, value, _ = ops.draw_erasing(state, *rest)
        assert not box.any() and torch.equal(state, before)
        assert mode != RAND or not value.any()


def test_settings_that_no_check_has_seen_give_boxes_inside(device):
    wild = (NAN, INF, -INF, -1.0, 0.0, 1e-320, 1e308, 0.5)
    rng = random.Random(0)
    for _ in range(40):
        settings = torch.tensor([1.0, *(rng.choice(wild) for _ in range(4))], dtype=torch.float64)
        state = fm.plan_state(3, device=device)
        box = ops.draw_erasing(state, settings, [], 30, 30, 20, 2, 3, PIXEL, 0)[0]
        assert (box[..., :2] >= 0).all() and (box[..., :2] <= box[..., 2:]).all()
        assert (box[..., 2:] <= box.new_tensor([30, 20])).all()


# ------------------------------------------------------------------ refused

GOLDEN_BOXES = [
    [[121, 6, 207, 47], [67, 149, 155, 219]],
    [[0, 0, 0, 0], [0, 0, 0, 0]],
    [[0, 0, 0, 0], [0, 0, 0, 0]],
    [[25, 77, 90, 170], [105, 41, 189, 130]],
]
GOLDEN_COLORS = [
    [
        ["-0x1.6324bc0000000p-1", "0x1.04804c0000000p+0", "0x1.702c320000000p-2"],
        ["0x1.3823740000000p-1", "0x1.a756940000000p-5", "-0x1.53bb940000000p+0"],
    ]
]
GOLDEN_KEYS = [4236757068433401565, -63356542905756940]
