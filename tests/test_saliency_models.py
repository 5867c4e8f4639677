"""Class attention of timm's and Transformers' vision transformers, against their own weights."""

from __future__ import annotations

import pytest
import torch
from frameworks import require

from fused_mixup.saliency import ClassAttention, activation_maps, input_gradient

require("timm", "torchvision", "transformers")
pytestmark = pytest.mark.proof


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "more"), [
    ("vit_tiny_patch16_224", {}),
    ("vit_tiny_patch16_224", {"qk_norm": True}),
    ("vit_tiny_patch16_224", {"reg_tokens": 4}),
    ("deit_tiny_distilled_patch16_224", {}),
])  # fmt: skip
def test_timm(name, more):
    timm = pytest.importorskip("timm")
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    model = timm.create_model(name, **size, **more).eval()
    x = images(2, 3, 32, 32)
    module = model.blocks[-1].attn
    assert module.fused_attn  # weights are never made: a hook on attn_drop would see none
    plain = model(x)
    with ClassAttention(model) as seen:
        assert torch.equal(model(x), plain)
    module.fused_attn, weights = False, []
    hook = module.attn_drop.register_forward_hook(lambda *call: weights.append(call[1][0]))
    model(x)
    hook.remove()
    row = weights[0][:, :, 0, model.num_prefix_tokens :].detach()
    torch.testing.assert_close(seen.attn[:, :, 0, 1:], row, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen.maps.flatten(1), row.mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ViT", "DeiT", "Dinov2", "Dinov2WithRegisters"])
def test_transformers(name):
    transformers = pytest.importorskip("transformers")
    make = getattr(transformers, f"{name}ForImageClassification")
    settings = getattr(transformers, f"{name}Config")
    x, results = images(2, 3, 32, 32), {}
    for kind in ("eager", "sdpa"):
        torch.manual_seed(0)
        model = make(
            settings(
                hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=64,
                image_size=32, patch_size=8, num_labels=5, attn_implementation=kind,
            )
        ).eval()  # fmt: skip
        with ClassAttention(model) as seen, torch.no_grad():
            results[kind] = seen, model(x, output_attentions=kind == "eager")
    seen, output = results["eager"]
    row = output.attentions[-1][:, :, 0, -16:]
    for found in (seen, results["sdpa"][0]):
        torch.testing.assert_close(found.attn[:, :, 0, 1:], row, rtol=1e-5, atol=1e-6)


def test_other_attention_is_refused():
    timm = pytest.importorskip("timm")
    for name in ("beit_base_patch16_224", "eva02_tiny_patch14_224"):
        with pytest.raises(ValueError, match="model: expected attention modules"):
            ClassAttention(timm.create_model(name, depth=1))


def test_maps_of_a_resnet():
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", num_classes=7).train()
    x, y = images(2, 3, 64, 64), torch.tensor([1, 3])
    maps = activation_maps(model, x, y)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(2))
    assert input_gradient(model, x, y).shape == (2, 64, 64) and model.training
