"""OpenMixup's mixes on this package's kernels: change the import line and nothing else.

    from fused_mixup.openmixup import cutmix, fmix, puzzlemix   # from openmixup.models.augments

Names, arguments, results ``(img, (y_a, y_b, lam))`` and their types are those of OpenMixup 0.2.10,
and so are the draws: the same numbers from the same generators (NumPy's, Python's, PyTorch's of the
CPU) in the same order. OpenMixup, mmcv and a GPU are not needed. Keywords that its models hand over
and its functions do not read are taken and not read; others, which it takes too, raise. ``augmix``
mixes no two samples, and is not here.

Where OpenMixup is wrong, a function here is right, and its docstring says what differs;
``compat=True`` gives what OpenMixup gives. ``compat="0.2.9"`` is the last version that pip finds,
whose cutmix and fmix draw one permutation as it comes. Where OpenMixup raises, as for images that
are not square, both work.

Images are mixed in float32 (float64 for float64), each product and sum rounded by itself: in
float32 bit for bit as OpenMixup's. In half precision ``mixup`` rounds once, at the end, where
OpenMixup rounds three times. A weight of 0 drops its term, so a NaN of a partner that is not shown
stays out. Nothing here is differentiable but ``alignmix``.
"""

from .alignment import alignmix
from .analytic import fmix, gridmix, smoothmix
from .attention import attentivemix, transmix
from .boxes import cutmix, mixup, resizemix, saliencymix, tla
from .puzzle import puzzlemix
from .salient import guidedmix, snapmix
from .tokens import mixpro, smmix, tokenmix

__all__ = [
    "alignmix",
    "attentivemix",
    "cutmix",
    "fmix",
    "gridmix",
    "guidedmix",
    "mixpro",
    "mixup",
    "puzzlemix",
    "resizemix",
    "saliencymix",
    "smmix",
    "smoothmix",
    "snapmix",
    "tla",
    "tokenmix",
    "transmix",
]
