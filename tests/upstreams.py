"""JPEG files, and the packages that read them; skips a test where one is missing or broken."""

from __future__ import annotations

import importlib
import importlib.util
import io

import numpy as np
import pytest
import torch

from benchmarks import installed_peers

FILES, SIZE = 10, (48, 64)


def why_absent(module):
    """Why a module is not to be had, or None."""
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return "is not installed; pip install 'fused-mixup[upstreams]'"
    installed_peers.fit_torchvision()
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        return f"does not load with torch {torch.__version__}: {reason}"
    if module == "torchvision.io" and not hasattr(torch.ops.image, "decode_jpeg"):
        return f"has decoders that are built for another torch than {torch.__version__}"
    return None


def need(module):
    """The module, imported; skips the test where it is not to be had."""
    why = why_absent(module)
    if why is not None:
        pytest.skip(f"{module} {why}")
    return importlib.import_module(module)


# ------------------------------------------------------------------ images


def picture(i):
    """A smooth image, so that JPEG keeps it; its orientation shows."""
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x * (c + 1) + y * (i + 1)) / 9) for c in range(3)]
    return (127 + 120 * np.stack(waves, 2)).astype(np.uint8)


def jpeg(i, orientation=None):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    exif, out = image.Exif(), io.BytesIO()
    if orientation:
        exif[0x0112] = orientation
    image.fromarray(picture(i)).save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def decoded(i):
    """The pixels by Pillow, [C, H, W]."""
    image = importlib.import_module("PIL.Image")
    return torch.from_numpy(np.array(image.open(io.BytesIO(jpeg(i))))).permute(2, 0, 1)


def write_folder(root):
    """FILES images in two folders, one for each class."""
    for i in range(FILES):
        (root / str(i % 2)).mkdir(exist_ok=True)
        (root / str(i % 2) / f"{i}.jpg").write_bytes(jpeg(i))


def write_shard(path):
    web = need("webdataset")
    with web.TarWriter(str(path)) as sink:
        for i in range(FILES):
            sink.write({"__key__": f"{i:03}", "jpg": jpeg(i), "cls": i % 2})
