"""How long the hooks of ManifoldMixup live, and what a call leaves behind it."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from manifold_cases import IMAGES, LABELS, LAYERS, Net, gradients, hooks_of
from torch import nn

from fused_mixup import ManifoldMixup
from fused_mixup.codes import STEP_WORD

pytestmark = pytest.mark.usefixtures("one_thread")


def test_no_hook_stays_behind_a_call():
    net = Net()
    manifold = ManifoldMixup(net, LAYERS, include_input=False)
    manifold(IMAGES, LABELS)
    assert hooks_of(net) == 0
    net.head.forward = None
    with pytest.raises(TypeError):
        manifold(IMAGES, LABELS)
    assert hooks_of(net) == 0
    del net.head.forward
    manifold(IMAGES, LABELS)  # a call after one that failed


def test_a_call_that_fails_before_its_draw_is_no_step():
    net = Net()
    options = {"include_input": False, "cutmix": 1.0, "seed": 4}
    manifold, other = (ManifoldMixup(net, LAYERS, **options) for _ in range(2))
    net.a.forward = None
    with pytest.raises(TypeError):
        manifold(IMAGES, LABELS)
    del net.a.forward
    for _ in range(6):
        manifold(IMAGES, LABELS), other(IMAGES, LABELS)
        assert (other.last_layer, other.last_plan) == (manifold.last_layer, manifold.last_plan)


def test_hooks_that_stay_end_with_close():
    net = Net(False)
    with ManifoldMixup(net, ["b"], include_input=False) as manifold:
        logits, _ = manifold(IMAGES, LABELS)
        assert hooks_of(net) == 1  # the recompute needs it
        logits.sum().backward()
        plain = net(IMAGES)
        assert not torch.equal(plain, logits)
    assert hooks_of(net) == 0
    with pytest.raises(RuntimeError, match="after close"):
        manifold(IMAGES, LABELS)
    kept = ManifoldMixup(net, LAYERS, compiled=True)
    assert hooks_of(net) == 3
    del kept
    assert hooks_of(net) == 0


def test_a_refused_draw_is_no_step():
    manifold = ManifoldMixup(nn.Identity(), [], cutmix=1.0)
    with pytest.raises(ValueError, match="include_input=False for the input"):
        manifold(torch.rand(4, 3), LABELS[:4])
    other = ManifoldMixup(nn.Identity(), [])
    with pytest.raises(IndexError):
        other(torch.rand(4, 3), LABELS[:4])  # behind the draw: K is that of the logits
    assert [m._stream.steps for m in (manifold, other)] == [0, 1]
    assert [int(m.state[STEP_WORD]) for m in (manifold, other)] == [0, 1]


@pytest.mark.parametrize("compiled", [None, True])
def test_it_ends_with_its_last_name(compiled):
    net = Net()
    manifold = ManifoldMixup(net, LAYERS, compiled=compiled)
    manifold(IMAGES, LABELS)
    ends = weakref.ref(manifold)
    gc.disable()
    try:
        del manifold
        assert ends() is None and hooks_of(net) == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("end", [ManifoldMixup.close, lambda manifold: None])
def test_a_recompute_after_the_end_mixes_too(end):
    net = Net(False)
    got = []
    for ends in (False, True):
        manifold = ManifoldMixup(net, ["b"], include_input=False, per="sample", cutmix=1.0)
        outputs = [manifold(IMAGES * k, LABELS)[0] for k in (1, 2)]
        if ends:
            end(manifold)
            del manifold
            assert hooks_of(net) == 1
        got.append(gradients(net, sum(o.square().sum() for o in outputs)))
        del outputs
        if not ends:
            manifold.close()
    torch.testing.assert_close(*got, rtol=0, atol=0)
    assert hooks_of(net) == 0


def test_a_reentrant_recompute_after_the_end_is_refused():
    net = Net(True)
    with ManifoldMixup(net, ["b"], include_input=False) as manifold:
        logits, _ = manifold(IMAGES, LABELS)
    with pytest.raises(RuntimeError, match="set use_reentrant=False"):
        logits.sum().backward()
    plain = net(IMAGES)
    assert hooks_of(net) == 0
    plain.sum().backward()


def test_a_state_on_the_meta_device_is_made_anew():
    with torch.device("meta"):
        manifold = ManifoldMixup(Net(), LAYERS, per="sample", seed=4)
        manifold(IMAGES.to("meta"), LABELS.to("meta"))
    net = Net()
    manifold.call_through(net)
    other = ManifoldMixup(net, LAYERS, per="sample", seed=4)
    manifold._hooks = other._hooks
    for _ in range(3):
        manifold(IMAGES, LABELS), other(IMAGES, LABELS)
        assert (other.last_layer, other.last_plan) == (manifold.last_layer, manifold.last_plan)


def test_a_layer_on_another_device_than_the_input():
    net = nn.Sequential(nn.Identity(), nn.Identity())
    net[0].forward = lambda x: x.to("meta")
    manifold = ManifoldMixup(net, ["0"], include_input=False, per="sample", num_classes=9)
    logits, target = manifold(IMAGES, LABELS)
    assert logits.is_meta and target.device.type == "cpu"
