"""mix_normalize takes arrays, also read-only ones, and what Pillow, torchvision and timm give."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from image_layouts import MEAN, STD, B, H, W, address, check, pixels, watch

import fused_mixup as fm
from benchmarks import installed_peers


@pytest.fixture
def handed(monkeypatch):
    return watch(monkeypatch)


def read_only(array):
    """The same pixels in an array that a bytes object owns, as NumPy and webdataset give them."""
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


def test_read_only_arrays(backend, handed):
    """No copy, no warning, nothing written: bytes are immutable for all of Python."""
    x = pixels(B, 3, H, W)
    samples = [read_only(s.permute(1, 2, 0).numpy()) for s in x]
    before = [s.base.base if isinstance(s.base, np.ndarray) else s.base for s in samples]
    copies = [bytes(bytearray(b)) for b in before]
    batch = read_only(x.permute(0, 2, 3, 1).numpy())
    mixed = [samples[0].copy(), *samples[1:]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (samples, mixed, [s.transpose(2, 0, 1) for s in samples]):
            check(images, x, "samples")
            assert [p for p, _ in handed] == [address(s) for s in images]
        check(batch, x, "batch")
        assert [p for p, _ in handed] == [address(batch)]
    assert all(isinstance(b, bytes) for b in before) and before == copies
    assert not any(s.flags.writeable for s in samples) and not batch.flags.writeable


def test_arrays_of_negative_strides(backend):
    """Tensors cannot have them, so that these alone are copied."""
    x = pixels(B, 3, H, W)
    array = x.permute(0, 2, 3, 1).contiguous().numpy()
    flips = {
        "mirrored": (array[:, :, ::-1], x.flip(3)),
        "upside down": (array[:, ::-1], x.flip(2)),
        "BGR to RGB": (array[..., ::-1], x.flip(1)),
    }
    for name, (images, expected) in flips.items():
        check(images, expected, name)
        check([*images], expected, name)
        image = [np.flip(read_only(s.copy()), 0) for s in images]
        check(image, expected.flip(2), name)


# ------------------------------------------------------------------ the real packages


def pictures():
    """[PIL image] and its pixels [B, C, H, W]."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    x = pixels(B, 3, H, W)
    return [image.fromarray(s.permute(1, 2, 0).numpy()) for s in x], x


def peers():
    why = installed_peers.reason_missing()
    if why:
        pytest.skip(why)
    return installed_peers.load()


def test_pillow(backend, handed):
    images, x = pictures()
    arrays = [np.asarray(image) for image in images]
    assert not any(a.flags.writeable for a in arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(arrays, x, "asarray")
    assert handed == [(address(a), (1, 3 * W, 3)) for a in arrays]
    assert all(np.array_equal(np.asarray(i), a) for i, a in zip(images, arrays, strict=True))
    with pytest.raises(TypeError, match="PIL image"):
        fm.mix_normalize(images, mean=MEAN, std=STD)


def test_torchvision(backend, handed):
    _, torchvision = peers()
    images, x = pictures()
    v2 = torchvision.transforms.v2
    hwc, chw = (1, 3 * W, 3), (H * W, W, 1)
    arrays = [np.array(image) for image in images]
    for name, samples, strides in (
        ("PILToTensor", [*map(torchvision.transforms.PILToTensor(), images)], hwc),
        ("ToImage", [*map(v2.ToImage(), images)], hwc),
        ("ToImage of arrays", [*map(v2.ToImage(), arrays)], chw),
        ("flip", [v2.functional.horizontal_flip(i) for i in map(v2.ToImage(), images)], hwc),
    ):
        expected = x.flip(3) if name == "flip" else x
        check(samples, expected, name)
        assert handed == [(address(s), strides) for s in samples], name
    grey = [*map(v2.Grayscale(3), map(v2.ToImage(), images))]
    check(grey, torch.stack([g.as_subclass(torch.Tensor) for g in grey]), "Grayscale")
    assert handed == [(address(s), (0, W, 1)) for s in grey]
    floats = [*map(torchvision.transforms.ToTensor(), images)]
    check(floats, torch.stack(floats), "ToTensor")
    wrapped = torchvision.tv_tensors.Image(x)  # a batch that a data set hands over whole
    check(wrapped, x, "tv_tensors.Image")
    assert handed == [(x.data_ptr(), x.stride())]
    assert type(fm.mix_normalize(wrapped, mean=MEAN, std=STD)) is torch.Tensor


def test_timm(backend, handed):
    timm, _ = peers()
    images, x = pictures()
    samples = [timm.data.transforms.ToNumpy()(image) for image in images]
    check(samples, x, "ToNumpy")
    assert handed == [(address(s), (1, 3 * W, 3)) for s in samples]
    collated, _ = timm.data.loader.fast_collate([(s, 0) for s in samples])
    check(collated, x, "fast_collate")
