"""Arguments of mix_rectangles and mix_patches by name, for tests that call every op."""

from __future__ import annotations

import torch

from fused_mixup.codes import RAW, RESIZE_ALIGNED, RESIZE_BILINEAR


def collage_inputs(device: str = "cpu") -> dict[str, list[dict[str, object]]]:
    """op -> its calls, each a dict from the schema's argument names, in their order."""
    random = torch.Generator().manual_seed(3)

    def rand(*sizes: int) -> torch.Tensor:
        return torch.rand(sizes, generator=random).to(device)

    def ints(values: list) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    x, other = rand(4, 3, 4, 6), rand(3, 3, 4, 6)
    part = ints([[[0, 0, 4, 6], [1, 2, 3, 5]]] * 4)
    box = ints([[[1, 0, 4, 4], [0, 3, 2, 6]], [[0, 0, 4, 6], [2, 2, 4, 5]]] * 2)
    canvas = ints([[[0, 0, 2, 2], [3, 4, 7, 9]]] * 4)
    rectangles = {"x": x, "other": None, "source": ints([[1, 2], [0, 0], [3, 1], [2, 1]])}
    onto = {"box": box, "fill": None, "out": torch.zeros_like(x)}
    last = torch.zeros_like(x).to(memory_format=torch.channels_last)
    calls = [
        onto | {"resample": RESIZE_BILINEAR, "scale": 0.5 + rand(4, 2, 2)},
        {"box": canvas, "resample": RAW, "fill": 3.0, "out": rand(4, 3, 7, 9)},
        onto | {"resample": RESIZE_ALIGNED, "other": other, "out": last},
    ]
    names = ("x", "other", "source", "source_box", "box", "scale", "resample", "fill", "out")
    every = [rectangles | {"source_box": part, "scale": None} | call for call in calls]
    every[2]["source"] = ints([[1, 2], [0, 0], [2, 1], [2, 1]])
    index = ints([[[0, 1, -1], [3, 5, 2]], [[5, 4, 3], [2, 1, 0]]] * 2)
    patches = {"x": x, "sample": None, "index": index, "partner": None, "partner_index": None}
    mixed = {"partner": ints([3, 2, 1, 0]), "partner_index": ints([[[1, 0]]] * 4)}
    mixed["mask"] = torch.tensor([[[0.0, 0.5], [1.0, 0.3]]] * 4, device=device)
    both = [
        patches | mixed | {"out": torch.zeros_like(x)},
        patches | {"sample": (index + 1).clamp(0, 3), "mask": None, "out": last.clone()},
    ]
    return {
        "mix_rectangles": [{name: call[name] for name in names} for call in every],
        "mix_patches": both,
    }
