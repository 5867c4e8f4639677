"""ManifoldMixup against the same step by hand, in float64: logits, targets, gradients, memory."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from manifold_cases import (
    IMAGES,
    LABELS,
    LAYERS,
    B,
    K,
    Net,
    blend,
    check_step,
    gradients,
    loss_of,
    net_by_hand,
    soft_labels,
)
from torch import nn

import fused_mixup as fm
from fused_mixup import ManifoldMixup, MixedTarget

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ equal to the step by hand


@pytest.mark.parametrize("region", [None, False])
@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize(
    "rules", [{}, {"per": "sample", "pairing": "derangement"}, {"per": "pair"}], ids=str
)
def test_equals_the_step_by_hand(region, cutmix, rules):
    net = Net(region)
    manifold = ManifoldMixup(net, LAYERS, cutmix=cutmix, seed=3, **rules)
    state = fm.plan_state(3)
    for _ in range(8):
        check_step(net, manifold, net_by_hand, IMAGES, LABELS)
        size = IMAGES.shape[2:] if cutmix else ()
        drawn = fm.draw_plan(B, size, state=state, mixup_alpha=2.0, cutmix_alpha=cutmix, **rules)
        assert manifold.last_plan == drawn


def test_several_forwards_share_a_backward_under_checkpoint():
    net = Net(False)
    manifold = ManifoldMixup(net, ["b", "c"], include_input=False, per="sample", cutmix=1.0)
    total, seen = 0.0, []
    for k in range(6):
        logits, target = manifold(IMAGES * (k + 1), LABELS)
        total = total + loss_of(logits, target.dense(torch.float64))
        seen.append((manifold.last_layer, manifold.last_plan))
    assert {layer for layer, _ in seen[:-1]} == {"b", "c"}  # b is inside the region
    got = gradients(net, total)
    by_hand = sum(
        loss_of(net_by_hand(net, IMAGES * (k + 1), *step), soft_labels(LABELS, step[1], K))
        for k, step in enumerate(seen)
    )
    torch.testing.assert_close(got, gradients(net, by_hand), rtol=0, atol=1e-12)


def test_a_draw_of_the_model_in_the_same_region_is_repeated_too():
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(4, 4, 1).double()
            self.state = fm.plan_state(8)

        def forward(self, x):
            plan = fm.draw_plan(B, state=self.state, per="sample")
            self.plan = plan if torch.is_grad_enabled() else None
            return fm.mix(self.inner(x) ** 2, plan)

    grads = []
    for region in (None, False):
        net = Net(region)
        torch.manual_seed(5)
        net.b = Drawing()
        manifold = ManifoldMixup(net, ["b.inner"], include_input=False, per="sample", cutmix=1.0)
        logits, _ = manifold(IMAGES, LABELS)
        grads.append(gradients(net, logits.square().sum()))
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", ["rows", "tokens"])
def test_boxes_lie_in_the_dims_beside_channels(layer):
    class Last(nn.Module):  # feature maps [B, H, W, C] and tokens [B, N, C]
        def __init__(self):
            super().__init__()
            self.rows, self.tokens = nn.Identity(), nn.Identity()

        def forward(self, x):
            x = self.rows(x.movedim(1, -1))
            self.seen = self.tokens(x.flatten(1, 2))
            return self.seen.sum(1)

    net = Last()
    options = {"alpha": 0.0, "cutmix": 1.0, "per": "sample", "num_classes": K}
    manifold = ManifoldMixup(net, [layer], include_input=False, channel_dim=-1, **options)
    x = IMAGES if layer == "rows" else IMAGES.flatten(2)
    manifold(IMAGES, LABELS)
    mixed = blend(x, manifold.last_plan)
    assert torch.equal(net.seen, mixed.flatten(2).movedim(1, -1))
    assert not torch.equal(mixed, x)


def test_samples_in_another_dim():
    net = nn.Sequential(nn.Identity(), nn.Identity())
    x = torch.randn(B, 7, 3)
    turned, _ = ManifoldMixup(_Turned(net), ["net.0"], batch_dim=1, include_input=False)(x, LABELS)
    manifold = ManifoldMixup(net, ["0"], include_input=False)
    assert torch.equal(turned, manifold(x, LABELS)[0])


class _Turned(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.transpose(0, 1)).transpose(0, 1)


def test_saves_no_more_for_the_backward_than_plain_lines():
    """The plain lines: λ a Python number, partners by index."""

    def saved_bytes(step):
        seen = {}

        def pack(t):
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            output = step()  # kept, so that no address is used twice
        del output
        return sum(seen.values())

    net, x = Net(), torch.randn(64, 3, 16, 16, dtype=torch.float64)
    labels = torch.arange(64) % K
    manifold = ManifoldMixup(net, ["b"], include_input=False)
    order = torch.arange(63, -1, -1)

    def plain():
        h = net.b(net.a(x).sin())
        h = h * 0.3 + h[order] * 0.7
        return net.head(net.c(h.sin()).cos().mean((2, 3)))

    assert saved_bytes(lambda: manifold(x, labels)) <= saved_bytes(plain) + 64 * 24  # the plan


# ------------------------------------------------------------------ labels


def test_labels_of_floats_and_of_heads():
    net = Net()
    manifold = ManifoldMixup(net, LAYERS, num_classes={"kind": K, "value": None}, per="sample")
    value = torch.randn(B, 2)
    _, target = manifold(IMAGES, {"kind": LABELS, "value": value})
    plan = manifold.last_plan
    assert target["kind"] == MixedTarget.from_labels(LABELS, plan, K)
    assert torch.equal(target["value"], fm.mix_labels(value, plan))
    _, target = ManifoldMixup(net, LAYERS)(IMAGES, value)
    assert target.shape == value.shape


def test_number_of_classes_is_that_of_the_logits_unless_given():
    net = Net()
    assert ManifoldMixup(net, LAYERS)(IMAGES, LABELS)[1].num_classes == K
    manifold = ManifoldMixup(net, LAYERS, num_classes=9, label_smoothing=0.1, dense_targets=True)
    _, target = manifold(IMAGES, LABELS)
    want = MixedTarget.from_labels(LABELS, manifold.last_plan, 9, 0.1)
    assert torch.equal(target, want.dense())


def test_cross_class_pairs_by_labels():
    manifold = ManifoldMixup(Net(), LAYERS, pairing="cross_class")
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    manifold(IMAGES, labels)
    assert (labels != labels[manifold.last_plan.partner.long()]).all()


# ------------------------------------------------------------------ modes, streams and copies


def test_eval_is_the_plain_model():
    net = Net()
    for manifold in (ManifoldMixup(net, LAYERS), ManifoldMixup(net, LAYERS, compiled=True)):
        net.eval()
        before = manifold.state.clone()
        logits, labels = manifold(IMAGES, LABELS)
        assert torch.equal(logits, net(IMAGES)) and labels is LABELS
        assert manifold(IMAGES)[1] is None
        assert torch.equal(manifold.state, before)
        net.train()
        manifold.eval()
        assert torch.equal(manifold(IMAGES, LABELS)[0], net(IMAGES))
        manifold.close()


def test_eval_of_the_model_inside_a_wrapper():
    net = Net()
    manifold = ManifoldMixup(nn.DataParallel(net), LAYERS, include_input=False)
    net.eval()
    logits, labels = manifold(IMAGES, LABELS)
    assert torch.equal(logits, net(IMAGES)) and labels is LABELS


def test_layers_come_from_a_stream_of_their_own():
    net, before = Net(), torch.get_rng_state()
    drawn = []
    for seed, rank in ((0, 0), (0, 0), (1, 0), (0, 1)):
        manifold = ManifoldMixup(net, LAYERS, seed=seed, rank=rank)
        with torch.no_grad():
            drawn.append([manifold(IMAGES, LABELS) and manifold.last_layer for _ in range(70)])
    assert drawn[0] == drawn[1] and drawn[0] != drawn[2] and drawn[0] != drawn[3]
    counts = [drawn[0].count(layer) for layer in ("input", *LAYERS)]
    assert min(counts) > 5 and sum(counts) == 70
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_of_a_set_have_an_order():
    net = nn.ModuleDict({f"layer{k:02}": nn.Identity() for k in range(30)})
    assert ManifoldMixup(net, set(net), include_input=False).layers == tuple(sorted(net))


def test_state_dict_resumes_both_streams():
    net = Net()
    keys = list(net.state_dict())
    manifold = ManifoldMixup(net, LAYERS, per="sample", seed=4)
    for _ in range(66):
        manifold(IMAGES, LABELS)
    assert list(net.state_dict()) == keys and not list(manifold.parameters())
    saved = manifold.state_dict()
    other = ManifoldMixup(net, LAYERS, per="sample", seed=9)
    other.load_state_dict(saved)
    for _ in range(5):
        manifold(IMAGES, LABELS), other(IMAGES, LABELS)
        assert (other.last_layer, other.last_plan) == (manifold.last_layer, manifold.last_plan)


@pytest.mark.parametrize("compiled", [False, True])
def test_copies_of_the_model_are_plain_and_copies_of_both_go_on(compiled):
    net = Net()
    manifold = ManifoldMixup(net, LAYERS, seed=2, compiled=compiled)
    manifold(IMAGES, LABELS)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for plain in (copy.deepcopy(net), torch.load(file, weights_only=False)):
        manifold(IMAGES, LABELS)
        assert torch.equal(plain(IMAGES), net(IMAGES))
    for other in (copy.deepcopy(manifold), pickle.loads(pickle.dumps(manifold))):
        resumed = copy.deepcopy(manifold)
        for _ in range(4):
            assert torch.equal(other(IMAGES, LABELS)[0], resumed(IMAGES, LABELS)[0])
            assert other.last_layer == resumed.last_layer


def test_schedule_and_epochs_turn_it_off():
    manifold = ManifoldMixup(Net(), LAYERS, off_after_epoch=2)
    manifold.set_epoch(2)
    logits, target = manifold(IMAGES, LABELS)
    assert torch.equal(logits, manifold.model(IMAGES))
    assert torch.equal(target.weight[:, 0], torch.ones(B))
