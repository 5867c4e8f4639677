"""``fused_mixup.saliency``: maps against formulas, and networks that are left as they were."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fused_mixup.saliency import (
    ClassAttention,
    activation_maps,
    class_activation,
    gaussian_blur,
    input_gradient,
    spectral_residual,
)


def images(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


class ConvNet(nn.Module):
    """Two convolutions, batch norm, dropout, an average and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 5, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        x = F.relu(self.last(F.relu(self.norm(self.stem(x)))))
        return self.fc(self.drop(x.mean((2, 3))))


# ------------------------------------------------------------------ gradients


def test_input_gradient_equals_autograd_and_leaves_the_model():
    model, x, y = ConvNet().double(), images(3, 3, 8, 10, dtype=torch.float64), torch.arange(3)
    model.norm.eval()  # a mode of its own
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.fc.weight.grad = torch.ones(4, 5, dtype=torch.float64)
    with torch.no_grad():
        found = input_gradient(model, x, y)
    assert model.training and model.drop.training and not model.norm.training
    assert torch.equal(model.fc.weight.grad, torch.ones(4, 5, dtype=torch.float64))
    assert all(p.grad is None for p in model.parameters() if p is not model.fc.weight)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    given = x.clone().requires_grad_()
    F.cross_entropy(model(given), y).backward()
    torch.testing.assert_close(found, given.grad.square().mean(1).sqrt())


def test_input_gradient_in_inference_mode():
    model, x, y = ConvNet(), images(3, 3, 8, 10), torch.arange(3)
    truth = input_gradient(model, x, y)
    with torch.inference_mode():
        made = x.clone(), y.clone()
        found = input_gradient(model, *made)
    assert torch.equal(found, truth)
    assert torch.equal(input_gradient(model, *made), truth)


def test_input_gradient_of_outputs_with_logits_and_of_other_losses():
    model, x = ConvNet(), images(2, 3, 8, 8)
    plain = input_gradient(model, x, torch.zeros(2, 4), F.mse_loss)

    class Output(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.model, self.wrap = model, wrap

        def forward(self, x):
            return self.wrap(self.model(x))

    holder = lambda t: type("Output", (), {"logits": t})()  # noqa: E731
    for wrap in (lambda t: {"logits": t}, holder, lambda t: (t, None)):
        found = input_gradient(Output(wrap), x, torch.zeros(2, 4), F.mse_loss)
        assert torch.equal(found, plain)
    with pytest.raises(TypeError, match="logits"):
        input_gradient(Output(lambda t: {"scores": t}), x, torch.zeros(2, 4), F.mse_loss)
    with pytest.raises(ValueError, match="criterion"):
        input_gradient(model, x, torch.zeros(2, 4), lambda a, b: a - b)
    with pytest.raises(TypeError, match="images"):
        input_gradient(model, x.byte(), torch.zeros(2, 4))
    assert model.training


# ------------------------------------------------------------------ maps of images


def test_gaussian_blur():
    x = images(2, 9, 12, dtype=torch.float64)
    one = torch.zeros(1, 21, 21, dtype=torch.float64)
    one[0, 10, 10] = 1
    blurred = gaussian_blur(one, (7, 5), (3.0, 2.0))[0]
    line = torch.exp(-0.5 * (torch.arange(-3, 4, dtype=torch.float64) / 3) ** 2)
    torch.testing.assert_close(blurred[10, 7:14] / blurred[10].sum(), line / line.sum())
    torch.testing.assert_close(blurred.sum(), torch.ones((), dtype=torch.float64))
    assert int((blurred != 0).sum()) == 35
    torch.testing.assert_close(gaussian_blur(x, (7, 7), (3, 3)).shape, x.shape)
    constant = torch.full((2, 9, 12), 0.3)
    torch.testing.assert_close(gaussian_blur(constant, (7, 7), (3, 3)), constant)


def test_spectral_residual_finds_what_is_unusual():
    noise = images(3, 64, 64) * 0.1
    noise[:, 30:36, 40:46] += 2.0
    found = spectral_residual(noise)
    y, x = divmod(int(found.argmax()), 64)
    assert 28 <= y <= 37 and 38 <= x <= 47
    assert torch.equal(spectral_residual(noise[None])[0], found)
    assert spectral_residual(images(2, 1, 200, 150)).shape == (2, 200, 150)
    assert spectral_residual(images(1, 3, 16, 16).half()).dtype == torch.float32
    with pytest.raises(ValueError, match="images"):
        spectral_residual(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_spectral_residual_follows_its_formula():
    """Without blur: the inverse of exp(L - mean(L)) with the phase of the spectrum."""
    x = images(1, 1, 12, 10, dtype=torch.float64)
    spectrum = torch.fft.fft2(x[0, 0])
    log = spectrum.abs().log()
    rows, columns = (torch.arange(-1, n + 1).clamp(0, n - 1) for n in log.shape)
    around = log[rows][:, columns].unfold(0, 3, 1).unfold(1, 3, 1).mean((2, 3))
    truth = torch.fft.ifft2(torch.polar((log - around).exp(), spectrum.angle())).abs()
    torch.testing.assert_close(spectral_residual(x, blur=0)[0], truth, rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------------ class activation


def test_class_activation_equals_a_convolution():
    features, weight, bias = images(3, 5, 4, 3), images(4, 5), images(4)
    labels = torch.tensor([2, 0, 2])
    maps = F.conv2d(F.relu(features), weight[:, :, None, None], bias)[torch.arange(3), labels]
    maps = F.interpolate(maps[:, None], (12, 10), mode="bilinear")[:, 0]
    maps = maps - maps.amin((1, 2), keepdim=True)
    truth = maps / maps.sum((1, 2), keepdim=True)
    found = class_activation(features, weight, bias, labels, (12, 10))
    torch.testing.assert_close(found, truth)
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(3))
    with pytest.raises(ValueError, match="weight"):
        class_activation(features, weight.T, bias, labels, (12, 10))


def test_activation_maps_take_the_last_features():
    model, x, y = ConvNet(), images(2, 3, 8, 8), torch.tensor([1, 3])
    found = activation_maps(model, x, y)
    assert model.training
    model.eval()
    features = model.last(F.relu(model.norm(model.stem(x))))
    truth = class_activation(features, model.fc.weight, model.fc.bias, y, (8, 8))
    torch.testing.assert_close(found, truth.detach())
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="classifier"):
        activation_maps(nn.Conv2d(3, 4, 1), x, y)
    with pytest.raises(ValueError, match="features"):
        activation_maps(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), x, y)


# ------------------------------------------------------------------ attention


class ViTAttention(nn.Module):
    """Attention as Transformers' ViT has it, with the names of its parts."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.num_attention_heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.scaling = (width // heads) ** -0.5

    def forward(self, x):
        heads = self.num_attention_heads
        q, k, v = (
            layer(x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        self.weights = (q * self.scaling @ k.mT).softmax(-1)
        return (self.weights @ v).transpose(1, 2).flatten(2)


def test_class_attention_equals_the_weights():
    model = nn.Sequential(ViTAttention(), nn.LayerNorm(12), ViTAttention())
    for tokens, block in ((17, -1), (18, 0), (21, 1)):  # 0, 1 and 4 tokens besides the class
        x = images(2, tokens, 12)
        plain = model(x)
        with ClassAttention(model, block) as seen:
            assert torch.equal(model(x), plain)
        row = model[0 if block == 0 else 2].weights[:, :, 0]
        torch.testing.assert_close(seen.attn[:, :, 0, 1:], row[..., tokens - 16 :].detach())
        torch.testing.assert_close(seen.attn[:, :, 0, 0], row[..., 0].detach())
        torch.testing.assert_close(seen.maps.flatten(1), row[..., tokens - 16 :].detach().mean(1))
        assert not any(module._forward_hooks for module in model.modules())


def test_class_attention_of_grids_that_are_not_square():
    model, x = nn.Sequential(ViTAttention()), images(2, 14, 12)
    with ClassAttention(model, prefix=2, grid=(3, 4)) as seen:
        model(x)
    assert seen.maps.shape == (2, 3, 4) and seen.attn.shape == (2, 3, 1, 13)
    torch.testing.assert_close(seen.maps.flatten(1), model[0].weights[:, :, 0, 2:].detach().mean(1))
    for keywords in ({"prefix": 2}, {"prefix": 1, "grid": (3, 4)}, {"grid": (4, 4)}):
        with ClassAttention(model, **keywords) as seen:
            model(x)
        with pytest.raises(ValueError, match="grid"):
            _ = seen.maps


def test_class_attention_that_cannot_be_read():
    with pytest.raises(ValueError, match="eager"):
        ClassAttention(ConvNet())
    with pytest.raises(ValueError, match="block 3"):
        ClassAttention(nn.Sequential(ViTAttention()), 3)
    with ClassAttention(nn.Sequential(ViTAttention())) as seen, pytest.raises(RuntimeError):
        _ = seen.maps


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: gaussian_blur(images(1, 8, 8), (4, 3), (1.0, 1.0)), "size: expected odd"),
        (lambda: gaussian_blur(images(1, 8, 8), (17, 3), (1.0, 1.0)), "size: expected odd"),
        (lambda: gaussian_blur(images(1, 8, 8), (3, 3), (0.0, 1.0)), "sigma: expected"),
        (lambda: spectral_residual(images(1, 3, 8, 8), box=2), "box: expected an odd"),
        (lambda: spectral_residual(images(0, 3, 8, 8)), "images: expected images with pixels"),
        (
            lambda: class_activation(
                images(2, 4, 3, 3), images(5, 4), None, torch.tensor([0, -1]), (6, 6)
            ),
            "labels: expected",
        ),
    ],
)
def test_what_would_give_nan_or_another_class_is_refused(call, match):
    with pytest.raises((ValueError, IndexError), match=f"^{match}"):
        call()
