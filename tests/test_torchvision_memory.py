"""Our torchvision MixUp and CutMix on tensors that share memory or have an unusual layout."""

from __future__ import annotations

import pytest
import torch
from peers import tv_tensors, v2

from fused_mixup import torchvision as ours

KINDS = ("MixUp", "CutMix")


def lazily(t):
    return torch._neg_view(-t)


def unusual_tensors():
    """Tensors whose memory differs from the values that they show."""
    x, y = torch.rand(4, 3, 6, 6), torch.arange(4)
    mask = tv_tensors.Mask(torch.zeros(4, 6, 6))
    yield "images", KINDS, (lazily(x), y)
    yield "images", KINDS, (torch.rand(4, 3, 6, 6, dtype=torch.complex64).conj(), y)
    yield "images", KINDS, (x.to_sparse(), y)
    yield "labels", KINDS, (x, lazily(torch.rand(4, 4)))
    yield "labels", KINDS, (x, torch.rand(4, 4).to_sparse())
    yield "masks", KINDS[1:], (x, {"labels": y, "m": tv_tensors.wrap(lazily(mask), like=mask)})
    deep = tv_tensors.Mask(torch.zeros([4] + 11 * [1] + [6, 6]))
    yield "masks", KINDS[1:], (x, {"labels": y, "m": deep})


@pytest.mark.parametrize("case", list(unusual_tensors()), ids=lambda case: case[0])
def test_tensors_that_no_kernel_reads_are_refused_before_anything_is_drawn(case):
    name, kinds, sample = case
    for kind in kinds:
        state = torch.get_rng_state()
        with pytest.raises((TypeError, ValueError), match=f"{name}: expected"):
            getattr(ours, kind)(num_classes=4)(*sample)
        assert torch.equal(torch.get_rng_state(), state)


def test_cutmix_pastes_differentiably_what_no_kernel_blends():
    image = torch.randn(4, 1, 6, 6, dtype=torch.complex64)
    mask = torch.rand(4, 6, 6)
    grads = []
    for module in (v2, ours):
        torch.manual_seed(3)
        x = image.clone().requires_grad_()
        mixed, _ = module.CutMix(num_classes=4)(x, torch.arange(4))
        (mixed * image.conj()).sum().abs().backward()
        grads.append((mixed.detach(), x.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    mask.requires_grad_()
    x = mask.detach()[:, None].clone().requires_grad_()
    sample = x, {"labels": torch.arange(4), "m": tv_tensors.Mask(mask)}
    mixed, rest = ours.CutMix(num_classes=4)(*sample)
    pasted = rest["m"].as_subclass(torch.Tensor)
    assert torch.equal(pasted, mixed[:, 0]) and not torch.equal(mixed, x)
    weight = torch.rand(4, 6, 6)
    ((pasted + mixed[:, 0]) * weight).sum().backward()
    assert torch.equal(mask.grad, x.grad[:, 0]) and not torch.equal(mask.grad, weight)


def test_inplace_mixes_memory_once():
    x, labels = torch.rand(5, 3, 8, 7), torch.arange(5)
    for kind in KINDS:
        torch.manual_seed(0)
        want, _ = getattr(ours, kind)(num_classes=5)(x, labels)
        given = x.clone()
        views = [tv_tensors.Image(given) for _ in range(2)]
        torch.manual_seed(0)
        got, _, again = getattr(ours, kind)(num_classes=5, inplace=True)(views[0], labels, views[1])
        assert torch.equal(got, want) and torch.equal(given, want)
        assert again is views[1]


def test_inplace_refuses_images_that_overlap_in_part():
    memory, labels = torch.rand(6, 4, 8, 7), torch.arange(4)
    before, state = memory.clone(), torch.get_rng_state()
    mixer = ours.MixUp(num_classes=4, inplace=True)
    with pytest.raises(ValueError, match="overlap in part"):
        mixer(tv_tensors.Image(memory[:4]), labels, tv_tensors.Image(memory[2:]))
    assert torch.equal(memory, before) and torch.equal(torch.get_rng_state(), state)
    rgb, depth = tv_tensors.Image(memory[:4, :3]), tv_tensors.Image(memory[:4, 3:])
    torch.manual_seed(0)
    want, _ = ours.MixUp(num_classes=4)(before[:4], labels)
    torch.manual_seed(0)
    mixer(rgb, labels, depth)  # the two alternate in memory without sharing any
    assert torch.equal(memory[:4], want)
