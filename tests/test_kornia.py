"""``fused_mixup.kornia`` against the Kornia that is installed: images, labels, boxes and draws."""

from __future__ import annotations

import pickle
from unittest import mock

import pytest
import torch
from kornia_cases import HALF, NAMES, call, expect_same, make, ours, setting, theirs

MANY = 180  # of each of six classes
MASK = torch.arange(4 * 12 * 16).reshape(4, 12, 16) // 30 % 5
BOXES = torch.tensor([[[1.0, 2, 9, 8], [0, 0, 15, 11]]]).repeat(4, 1, 1)


@pytest.fixture(autouse=True)
def _small_work(one_thread):
    pass


def images(*shape, **options):
    torch.manual_seed(7)
    return torch.randn(*(shape or (4, 3, 12, 16)), **options)


def inputs_of(name, x):
    return [x, MASK] if name == "RandomTransplantation" else [x]


def both(name, **options):
    return make(ours, name, **options), make(theirs, name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_random_settings_give_the_same_numbers(name):
    mixed = 0
    for number in range(MANY):
        options, inputs = setting(name, number)
        mine, peer = both(name, **options)
        got, state = call(mine, inputs, number)
        expected, their_state = call(peer, inputs, number)
        expect_same(got, expected, blended=name == "RandomMixUpV2")
        assert torch.equal(state, their_state), number
        assert mine._params.keys() == peer._params.keys()
        for key, value in peer._params.items():
            assert torch.equal(mine._params[key], value), (number, key)
        mixed += got[0].shape != inputs[0].shape or not torch.equal(got[0], inputs[0])
    assert mixed > MANY / 3


@pytest.mark.parametrize("name", NAMES)
def test_images_go_through_our_kernels(name):
    """Kornia's own lines are not run."""
    x = images()
    options = {"patch_size": 5} if name == "PatchMix" else {}
    mine = make(ours, name, p=1.0, **options)
    own_lines = "transform_input" if name == "RandomTransplantation" else "apply_transform"
    with mock.patch.object(getattr(theirs, name), own_lines, side_effect=AssertionError(name)):
        got, _ = call(mine, inputs_of(name, x))
    assert not torch.equal(got[0], x)
    assert isinstance(mine, getattr(theirs, name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", [True, False])
def test_in_a_sequence(name, first):
    """Alone and behind a flip; masks and boxes where Kornia's class takes them."""
    x, keys, more = images(), ["input"], []
    if name == "RandomTransplantation":
        keys, more = ["input", "mask"], [MASK[:, None].float()]
    if name == "RandomMosaic":
        keys, more = ["input", "bbox_xyxy"], [BOXES]
    options = {"patch_size": 5} if name == "PatchMix" else {}
    results = []
    for module in (ours, theirs):
        steps = [make(module, name, p=0.7, **options), module.RandomHorizontalFlip(p=0.5)]
        if name == "RandomMosaic":
            steps = steps[:1]  # boxes that are padded cannot be compared after a flip
        sequence = module.AugmentationSequential(*steps[:: 1 if first else -1], data_keys=keys)
        results.append(call(sequence, [x, *more], 3))
    (got, state), (expected, their_state) = results
    expect_same(got, expected)
    assert torch.equal(state, their_state)


@pytest.mark.parametrize("name", ["RandomMixUpV2", "RandomCutMixV2", "PatchMix", "RandomJigsaw"])
def test_in_a_sequence_of_video(name):
    x = images(2, 3, 3, 12, 16)  # [B, C, T, H, W]
    options = {"patch_size": 5} if name == "PatchMix" else {}
    results = []
    for module in (ours, theirs):
        mix = make(module, name, p=1.0, **options)
        video = module.VideoSequential(mix, data_format="BCTHW", same_on_frame=True)
        results.append(call(video, [x])[0])
    expect_same(*results)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_gradients(name, p):
    options = {"patch_size": 5} if name == "PatchMix" else {}
    slopes = []
    for module in (ours, theirs):
        leaf = images().requires_grad_()
        mix = make(module, name, p=p, **options)
        torch.manual_seed(5)
        found = mix(*inputs_of(name, leaf * 1))
        found = found[0] if isinstance(found, list) else found
        if found.requires_grad:  # a mosaic of all samples has no gradient in Kornia
            (found * images().cos()).sum().backward()
        slopes.append(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-6)


def test_a_lam_that_needs_a_gradient():
    grads, x = [], images()
    for module in (ours, theirs):
        bounds = torch.tensor([0.2, 0.8], requires_grad=True)
        torch.manual_seed(1)
        module.RandomMixUpV2(lambda_val=bounds)(x).square().sum().backward()
        grads.append(bounds.grad)
    assert torch.equal(*grads) and grads[0].abs().min() > 0


@pytest.mark.parametrize("name", NAMES)
def test_given_parameters(name):
    """The parameters of Kornia's call, on other images, and with a gate of single samples."""
    options = {"patch_size": 5} if name == "PatchMix" else {}
    mine, peer = both(name, p=1.0, **options)
    call(peer, inputs_of(name, images()), 1)
    params = dict(peer._params)
    if name != "RandomTransplantation":
        params["batch_prob"] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    inputs = inputs_of(name, images().exp())
    got, _ = call(mine, inputs, params=dict(params))
    expected, _ = call(peer, inputs, params=dict(params))
    expect_same(got, expected)
    assert not torch.equal(got[0], inputs[0])


def test_labels_of_a_gate_of_single_samples():
    labels = torch.tensor([3, 1, 4, 1])
    for name in ("RandomMixUpV2", "RandomCutMixV2"):
        mine, peer = both(name, data_keys=["input", "class"])
        call(peer, [images(), labels])
        params = dict(peer._params, batch_prob=torch.tensor([1.0, 0.0, 0.0, 1.0]))
        expected, _ = call(peer, [images(), labels], params=dict(params))
        expect_same(call(mine, [images(), labels], params=dict(params))[0], expected)


@pytest.mark.parametrize("dtype", HALF)
def test_half_types_lie_nearer_the_exact_blend(dtype):
    x = images(64, 3, 8, 8).to(dtype)
    mine, peer = both("RandomMixUpV2")
    (got,), _ = call(mine, [x])
    (expected,), _ = call(peer, [x])
    share = mine._params["mixup_lambdas"].to(dtype).double().view(-1, 1, 1, 1)
    own = (1 - share.to(dtype)).double()
    exact = x.double() * own + x[mine._params["mixup_pairs"]].double() * share
    errors = [(t.double() - exact).abs().mean() for t in (got, expected)]
    assert errors[0] < 0.8 * errors[1]


def test_a_partner_without_weight_brings_in_no_nan():
    x = images()
    x[2] = float("nan")
    mine = make(ours, "RandomMixUpV2", lambda_val=(0.0, 0.0))
    (got,), _ = call(mine, [x])
    assert int(mine._params["mixup_pairs"].ne(2).sum()) == 3
    torch.testing.assert_close(got, x, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_input_stays(name):
    options = {"patch_size": 5} if name == "PatchMix" else {}
    inputs = inputs_of(name, images())
    before = [t.clone() for t in inputs]
    make(ours, name, p=1.0, **options)(*inputs)
    assert all(map(torch.equal, inputs, before))


@pytest.mark.parametrize("name", ["RandomMixUpV2", "RandomCutMixV2"])
def test_compiled(name):
    mine = make(ours, name)
    expected, _ = call(mine, [images()], 2)
    compiled = torch.compile(mine, backend="eager")
    expect_same(call(compiled, [images()], 2)[0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_pickled(name):
    options = {"patch_size": 5} if name == "PatchMix" else {}
    mine = make(ours, name, p=1.0, **options)
    again = pickle.loads(pickle.dumps(mine))
    inputs = inputs_of(name, images())
    expect_same(call(again, inputs)[0], call(mine, inputs)[0])
    assert repr(again) == repr(make(theirs, name, p=1.0, **options))


def test_a_mask_alone_and_volumes_of_a_transplantation():
    mine, peer = both("RandomTransplantation", p=1.0, data_keys=["mask"])
    expect_same(call(mine, [MASK])[0], call(peer, [MASK])[0])
    volume, labels = images(3, 2, 4, 5, 6), torch.randint(0, 3, (3, 4, 5, 6))
    mine, peer = both("RandomTransplantation", p=1.0)
    expect_same(call(mine, [volume, labels])[0], call(peer, [volume, labels])[0])


def test_an_image_alone_with_given_parameters_of_a_transplantation():
    mine, peer = both("RandomTransplantation", p=1.0)
    expected, _ = call(peer, [images(), MASK])
    got, _ = call(mine, [images()], params=dict(peer._params))
    expect_same(got, expected[:1])


def test_other_names_are_those_of_kornia():
    assert ours.AugmentationSequential is theirs.AugmentationSequential
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ours.no_such_name
