"""Every variant on the same two photographs: :func:`show_variants`, and ``--all``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .. import MixPlan, RectanglePlan, mix, mix_patches, mix_rectangles
from ..arguments import integer, kind
from .pillow import require_pillow
from .shares import OWN, PARTNER, Names, Share, class_name

if TYPE_CHECKING:
    from PIL import Image

    from .gallery_plans import Plan

# scikit-learn's photographs, which --all takes where none are named.
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
COLUMNS = 7


class Cell(NamedTuple):
    """What one variant makes of the first photograph."""

    name: str
    rule: str  # of its label weights
    image: Tensor  # float32 [3, H, W], or a canvas
    mask: Tensor  # float32 [H, W]: the share of the first photograph in each pixel
    weight: tuple[float, float]  # of the labels of both


def show_variants(
    images: Tensor,  # [2, 3, H, W]
    class_names: Names = None,
    *,
    seed: int = 0,
    columns: int | None = None,
    title: str = "",
) -> Image.Image:
    """Draw every variant on the same two photographs, with its mask and label weights.

    For each variant: the first photograph as it is mixed with the second, how much of each pixel
    the first has (white: all of it), the weights of both labels, and the rule they follow::

        show_variants(photographs, ("china", "flower")).save("variants.png")

    Args:
        images: [2, 3, H, W], uint8, or floats in [0, 1], on any device; H and W are multiples
            of 8.
        class_names: names of the two, a sequence or a dict of index to name.
        seed: of the places that are drawn.
        columns: how many variants stand side by side; by default 7.
        title: a line above the figure.

    Returns:
        A ``PIL.Image.Image`` in RGB.

    Raises:
        ImportError: Pillow or NumPy is not installed.
        TypeError, ValueError: an argument that is not as described.

    Notes:
        λ is 0.6 for all variants that take one. Maps that a network would give (saliency,
        attention, a class activation) are spectral residuals here, a label map is brightness.
    """
    require_pillow()
    from . import figure, tiles

    columns = COLUMNS if columns is None else integer("columns", columns)
    if columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}")
    pixels = _check_images(images)
    size = tiles.shown_size(*pixels.shape[2:])
    names = [class_name(class_names, i) for i in range(2)]
    drawn = [
        _photograph(figure, tiles, pixels[i], names[i], OWN if i == 0 else PARTNER)
        for i in range(2)
    ]
    high = figure.BAR + 6 + 2 * figure.LINE - 4
    small = (max(1, round(high * size[1] / size[0])), high)
    for cell in variant_cells(pixels, seed):
        shares = [
            Share(names[i], w, (OWN, PARTNER)[i]) for i, w in enumerate(cell.weight) if w != 0.0
        ]
        mixed = tiles.to_bytes(cell.image[None], None, None)[0][0]
        mask = tiles.to_bytes(cell.mask[None, None], None, None)[0][0]
        # A canvas is larger than the photographs, and drawn as large as they are.
        tile = figure.Tile(tiles.picture(mixed).resize(size[::-1]), shares, cell.rule)
        tile.name = cell.name
        tile.mask = tiles.picture(mask).resize(small)
        drawn.append(tile)
    notes = [
        f"masks are white where {names[0]} is seen, black where {names[1]} is; the line below is "
        "the rule of the label weights; spectral residuals replace the saliency and "
        "attention of networks, brightness replaces label maps"
    ]
    return figure.draw_figure(drawn, columns, title, notes)


def variant_cells(images: Tensor, seed: int = 0) -> list[Cell]:
    """What each variant makes of two photographs, float32 [2, 3, H, W]."""
    from .gallery_photos import Photos, residual_saliency
    from .gallery_plans import VARIANTS

    saliency = residual_saliency(images)
    cells = []
    for variant in VARIANTS:
        generator = torch.Generator().manual_seed(seed)
        plan = variant.plan(Photos(images, saliency, generator))
        # Mixed as the photographs are, an image of ones and one of zeros are the share of the
        # first: of any plan, as it acts, and not as its mask says.
        ones = torch.ones_like(images[:, :1])
        ones[1] = 0.0
        image, mask = apply(plan, images)[0], apply(plan, ones)[0, 0]
        cells.append(Cell(variant.name, variant.rule, image, mask, label_weights(plan)))
    return cells


def apply(plan: Plan, x: Tensor) -> Tensor:
    if isinstance(plan, MixPlan):
        return mix(x, plan)
    return mix_rectangles(x, plan) if isinstance(plan, RectanglePlan) else mix_patches(x, plan)


def label_weights(plan: Plan) -> tuple[float, float]:
    """The weights of the labels of both photographs in the first row; a label's weights add."""
    if isinstance(plan, MixPlan):
        sources = [0, int(plan.partner[0])]
    else:
        sources = plan.label_sources[0].tolist()
    sums = [0.0, 0.0]
    for source, weight in zip(sources, plan.weight[0].tolist(), strict=True):
        sums[source] += weight
    return sums[0], sums[1]


def bundled_photographs() -> list[Path]:
    """The files of scikit-learn's photographs; ValueError where it is not installed."""
    found = importlib.util.find_spec("sklearn")
    folders = [] if found is None else found.submodule_search_locations or []
    for folder in folders:
        paths = [Path(folder, "datasets", "images", name) for name in PHOTOGRAPHS]
        if all(path.is_file() for path in paths):
            return paths
    raise ValueError(
        "PATH: expected two images, or scikit-learn, whose photographs --all takes where none are "
        "named; pip install scikit-learn"
    )


def _photograph(figure: Any, tiles: Any, image: Tensor, name: str, source: str) -> Any:
    pixels = tiles.to_bytes(image[None], None, None)[0][0]
    tile = figure.Tile(tiles.picture(pixels), [Share(name, 1.0, source)], "not mixed")
    tile.name = name
    return tile


def _check_images(images: Any) -> Tensor:
    from .gallery_plans import CELLS

    expected = f"images: expected two photographs [2, 3, H, W], H and W multiples of {CELLS}"
    if not isinstance(images, Tensor):
        raise TypeError(f"{expected}, got {kind(images)}")
    if images.ndim != 4 or images.shape[:2] != (2, 3):
        raise ValueError(f"{expected}, got shape {list(images.shape)}")
    if any(n % CELLS or n < 2 * CELLS for n in images.shape[2:]):
        raise ValueError(f"{expected}, from {2 * CELLS} on, got {list(images.shape[2:])}")
    pixels = images.detach().cpu()
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255.0
    if not pixels.is_floating_point():
        raise TypeError(f"{expected}, uint8 or floats, got {pixels.dtype}")
    low, high = map(float, pixels.aminmax())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"{expected}, floats in [0, 1], got {low:.3g} to {high:.3g}; clamp them, or divide "
            "bytes by 255"
        )
    return pixels.float()
