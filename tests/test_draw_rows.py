"""Samples of a larger batch draw what they draw there."""

from __future__ import annotations

import pytest
import torch
from draw_cases import assert_same_plan, draw_cases
from variant_cases import assert_same_variants, variant_cases

from fused_mixup import ops
from fused_mixup.codes import TENSOR

pytestmark = pytest.mark.usefixtures("one_thread")


def test_rows_of_draw_plan():
    drawn = 0
    for state, settings, labels, partner, batch, spatial, per, pairing, *rules, _ in draw_cases(40):
        whole = ops.draw_plan(
            state.clone(), settings, labels, _within(partner, batch), batch, spatial, per, pairing,
            *rules,
        )  # fmt: skip
        part = torch.randperm(batch)[: batch // 2 + 1].int()
        drawn += len(part)
        rows = [t[part.long()] for t in whole]
        args = state, settings, None, rows[0], len(part), spatial, per, TENSOR, *rules, part
        assert_same_plan(ops.draw_plan(*args), rows)
    assert drawn > 100


def _within(partner, batch):
    return None if partner is None else partner % max(batch, 1)


def test_rows_of_draw_variants():
    masked = 0
    for args in variant_cases(40, seed=8):
        state, settings, labels, partner, kinds, batch, *shape, per, pairing, own, other, _ = args
        partner = None if partner is None else partner % max(batch, 1)
        rules = per, pairing, own, other
        whole = ops.draw_variants(
            state.clone(), settings, labels, partner, kinds, batch, *shape, *rules
        )
        part = torch.randperm(batch)[: batch // 2 + 1].int()
        rows = [t if len(t) != batch else t[part.long()] for t in whole]
        rules = per, TENSOR, own, other, part
        args = state, settings, None, rows[0], kinds, len(part), *shape, *rules
        assert_same_variants(ops.draw_variants(*args), rows)
        masked += int(whole[4].sum())
    assert masked
