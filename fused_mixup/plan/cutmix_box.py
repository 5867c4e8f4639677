"""The CutMix box of a centre and a λ: :func:`cutmix_box`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..arguments import integer_tuple
from .checks import check_lam


def cutmix_box(
    spatial: Sequence[int], lam: float, center: Sequence[int]
) -> tuple[tuple[int, ...], float]:
    """The CutMix box around ``center``, clipped at the border, and the λ of the area really pasted.

    A box that covers 1-λ of a D-dimensional extent has sides ``int(size * (1-lam)**(1/D))``. Side
    ``s`` around centre ``c`` spans ``[c - s//2, c - s//2 + s)`` before clipping.

    Equivalent to::

        sides = [int(n * (1 - lam) ** (1 / D)) for n in spatial]
        start = [max(c - s // 2, 0) for c, s in zip(center, sides)]
        stop  = [min(c + (s + 1) // 2, n) for c, s, n in zip(center, sides, spatial)]
        lam   = 1 - prod(stop - start) / prod(spatial)

    Args:
        spatial: the D spatial sizes in elements, e.g. ``(H, W)``; D is 1, 2 or 3.
        lam: share of the sample to keep, in [0, 1].
        center: D integer coordinates inside ``spatial``.

    Returns:
        ``(box, lam)``: D starts then D stops (half-open), and the corrected λ as a float. An empty
        box has start == stop in some dimension and λ = 1.

    Raises:
        TypeError, ValueError: an argument that is not as described.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899 (the rounding of odd sides is timm's).
    """
    spatial, center = integer_tuple("spatial", spatial), integer_tuple("center", center)
    if not 1 <= len(spatial) <= 3 or len(center) != len(spatial):
        raise ValueError(
            f"spatial and center: expected the same 1, 2 or 3 dims, got {spatial} and {center}; "
            "leave batch and channel dims out"
        )
    lam = check_lam(lam)
    if any(n <= 0 for n in spatial) or any(
        not 0 <= c < n for c, n in zip(center, spatial, strict=True)
    ):
        raise ValueError(f"center: expected a point inside {spatial}, got {center}")
    scale = (1.0 - lam) ** (1.0 / len(spatial)) if len(spatial) != 2 else math.sqrt(1.0 - lam)
    sides = [int(n * scale) for n in spatial]
    start = [max(c - s // 2, 0) for c, s in zip(center, sides, strict=True)]
    stop = [min(c + (s + 1) // 2, n) for c, s, n in zip(center, sides, spatial, strict=True)]
    area = math.prod([b - a for a, b in zip(start, stop, strict=True)])  # a list, for Dynamo
    return (*start, *stop), 1.0 - area / math.prod(spatial)
