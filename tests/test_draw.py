"""draw_plan: what is drawn, and how draws are shared."""

from __future__ import annotations

import math

import pytest
import torch
import torch._dynamo.testing
from draw_cases import PAIRING_NAMES, assert_same_plan, draw, draw_cases

import fused_mixup as fm
from fused_mixup import ops, reference
from fused_mixup.codes import DRAW_PLACE, STEP_WORD
from fused_mixup.reference.random import Stream, below, key_schedule, philox, square_root

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("counter_and_key", "words"),
    [
        ([0] * 6, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 6, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers(counter_and_key, words):
    *counter, k0, k1 = (torch.tensor(w) for w in counter_and_key)
    assert [int(w) for w in philox(*counter, key_schedule(k0, k1))] == words


def test_the_counter_is_laid_out_as_documented():
    state = torch.tensor([0, -2, 5 << 20 | 3, 0x0123_89AB_CDEF])
    counter = [torch.tensor(w) for w in (9, 0x0123_0011, 0x89AB_CDEF, 5 << 20 | 3)]
    keys = key_schedule(torch.tensor(0xFFFF_FFFE), torch.tensor(0xFFFF_FFFF))
    assert Stream(state).words(torch.tensor(9), 0x11) == philox(*counter, keys)


def test_every_backend_gives_the_bits_of_the_reference(device):
    for args in draw_cases(60, seed=1):
        state, *rest = args
        expected = reference.draw_plan(state.clone(), *rest)
        there = [a.to(device, copy=True) if isinstance(a, torch.Tensor) else a for a in args]
        assert_same_plan(ops.draw_plan(*there), expected)
        state[STEP_WORD] += 1
        assert torch.equal(there[0].cpu(), state)


def test_square_roots_of_the_reference_are_rounded_to_nearest():
    # MKL does not round its roots to nearest, so PyTorch does not on most CPUs.
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20_000, generator=generator, dtype=torch.float64) * 4
    powers = torch.tensor([2.0**-60, 0.25, 0.5, 1.0, 2.0, 4.0, 9e6], dtype=torch.float64)
    near = powers.view(torch.int64)[:, None] + torch.arange(-300, 300)
    x = torch.cat((x, near.view(torch.float64).flatten(), torch.zeros(1, dtype=torch.float64)))
    assert square_root(x).tolist() == [math.sqrt(v) for v in x.tolist()]


# ------------------------------------------------------------------ partners


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("pairing", PAIRING_NAMES)
def test_partners_are_a_permutation(device, pairing, per):
    if (per, pairing) == ("pair", "roll"):
        pytest.skip("pairing around a circle makes no pairs")
    state = fm.plan_state(3, device=device)
    for n in (0, 1, 2, 3, 8, 33):
        labels = torch.arange(n, device=device) % 5
        plan = draw(n, state=state, per=per, pairing=pairing, labels=labels)
        partner = plan.partner.long()
        everyone = torch.arange(n, device=device)
        assert torch.equal(partner.sort().values, everyone)
        assert plan.is_permutation
        alone = partner == everyone
        if per == "pair":
            assert torch.equal(partner[partner], everyone)
            assert int(alone.sum()) == n % 2
        elif pairing in ("roll", "derangement", "cross_class") and n > 1:
            assert not alone.any()
        if pairing in ("flip", "roll") and per == "batch":
            assert torch.equal(plan.partner, fm.MixPlan.uniform(n, pairing).partner.to(device))
        rows = torch.cat((plan.weight.double(), plan.blend), 1)[alone]
        assert torch.equal(rows, rows.new_tensor([1, 0, 1, 0]).expand_as(rows))


def test_a_derangement_is_one_cycle(device):
    partner = draw(50, pairing="derangement", device=device).partner.tolist()
    at, seen = 0, set()
    while at not in seen:
        seen.add(at)
        at = partner[at]
    assert len(seen) == 50


@pytest.mark.parametrize("per", ["sample", "pair"])
def test_cross_class_meets_its_own_label_as_seldom_as_documented(device, per):
    generator = torch.Generator().manual_seed(1)
    names = torch.tensor([-1, 0, 3, 2**62, -(2**63), 2**32, 2**32 + 1, 5, 6, 7])
    state = fm.plan_state(4, device=device)
    for n in (2, 3, 9, 10, 64):
        for crowd in (0, n // 2, n // 2 + 1, n):
            for classes in (2, 3, 10):
                labels = names[torch.randint(0, classes, (n,), generator=generator)]
                labels[:crowd] = 3
                labels = labels[torch.randperm(n, generator=generator)].to(device)
                plan = draw(n, state=state, pairing="cross_class", per=per, labels=labels)
                partner = plan.partner.long()
                largest = int(labels.unique(return_counts=True)[1].max())
                same = int((labels[partner] == labels).sum())
                at_most = max(2 * largest - n, 0)
                if per == "pair":  # the odd sample is its own partner and has its own label
                    at_most = 2 * max(largest - n // 2, 0) + n % 2
                assert same <= at_most
                assert torch.equal(partner.sort().values, torch.arange(n, device=device))


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
def test_partners_of_the_caller(device, per):
    partner = torch.tensor([2, 2, 2, 0, 4], device=device)
    plan = draw(5, pairing=partner, per=per, device=device)
    assert plan.partner.tolist() == partner.tolist()
    assert plan.is_permutation is (False if device == "cpu" else None)
    mixed = plan.blend[:, 1] > 0
    assert mixed.tolist() == [True, True, False, True, False]  # 2 and 4 are their own partners
    partner.zero_()
    assert plan.partner.tolist() == [2, 2, 2, 0, 4]


# ------------------------------------------------------------------ what is shared


@pytest.mark.parametrize("pairing", ["flip", "shuffle", "derangement", "cross_class"])
def test_what_samples_share(device, pairing):
    n = 9
    options = {
        "cutmix_alpha": 1.0,
        "pairing": pairing,
        "labels": torch.arange(n, device=device) % 4,
        "prob": 0.9,
    }
    state = fm.plan_state(11, device=device)
    distinct = {"batch": set(), "pair": set(), "sample": set()}
    for _ in range(20):
        for per, counts in distinct.items():
            plan = draw(n, (32, 32), state=state, per=per, **options)
            rows = torch.cat((plan.weight.double(), plan.blend, plan.box.double()), 1)
            partner = plan.partner.long()
            mixed = partner != torch.arange(n, device=device)
            if per == "pair":
                assert torch.equal(rows, rows[partner])
            counts.add(len(rows[mixed].unique(dim=0)))
    assert distinct["batch"] == {1}
    assert max(distinct["pair"]) == n // 2
    assert max(distinct["sample"]) > n // 2


def test_a_row_is_one_of_three_kinds(device):
    plan = draw(
        512, (16, 20), per="sample", cutmix_alpha=1.0, prob=0.8, pairing="roll", device=device
    )
    own, other = plan.blend.unbind(1)
    area = (plan.box[:, 2:] - plan.box[:, :2]).prod(1)
    cut = (plan.box != 0).any(1)
    untouched = ~cut & (other == 0)
    assert all(30 < int(kind.sum()) < 400 for kind in (cut, untouched, ~cut & ~untouched))
    assert ((own == 1) & (other == 0))[cut].all()
    share = area.double() / (16 * 20)
    assert torch.equal(plan.weight[cut][:, 1], share[cut].float())
    assert torch.equal(plan.weight[~cut], plan.blend[~cut].float())
    assert (plan.weight[untouched] == plan.weight.new_tensor([1, 0])).all()
    assert (plan.box[:, :2] >= 0).all() and (plan.box[:, :2] <= plan.box[:, 2:]).all()
    assert (plan.box[:, 2:] <= plan.box.new_tensor([16, 20])).all()


@pytest.mark.parametrize("spatial", [(40,), (40, 30), (12, 40, 30)])
def test_boxes_are_those_of_cutmix_box(device, spatial):
    options = {"per": "sample", "pairing": "roll", "device": device}
    n = 200
    share = draw(n, mixup_alpha=0.7, **options).blend[:, 1].tolist()  # the same draws, but blended
    plan = draw(n, spatial, mixup_alpha=0.0, cutmix_alpha=0.7, **options)
    words = Stream(fm.plan_state(7)).words(torch.arange(n), DRAW_PLACE)
    for i in range(n):
        center = [int(below(words[k][i], size)) for k, size in enumerate(spatial)]
        box, lam = fm.cutmix_box(spatial, 1.0 - share[i], center)
        assert plan.box[i].tolist() == list(box)
        assert plan.weight[i, 0].item() == pytest.approx(lam, rel=1e-6)


def test_minmax_boxes_lie_inside_and_weigh_by_area(device):
    options = {"per": "sample", "cutmix_alpha": 1.0, "mixup_alpha": 0.0, "correct_lam": False}
    plan = draw(400, (20, 10), pairing="roll", cutmix_minmax=(0.2, 0.8), device=device, **options)
    sides = plan.box[:, 2:] - plan.box[:, :2]
    for k, n in enumerate((20, 10)):
        assert sides[:, k].unique().tolist() == list(range(int(0.2 * n), int(0.8 * n)))
        assert plan.box[:, k].amin() == 0 and plan.box[:, 2 + k].amax() == n
    assert torch.equal(plan.weight[:, 1], (sides.prod(1).double() / 200).float())


def test_symmetric_keeps_each_sample_dominant(device):
    plan = draw(300, per="sample", pairing="roll", symmetric=True, device=device)
    assert (plan.blend[:, 0] >= 0.5).all()
    plain = draw(300, per="sample", pairing="roll", device=device)
    assert torch.equal(plan.blend, plain.blend.sort(1, descending=True).values)
    assert (plain.blend[:, 0] < 0.5).any()
