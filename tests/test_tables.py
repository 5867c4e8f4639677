"""mix_table: values and gradients against a by-hand version in float64, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fused_mixup as fm
from fused_mixup.tables import mix_table


@pytest.fixture
def table(device):
    torch.manual_seed(0)
    numeric = torch.randn(9, 4, dtype=torch.float64, device=device, requires_grad=True)
    categories = torch.randint(3, (9, 2), device=device)
    embeddings = nn.ModuleList([nn.Embedding(3, 2), nn.Embedding(3, 5)]).double().to(device)
    return numeric, categories, embeddings


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_values_and_gradients(device, table, per):
    numeric, categories, embeddings = table
    plan = fm.draw_plan(9, state=fm.plan_state(1, device=device), per=per, pairing="shuffle")
    tensors = [numeric, *embeddings.parameters()]
    out = mix_table(numeric, categories, embeddings, plan)
    upstream = torch.randn_like(out)
    grads = torch.autograd.grad(out, tensors, upstream)

    rows = torch.cat([numeric, *(e(categories[:, f]) for f, e in enumerate(embeddings))], 1)
    own, other = (w.to(device)[:, None] for w in plan.blend.unbind(1))
    expected = own * rows + other * rows[plan.partner.long()]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        grads, torch.autograd.grad(expected, tensors, upstream), rtol=0, atol=1e-12
    )


def test_parts_that_are_missing(table):
    numeric, categories, embeddings = table
    plan = fm.MixPlan.uniform(9, "flip", 0.25)
    both = mix_table(numeric, categories, embeddings, plan)
    torch.testing.assert_close(mix_table(numeric, None, [], plan), both[:, :4])
    torch.testing.assert_close(mix_table(None, categories, embeddings, plan), both[:, 4:])
    torch.testing.assert_close(mix_table(None, categories.int(), embeddings, plan), both[:, 4:])
    plain = mix_table(numeric, categories, embeddings, None)
    torch.testing.assert_close(plain[:, :4], numeric)
    torch.testing.assert_close(plain[:, 4:6], embeddings[0](categories[:, 0]))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"numeric": torch.zeros(9, 4, dtype=torch.long)}, TypeError, "go into categories"),
        ({"numeric": torch.zeros(9)}, ValueError, r"numeric: expected shape \[B, C\]"),
        ({"numeric": torch.zeros(8, 4)}, ValueError, r"embeddings: expected each to give \[8, E\]"),
        ({"categories": torch.zeros(9, 2)}, TypeError, "categories: expected int32 or int64"),
        ({"categories": torch.zeros(9, 3).long()}, ValueError, "a column for each embedding"),
        ({"categories": None}, ValueError, "categories: expected"),
        ({"categories": None, "numeric": None, "embeddings": []}, ValueError, "got none"),
        ({"embeddings": [lambda c: c] * 2}, ValueError, "embeddings: expected each to give"),
        ({"embeddings": [lambda c: c[:, None]] * 2}, TypeError, "codes do not blend"),
        ({"embeddings": nn.Embedding(3, 2)}, TypeError, "embeddings: expected a list of functions"),
        ({"embeddings": None, "categories": None}, TypeError, "embeddings: .* for none"),
        ({"plan": "flip"}, TypeError, "plan: expected a MixPlan or None, got 'flip'"),
        ({"plan": fm.MixPlan.uniform(9, "flip", 0.5, (0, 2))}, ValueError, "cutmix_alpha=0"),
        ({"plan": fm.MixPlan.uniform(8, "flip", 0.5)}, ValueError, "batch"),
    ],
)
def test_bad_arguments(change, error, match):
    given = {"numeric": torch.zeros(9, 4), "categories": torch.zeros(9, 2).long()}
    given |= {"embeddings": [nn.Embedding(3, 2), nn.Embedding(3, 5)]}
    given |= {"plan": fm.MixPlan.uniform(9, "flip", 0.25)}
    with pytest.raises(error, match=match):
        mix_table(**(given | change))
