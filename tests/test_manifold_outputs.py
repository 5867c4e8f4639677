"""What layers return: tuples, lists, dicts, dataclasses; ManifoldMixup mixes one entry of them."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple

import pytest
import torch
from manifold_cases import LABELS, B, K, blend
from torch import nn

from fused_mixup import ManifoldMixup
from fused_mixup.batch_mix.structure import items

Pair = namedtuple("Pair", "hidden bias")


@dataclasses.dataclass
class Record:
    bias: torch.Tensor
    last_hidden_state: torch.Tensor


class Returning(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.layer, self.make, self.seen = nn.Identity(), make, None
        self.layer.forward = lambda x: make(x, torch.ones(1, 2))

    def forward(self, x):
        self.seen = self.layer(x)
        return x


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda h, b: (h, b, None), 0),
        (lambda h, b: [h, b], 0),
        (Pair, "hidden"),
        (lambda h, b: {"h": h, "bias": b}, "h"),
        (lambda h, b: OrderedDict(bias=b, last_hidden_state=h), "last_hidden_state"),
        (lambda h, b: Record(b, h), "last_hidden_state"),
    ],
    ids=["tuple", "list", "namedtuple", "dict", "last_hidden_state", "dataclass"],
)
def test_only_the_hidden_state_is_mixed(make, key):
    net, x = Returning(make), torch.randn(B, 4)
    manifold = ManifoldMixup(net, ["layer"], include_input=False, num_classes=K, per="sample")
    manifold(x, LABELS)
    plain = make(x, torch.ones(1, 2))
    assert type(net.seen) is type(plain)
    found, kept = dict(items(net.seen)), dict(items(plain))
    torch.testing.assert_close(found.pop(key), blend(x, manifold.last_plan))
    kept.pop(key)
    for name, value in kept.items():
        assert (found[name] is None) if value is None else torch.equal(found[name], value)
