"""BatchMix of one variant by maps that the caller gives, beside its definition in NumPy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from batch_mix_cases import K

import fused_mixup as fm
from fused_mixup import BatchMix

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("saliencymix", "attentivemix", "guidedmixup")
DEFAULT = {"saliencymix": 1.0, "attentivemix": 2.0, "guidedmixup": 1.0}


def drawn_lam(name, n, per="sample", prob=0.8, seed=5, alpha=None):
    """The λ that MixUp draws in the same step."""
    alpha = DEFAULT[name] if alpha is None else alpha
    state = fm.plan_state(seed)
    plan = fm.draw_variants(n, (1, 1), state=state, mix={"mixup": alpha}, per=per, prob=prob)
    return plan.blend[:, 0].numpy()


def saliency_box(grid, lam, size):
    y, x = np.unravel_index(grid.argmax(), grid.shape)
    box = []
    for at, cells, n in ((y, grid.shape[0], size[0]), (x, grid.shape[1], size[1])):
        center, half = int((at + 0.5) * n / cells), int(n * np.sqrt(1 - lam)) // 2
        box += [np.clip(center - half, 0, n), np.clip(center + half, 0, n)]
    return box[0], box[2], box[1], box[3]


def own_share(name, maps, lam, size, top_k=6):
    """The share m [B, H, W] of each sample itself."""
    made = []
    for i, grid in enumerate(maps.numpy()):
        other = maps.numpy()[len(maps) - 1 - i]
        m = np.ones(size, dtype=np.float32)
        if lam[i] < 1 and name == "saliencymix":
            top, left, bottom, right = saliency_box(other, lam[i], size)
            m[top:bottom, left:right] = 0
        elif lam[i] < 1:
            if name == "guidedmixup":
                cells, way = grid / (grid + other), {"mode": "bilinear", "align_corners": False}
            else:
                k = top_k or max(1, int(grid.size * lam[i]))
                cells, way = np.zeros_like(grid), {"mode": "nearest"}
                cells.reshape(-1)[np.argsort(-grid.reshape(-1), kind="stable")[:k]] = 1
            m = F.interpolate(torch.tensor(cells)[None, None], size, **way)[0, 0].numpy()
        made.append(m)
    return torch.tensor(np.stack(made))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("inplace", [True, False])
def test_images_and_labels(name, per, inplace):
    size, n = (16, 24), 8
    x, maps = torch.rand(n, 3, *size), torch.rand(n, 1, 4, 6)
    labels = torch.arange(n) % K
    lam = drawn_lam(name, n, per)
    m = own_share(name, maps[:, 0], lam, size)
    expected = m[:, None] * x + (1 - m[:, None]) * x.flip(0)
    mix = BatchMix(K, mix={name: None}, per=per, prob=0.8, seed=5, inplace=inplace)
    given = x.clone()
    mixed, target = mix(given, labels, maps=maps)
    torch.testing.assert_close(mixed, expected)
    assert (mixed is given) == inplace and not torch.equal(mixed, x)
    torch.testing.assert_close(target.weight[:, 0], m.mean((1, 2)))
    torch.testing.assert_close(target.weight[:, 1], 1 - m.mean((1, 2)))


def test_maps_of_the_size_of_images_put_the_box_at_the_pixel():
    n = 10
    maps, lam = torch.rand(n, 20, 15), drawn_lam("saliencymix", 10, alpha=0.3, prob=1.0)
    mix = BatchMix(mix={"saliencymix": 0.3}, per="sample", seed=5)
    plan = mix.draw(n, (20, 15), maps=maps)
    expected = [saliency_box(maps[n - 1 - i].numpy(), lam[i], (20, 15)) for i in range(n)]
    assert plan.box.tolist() == [list(map(int, box)) for box in expected]
    drawn = BatchMix(mix={"saliencymix": 0.3}, per="sample", seed=5, correct_lam=False)
    weight = drawn.draw(n, (20, 15), maps=maps).weight[:, 0]
    torch.testing.assert_close(weight, torch.tensor(lam).float())


@pytest.mark.parametrize("top_k", [0, 1, 3, 100])
def test_how_many_cells_attentivemix_keeps(top_k):
    n, maps = 8, torch.rand(8, 4, 4).round(decimals=1)  # some are equal: the first is kept
    lam = drawn_lam("attentivemix", n, prob=1.0)
    m = own_share("attentivemix", maps, lam, (16, 16), top_k)
    mix = BatchMix(mix={"attentivemix": {"top_k": top_k}}, per="sample", seed=5)
    plan = mix.draw(n, (16, 16), maps=maps)
    assert torch.equal(plan.mask.dense((16, 16))[:, 0], m)


@pytest.mark.parametrize("pairing", ["roll", "shuffle", "cross_class"])
def test_maps_of_the_partner(pairing):
    n, maps = 6, torch.rand(6, 4, 4)
    labels = torch.arange(n) % 3
    mix = BatchMix(K, mix={"guidedmixup": None}, pairing=pairing)
    plan = mix.draw(n, (4, 4), labels, maps)
    other = maps[plan.partner.long()]
    torch.testing.assert_close(plan.mask.dense((4, 4))[:, 0], maps / (maps + other))


def test_entries_of_a_segmentation_batch():
    n, maps = 4, torch.rand(4, 4, 4)
    classes, soft = torch.randint(0, K, (n, 16, 16)), torch.rand(n, 1, 8, 8)
    mix = BatchMix(K, mix={"attentivemix": None}, per="sample", seed=5, inplace=False)
    m = own_share("attentivemix", maps, drawn_lam("attentivemix", n, prob=1.0), (16, 16))
    out = mix({"image": torch.rand(n, 3, 16, 16), "mask": classes, "soft_map": soft}, maps=maps)
    assert torch.equal(out["mask"], torch.where(m < 0.5, classes.flip(0), classes))
    small = m[:, None, ::2, ::2]
    torch.testing.assert_close(out["soft_map"], small * soft + (1 - small) * soft.flip(0))


def test_boxes_follow_saliencymix():
    mix = BatchMix(mix={"saliencymix": None}, kinds={"boxes": "boxes"})
    boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])] * 2
    out = mix({"image": torch.rand(2, 3, 8, 8), "boxes": boxes}, maps=torch.rand(2, 2, 2))
    assert len(out["boxes"]) == 2


def test_schedules_resume_and_eval():
    mix = BatchMix(K, mix={"saliencymix": 1.0}, schedule=lambda e: 0.5 + e, off_after_epoch=3)
    mix.set_epoch(1)
    assert mix.settings[2] == 1.5 and mix.settings[0] == 1
    mix.set_epoch(3)
    x, maps, labels = torch.rand(4, 3, 8, 8), torch.rand(4, 2, 2), torch.arange(4) % K
    mixed, target = mix(x.clone(), labels, maps=maps)
    assert torch.equal(mixed, x) and (target.weight[:, 0] == 1).all()
    other = BatchMix(K, mix={"saliencymix": 1.0}, seed=8)
    other.load_state_dict(copy.deepcopy(mix.state_dict()))
    mix.set_epoch(0)
    other.set_epoch(0)
    assert mix.draw(4, (8, 8), maps=maps).partner.tolist() == [3, 2, 1, 0]
    mix.eval()
    assert torch.equal(mix(x.clone(), labels)[0], x)
    assert torch.equal(mix(x.clone(), labels, maps=maps)[0], x)


def test_compiled_draws():
    torch._dynamo.reset()
    mix = BatchMix(mix={"attentivemix": {"top_k": 0}}, per="sample", prob=0.7)
    other, maps = copy.deepcopy(mix), torch.rand(4, 4, 4)

    def step(maps):
        plan = other.draw(4, (8, 8), maps=maps)
        return plan.mask.map, plan.weight

    keep, weight = torch.compile(step, backend="eager", fullgraph=True)(maps)
    plan = mix.draw(4, (8, 8), maps=maps)
    assert torch.equal(keep, plan.mask.map) and torch.equal(weight, plan.weight)


@pytest.mark.proof
@pytest.mark.parametrize("name", NAMES)
def test_compiled_steps(name):
    torch._dynamo.reset()
    mix = BatchMix(K, mix={name: None}, per="sample", prob=0.7, dense_targets=True)
    other = copy.deepcopy(mix)

    def step(x, y, maps):
        return other(x, y, maps=maps)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        x, labels, maps = torch.rand(4, 3, 8, 8), torch.arange(4) % K, torch.rand(4, 4, 4)
        mixed, target = compiled(x.clone(), labels, maps)
        expected, expected_target = mix(x.clone(), labels, maps=maps)
        assert torch.equal(mixed, expected) and torch.equal(target, expected_target)
    assert torch.equal(mix.state, other.state)


def test_gradients_reach_the_images():
    x = torch.rand(4, 1, 8, 8, requires_grad=True)
    mix = BatchMix(mix={"guidedmixup": None}, inplace=False)
    mix({"image": x}, maps=torch.rand(4, 2, 2))["image"].sum().backward()
    torch.testing.assert_close(x.grad.sum(), torch.tensor(4.0 * 64))


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("maps", "error", "match"),
    [
        (None, ValueError, r"maps: expected a map of each image .*'saliencymix', got None; call"),
        (torch.rand(3, 4, 4), ValueError, r"maps: expected \[4, h, w\].*got \[3, 4, 4\]"),
        (torch.rand(4, 2, 4, 4), ValueError, r"maps: expected \[4, h, w\].*got \[4, 2, 4, 4\]"),
        (torch.rand(4, 16), ValueError, r"maps: expected \[4, h, w\].*got \[4, 16\]"),
        (torch.rand(4, 9, 4), ValueError, r"h, w from 1 to \[8, 8\].*got \[4, 9, 4\]"),
        (torch.rand(4, 0, 4), ValueError, r"h, w from 1 to \[8, 8\].*got \[4, 0, 4\]"),
        (torch.rand(4, 4, 4) - 2, ValueError, "maps: expected finite numbers of 0 and more"),
        (torch.full((4, 4, 4), torch.nan), ValueError, "maps: expected finite numbers of 0 and"),
        (torch.ones(4, 4, 4).long(), TypeError, "maps: expected a tensor of floats .*int64"),
        ([[1.0]], TypeError, "maps: expected a tensor of floats .*list"),
        (torch.rand(4, 4, 4, device="meta"), ValueError, "maps: expected it on cpu .*got meta"),
    ],
)
def test_bad_maps(maps, error, match):
    mix = BatchMix(K, mix={"saliencymix": None})
    x, state = torch.rand(4, 3, 8, 8), mix.state.clone()
    before = x.clone()
    with pytest.raises(error, match=match):
        mix(x, torch.arange(4) % K, maps=maps)
    assert torch.equal(mix.state, state) and torch.equal(x, before)


@pytest.mark.parametrize(
    ("mix", "match"),
    [
        ({"saliencymix": 1, "cutmix": 1}, "'saliencymix' alone.*make two BatchMix"),
        ({"transmix": 1}, "'transmix'.*transmix_weights"),
        ({"tokenmix": 1}, "'tokenmix'.*tokenmix_weights"),
        ({"snapmix": 1}, "'snapmix'.*snapmix_weights"),
        ({"puzzlemix": 1}, "'puzzlemix'"),
        ({"guidedmixup": 0.5}, "'guidedmixup'.*expected no α"),
        ({"saliencymix": 0}, "'saliencymix'.*expected α > 0"),
        ({"attentivemix": {"top_k": -1}}, "'top_k'.*numbers in"),
        ({"attentivemix": {"k": 1}}, "expected keys of .*'top_k'.*got 'k'"),
    ],
)
def test_bad_options(mix, match):
    with pytest.raises(ValueError, match=match):
        BatchMix(K, mix=mix)


def test_maps_that_nothing_reads():
    with pytest.raises(ValueError, match="maps: expected None, as no variant"):
        BatchMix(K, mix={"cutmix": 1.0})(
            torch.rand(4, 3, 8, 8), torch.arange(4), maps=torch.rand(4, 2, 2)
        )
    with pytest.raises(ValueError, match="schedule: expected keys of .*'saliencymix', 'prob'"):
        BatchMix(K, mix={"saliencymix": 1}, schedule=lambda epoch: {"cutmix": 1.0})
    with pytest.raises(ValueError, match="weights: expected 1 numbers"):
        BatchMix(K, mix={"saliencymix": 1}, weights=[0.5, 0.5])
