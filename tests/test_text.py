"""``mix_embeddings`` against the plain way, and which tokens SSMix moves."""

from __future__ import annotations

import pytest
import torch
from text_cases import B, H, T, by_hand, masks, plans, spans_by_hand

import fused_mixup
from fused_mixup import MixPlan, mix_rectangles
from fused_mixup.text import mix_embeddings, span_plan
from fused_mixup.text.inputs import counted_positions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("plan", plans())
@pytest.mark.parametrize("side", ["right", "left"])
def test_mix_embeddings_is_the_plain_way(plan, side):
    plan, mask = plans()[plan], masks(side)
    e, up = torch.randn(2, B, T, H, dtype=torch.float64)
    x, y = (e.clone().requires_grad_() for _ in range(2))
    mixed, merged = mix_embeddings(x, mask, plan)
    expected, union = by_hand(y, mask, plan)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)
    assert torch.equal(merged, union) and merged.dtype == mask.dtype
    (mixed * up).sum().backward()
    (expected * up).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)
    assert not x.grad[mask == 0].any()


def test_gradients_of_gradients():
    plan, mask = plans()["per sample"], masks()[:, :2]
    e = torch.randn(B, 2, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: mix_embeddings(t, mask, plan)[0].sin(), e)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
def test_a_merged_mask_keeps_its_dtype(dtype):
    merged = mix_embeddings(torch.randn(B, T, H), masks(dtype=dtype), plans()["flip"])[1]
    expected = masks().bool() | masks().bool().flip(0)
    assert merged.dtype == dtype and torch.equal(merged.bool(), expected)


def test_padding_never_comes_in():
    mask, plan = masks(), plans()["tensor"]
    e = torch.randn(B, T, H)
    clean = mix_embeddings(e * mask[..., None], mask, plan)[0]
    dirty = torch.where(mask[..., None] == 0, torch.nan, e)
    assert torch.equal(mix_embeddings(dirty, mask, plan)[0], clean)


def test_what_has_no_weight_leaves_the_mask_alone():
    e, mask = torch.randn(B, T, H), masks()
    for lam, expected in ((1.0, mask), (0.0, mask.flip(0))):
        mixed, merged = mix_embeddings(e, mask, MixPlan.uniform(B, "flip", lam))
        assert torch.equal(merged, expected)
        source = e if lam else e.flip(0)
        assert torch.equal(mixed, source * expected[..., None])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_and_strides(dtype):
    plan, mask = plans()["flip"], masks()
    e = torch.randn(T, B, H).to(dtype).transpose(0, 1)
    mixed = mix_embeddings(e, mask, plan)[0]
    expected = by_hand(e.double(), mask, plan)[0]
    assert mixed.dtype == dtype
    rounding = torch.finfo(dtype).eps * 2
    torch.testing.assert_close(mixed.double(), expected, rtol=rounding, atol=rounding)


def test_without_a_mask_it_is_mix():
    e, plan = torch.randn(B, T, H), plans()["roll"]
    mixed, merged = mix_embeddings(e, None, plan)
    assert merged is None and torch.equal(mixed, fused_mixup.mix(e, plan))


def test_an_empty_batch():
    mixed, merged = mix_embeddings(
        torch.empty(0, T, H), torch.empty(0, T, dtype=torch.long), MixPlan.uniform(0, "flip", 0.5)
    )
    assert mixed.shape == (0, T, H) and merged.shape == (0, T)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_backends_agree(backend):
    e, mask, plan = torch.randn(B, T, H), masks(), plans()["per sample"]
    with fused_mixup.backend(backend):
        mixed = mix_embeddings(e, mask, plan)[0]
    expected = by_hand(e.double(), mask, plan)[0]
    torch.testing.assert_close(mixed.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.proof
def test_compiled():
    e, mask, plan = torch.randn(B, T, H, requires_grad=True), masks(), plans()["per sample"]

    def step(e, mask):
        mixed, merged = mix_embeddings(e, mask, plan)
        return (mixed * merged[..., None]).sin().sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert torch.autograd.grad(compiled(e, mask), e)[0].equal(
        torch.autograd.grad(step(e, mask), e)[0]
    )


E_, M_ = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.long)
FLIP = MixPlan.uniform(2, "flip", 0.5)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((M_, M_, FLIP), TypeError, "get_input_embeddings"),
        (([1.0], M_, FLIP), TypeError, "expected a tensor"),
        ((torch.zeros(2, 4), M_, FLIP), ValueError, r"mix\(x, plan\)"),
        ((E_, M_[:1], FLIP), ValueError, r"expected shape \[2, 3\]"),
        ((E_, M_[:, None].expand(2, 3, 3), FLIP), ValueError, "packed or 4-d"),
        ((E_, [1, 1], FLIP), TypeError, "attention_mask: expected a tensor"),
        ((E_, M_ * torch.tensor([[1], [0]]), FLIP), ValueError, "none in 1 of 2.*empty texts"),
        ((E_, M_, MixPlan.uniform(3, "flip", 0.5)), ValueError, "batch size"),
        ((E_, M_, MixPlan.uniform(2, "flip", 0.5, (0, 2))), ValueError, "boxes.*cutmix_alpha=0"),
        ((E_, M_, MixPlan.uniform(2, torch.tensor([0, 3]), 0.5, pool=4)), ValueError, "pool"),
        ((E_, M_, "flip"), TypeError, "MixPlan"),
    ],
)
def test_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        mix_embeddings(*arguments)


# ------------------------------------------------------------------ spans


@pytest.mark.parametrize("share", [0.1, 0.34, 0.8])
@pytest.mark.parametrize("side", ["right", "left"])
def test_spans_move_as_by_hand(share, side):
    size, length = 9, 24
    lengths = torch.tensor([24, 3, 12, 2, 20, 1, 9, 16, 5])
    mask = (torch.arange(length) < lengths[:, None]).long()
    mask = mask if side == "right" else mask.flip(1)
    ids = torch.arange(size * length).view(size, length)
    saliency = torch.rand(size, length, dtype=torch.float64)
    partner = [4, 7, 0, 2, 1, 0, 6, 3, 8]
    plan = MixPlan.uniform(size, torch.tensor(partner), 0.5)
    spans = span_plan(saliency, mask, plan, share=share)
    moved = mix_rectangles(ids.view(size, 1, length), spans).view(size, length)
    expected, weight = spans_by_hand(ids, saliency, mask, partner, share)
    assert torch.equal(moved, expected)
    torch.testing.assert_close(spans.weight[:, 0], weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(spans.weight.sum(1), torch.ones(size))
    assert (moved != ids).any() and torch.equal(moved[5], ids[5])  # a text of one token stays


def test_special_tokens_stay():
    special = torch.tensor([[1, 0, 0, 1, 0, 0, 1]] * 2)
    plan = MixPlan.uniform(2, "flip", 0.5)
    options = {"share": 0.5, "special_tokens_mask": special}
    spans = span_plan(torch.rand(2, 7), torch.ones(2, 7, dtype=torch.long), plan, **options)
    for box in (spans.box, spans.source_box):
        for _, start, _, stop in box[:, 0].tolist():
            assert stop - start == 2 and not special[0, start:stop].any()


def test_rows_that_the_plan_leaves_stay():
    plan = MixPlan.per_sample([1.0, 0.5], "flip")
    spans = span_plan(torch.rand(2, 9), torch.ones(2, 9, dtype=torch.long), plan)
    widths = (spans.box[:, 0, 3] - spans.box[:, 0, 1]).tolist()
    assert widths == [0, 1] and spans.weight[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p: span_plan(torch.rand(2, 3), M_, p, share=0.0), ValueError, r"\(0, 1\]"),
        (lambda p: span_plan(torch.rand(2, 4), M_, p), ValueError, "saliency"),
        (lambda p: span_plan(torch.rand(2, 3), 0 * M_, p), ValueError, "none in 2 of 2"),
        (lambda p: span_plan([1], M_, p), TypeError, "saliency"),
    ],
)
def test_spans_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(FLIP)


def test_positions_count_valid_tokens():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert counted_positions(mask, 1).tolist() == [[1, 1, 2, 3], [2, 3, 4, 1]]
