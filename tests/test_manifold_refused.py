"""What ManifoldMixup refuses, before anything is drawn where that can be known, and its words."""

from __future__ import annotations

import pytest
import torch
from manifold_cases import IMAGES, LABELS, LAYERS, B, Net, hooks_of
from torch import nn
from torch.utils.checkpoint import checkpoint

from fused_mixup import ManifoldMixup
from fused_mixup.codes import STEP_WORD

pytestmark = pytest.mark.usefixtures("one_thread")


class Odd(nn.Module):
    """A model of layers that cannot be mixed."""

    def __init__(self):
        super().__init__()
        names = ("ids", "fewer", "twice", "unused", "empty", "number")
        for name in names:
            self.add_module(name, nn.Identity())
        self.number.forward = lambda x: 1.0
        self.empty.forward = lambda x: ()
        self.blocks = nn.ModuleList([nn.Identity()])

    def forward(self, x):
        self.ids(x.long()), self.fewer(x[:3]), self.twice(self.twice(x))
        self.empty(x), self.number(x)
        return self.blocks[0](x)


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        (["a", "zzz"], ValueError, "got 'zzz'; it has ['a', 'b', 'c', 'head']"),
        (["heat"], ValueError, "got 'heat'; the nearest are ['head']"),
        (["a", "a"], ValueError, "each module once, got 'a' twice"),
        ("a", TypeError, "a list of names, got 'a'; use ['a']"),
        ([1], TypeError, "names of modules, got 1"),
        (3, TypeError, "a function of (name, module), got 3"),
        (lambda name, module: False, ValueError, "a predicate that holds for some module"),
        (Net(), TypeError, "a function of (name, module), got a Net"),
    ],
)
def test_layers_that_are_no_names(layers, error, words):
    with pytest.raises(error) as caught:
        ManifoldMixup(Net(), layers)
    assert words in str(caught.value)


def test_other_arguments():
    net = Net()
    net.alias = net.a
    for call, error, words in [
        (lambda: ManifoldMixup(net, ["a", "alias"]), ValueError, "'a', which are one module"),
        (lambda: ManifoldMixup(3, ["a"]), TypeError, "model: expected an nn.Module, got 3"),
        (lambda: ManifoldMixup(net, [], include_input=False), ValueError, "at least one"),
        (lambda: ManifoldMixup(Odd(), ["blocks"]), ValueError, "blocks.0 and so on"),
        (lambda: ManifoldMixup(net, LAYERS, alpha=-1), ValueError, "alpha"),
        (lambda: ManifoldMixup(net, LAYERS, alpha=0), ValueError, "expected one of them > 0"),
        (lambda: ManifoldMixup(net, LAYERS, per="row"), ValueError, "per: expected"),
        (lambda: ManifoldMixup(net, LAYERS, pairing="x"), ValueError, "pairing: expected"),
        (lambda: ManifoldMixup(net, LAYERS, batch_dim=0.5), TypeError, "batch_dim: expected"),
        (lambda: ManifoldMixup(net, LAYERS, batch_dim=-1), ValueError, "0 or more, got -1"),
    ]:
        with pytest.raises(error) as caught:
            call()
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("x", "labels", "options", "error", "words"),
    [
        (IMAGES, None, {}, ValueError, "got None; without labels call model.eval() first"),
        (IMAGES, LABELS[:4], {}, ValueError, "labels: expected 6 samples as in x, got 4"),
        (IMAGES, LABELS.int(), {}, TypeError, "got torch.int32; use .long()"),
        (IMAGES, LABELS > 1, {}, TypeError, "got torch.bool; use .float() to blend"),
        (IMAGES, 3, {}, TypeError, "got 3"),
        (IMAGES, {}, {}, ValueError, "one head or more"),
        (IMAGES, {"k": LABELS, "v": LABELS[:2]}, {}, ValueError, "in each head, got 2"),
        (IMAGES, LABELS, {"num_classes": 2}, IndexError, "in [0, 2)"),
        (IMAGES, LABELS.expand(2, B).T, {"cutmix": 1.0}, ValueError, "set cutmix=0"),
        (IMAGES.long(), LABELS, {}, TypeError, "token ids cannot be mixed"),
        (None, LABELS, {}, TypeError, "got None"),
        ("x", LABELS, {}, TypeError, "x: expected a tensor [B, …], got 'x'"),
    ],
)
def test_a_refused_call_draws_nothing(x, labels, options, error, words):
    net = Net()
    manifold = ManifoldMixup(net, LAYERS, **options)
    with pytest.raises(error) as caught:
        manifold(x, labels)
    assert words in str(caught.value)
    assert manifold.state[STEP_WORD] == 0 and manifold.last_layer is None and hooks_of(net) == 0


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ("ids", TypeError, "'ids' to return a floating hidden state, got torch.int64"),
        ("fewer", ValueError, "expected 6 samples in dim 0 of what 'fewer' returns"),
        ("twice", RuntimeError, "'twice' to be called once in a forward"),
        ("unused", RuntimeError, "'unused' to be called in the forward, got no call"),
        ("empty", TypeError, "got an empty output"),
        ("number", TypeError, "a tensor, or a tuple, dict or dataclass with one, got 1.0"),
    ],
)
def test_layers_that_cannot_be_mixed(layer, error, words):
    net = Odd()
    manifold = ManifoldMixup(net, [layer], include_input=False, num_classes=9)
    with pytest.raises(error) as caught:
        manifold(IMAGES, LABELS)
    assert words in str(caught.value)
    assert hooks_of(net) == 0


def test_samples_that_lie_in_another_dim_are_found():
    net = nn.Sequential(nn.Flatten(1), nn.Identity())
    net[1].forward = lambda x: x.T
    manifold = ManifoldMixup(net, ["1"], include_input=False)
    with pytest.raises(ValueError, match="set batch_dim=1"):
        manifold(IMAGES, LABELS)


def test_tokens_are_not_cut_without_a_channel_dim():
    net = nn.Sequential(nn.Flatten(2), nn.Identity())
    options = {"include_input": False, "cutmix": 1.0, "num_classes": 9}
    with pytest.raises(ValueError, match=r"channel_dim: expected -1 for tokens"):
        ManifoldMixup(net, ["1"], **options)(IMAGES, LABELS)
    with pytest.raises(ValueError, match="1 to 3 spatial dims"):
        ManifoldMixup(nn.Sequential(nn.Flatten()), ["0"], **options)(IMAGES, LABELS)


@pytest.mark.parametrize("channel", [0, -4, 4, -5])
def test_channels_lie_in_a_dim_of_their_own(channel):
    manifold = ManifoldMixup(Net(), ["a"], include_input=False, cutmix=1.0, channel_dim=channel)
    with pytest.raises(ValueError, match=f"channel_dim: .* beside batch_dim=0, got {channel}"):
        manifold(IMAGES, LABELS)


def test_logits_with_their_classes_last():
    manifold = ManifoldMixup(nn.Identity(), [])
    maps = LABELS[:, None].expand(B, 4)
    with pytest.raises(ValueError, match=r"K, …\], .* got \[6, 4, 3\] for labels \[6, 4\]; give M"):
        manifold(torch.rand(B, 4, 3), maps % 3)
    assert manifold(torch.rand(B, 9, 4), maps)[1].num_classes == 9


def test_calls_inside_others():
    net = Net()
    manifold = ManifoldMixup(net, LAYERS)
    net.head.register_forward_hook(lambda *_: manifold(IMAGES, LABELS))
    with pytest.raises(RuntimeError, match="a call inside another"):
        manifold(IMAGES, LABELS)
    other = ManifoldMixup(Net(), LAYERS)
    x = IMAGES.clone().requires_grad_()
    logits = checkpoint(lambda x: other(x, LABELS)[0], x, use_reentrant=False)
    with pytest.raises(RuntimeError, match="checkpoint parts of the model"):
        logits.sum().backward()


def test_a_reentrant_checkpoint_around_the_layer():
    net = Net(True)
    logits, _ = ManifoldMixup(net, ["a", "c"], include_input=False)(IMAGES, LABELS)
    logits.sum().backward()  # no layer inside
    logits, _ = (manifold := ManifoldMixup(net, ["b"], include_input=False))(IMAGES, LABELS)
    with pytest.raises(RuntimeError, match="set use_reentrant=False"):
        logits.sum().backward()
    manifold.close()
