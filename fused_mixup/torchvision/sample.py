"""What the entries of a sample are, by torchvision's rules: images, masks, labels, or none of them.

torchvision is never imported here. Its tensor classes are looked up where its module is loaded
already; where it is not, no object of these classes can exist.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..checks import check_memory, check_writable, span
from ..codes import MAX_DIMS
from ..dtypes import BLENDABLE
from ..target.checks import label_bounds
from ..tracing import tree_flatten, tree_unflatten


@dataclass
class Sample:
    """A sample as a flat list, and the positions of its labels, images and masks."""

    leaves: list[Any]
    spec: Any  # a TreeSpec; None for a tuple of tensors
    labels: Tensor  # [B] or [B, K]
    labels_at: int
    images: list[int]  # [B, C, H, W], videos [B, T, C, H, W]
    masks: list[int]  # [B, …, H, W]

    def rebuild(self, leaves: list[Any]) -> Any:
        """Other leaves in the sample's structure."""
        return tuple(leaves) if self.spec is None else tree_unflatten(leaves, self.spec)


def _flatten(inputs: Any) -> tuple[list[Any], Any]:
    if type(inputs) is tuple and all(isinstance(leaf, Tensor) for leaf in inputs):
        return list(inputs), None  # what most loaders give; takes a tenth of the time
    return tree_flatten(inputs)


def _types(module: str, *names: str) -> tuple[type, ...]:
    """The classes ``names`` of a module, without those that it lacks; none if it is not loaded."""
    loaded = sys.modules.get(module)
    return tuple(t for t in (getattr(loaded, name, None) for name in names) if t is not None)


def tv_types(*names: str) -> tuple[type, ...]:
    return _types("torchvision.tv_tensors", *names)


def is_pure(t: object) -> bool:
    """Whether t is a tensor that torchvision has given no meaning."""
    return type(t) is Tensor or (isinstance(t, Tensor) and not isinstance(t, tv_types("TVTensor")))


def plain(t: Tensor) -> Tensor:
    """t without its subclass: the same memory, the same autograd graph."""
    return t if type(t) is Tensor else t.as_subclass(Tensor)


def wrap_like(out: Tensor, like: Tensor) -> Tensor:
    """``out`` in the torchvision class of ``like``, if it has one."""
    return out if is_pure(like) else sys.modules["torchvision.tv_tensors"].wrap(out, like=like)


# ------------------------------------------------------------------ labels


def default_labels(inputs: Any) -> Tensor:
    """The second entry if it is a plain tensor, else its (or the dict's own) label-like key."""
    if isinstance(inputs, (tuple, list)):
        if len(inputs) < 2:
            raise IndexError(
                f"labels_getter='default': expected (images, labels, …), got {len(inputs)} "
                "entries; give labels_getter a callable"
            )
        inputs = inputs[1]
    if is_pure(inputs):
        return inputs
    if not isinstance(inputs, Mapping):
        raise ValueError(
            "labels_getter='default': expected a dict, or a tuple whose second entry is a tensor "
            f"or a dict, got {type(inputs).__name__}; give labels_getter a callable"
        )
    names = [key for key in inputs if isinstance(key, str)]
    exact = [key for key in names if key.lower() == "labels"]
    like = [key for key in names if "label" in key.lower()]
    if not like:
        raise ValueError(
            f"labels_getter='default': expected a key 'labels', or one with 'label' in it, got "
            f"{list(inputs)}; give labels_getter a callable"
        )
    return inputs[(exact or like)[0]]


def no_labels(inputs: Any) -> None:
    return None


def labels_function(labels_getter: str | Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    if labels_getter is None:
        return no_labels
    if callable(labels_getter):
        return labels_getter
    if labels_getter != "default":
        raise ValueError(f"labels_getter: expected 'default' or a callable, got {labels_getter!r}")
    return default_labels


def _check_labels(labels: object, num_classes: int | None, sparse: bool) -> Tensor:
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"labels: expected a tensor [B] or [B, K], got {type(labels).__name__}; give "
            "labels_getter a callable that returns the label tensor of a sample"
        )
    check_memory("labels", labels)
    if labels.ndim not in (1, 2):
        raise ValueError(
            f"labels: expected class indices [B] or soft labels [B, K], got {list(labels.shape)}"
        )
    if labels.ndim == 2 and sparse:
        raise ValueError(
            f"labels: expected class indices [B] with sparse_targets=True, got soft labels "
            f"{list(labels.shape)}; leave sparse_targets False"
        )
    if labels.ndim == 2 and num_classes is not None and labels.shape[1] != num_classes:
        raise ValueError(
            f"labels: expected [B, {num_classes}] as num_classes says, got {list(labels.shape)}; "
            "num_classes may be left None for soft labels"
        )
    if labels.ndim == 1 and num_classes is None:
        raise ValueError("num_classes: expected an int for class indices [B], got None")
    if labels.ndim == 1 and labels.dtype != torch.int64:
        raise RuntimeError(
            f"labels: expected int64 class indices, got {labels.dtype} {list(labels.shape)}; "
            "use .long(), or [B, K] for soft labels"
        )
    if labels.ndim == 1 and num_classes == -1 and not labels.numel():
        raise RuntimeError("num_classes: expected an int where there are no labels, got -1; give K")
    if labels.ndim == 1 and labels.device.type == "cpu" and labels.numel():
        low, high = label_bounds(labels)
        if low < 0 or (num_classes != -1 and high >= (num_classes or 0)):
            raise RuntimeError(
                f"labels: expected class indices in [0, {num_classes}), got "
                f"{low if low < 0 else high}; check num_classes"
            )
    return labels


def num_classes_of(labels: Tensor, num_classes: int | None) -> int:
    """K; for -1 the largest label + 1, as in torch.nn.functional.one_hot."""
    return int(labels.max()) + 1 if num_classes == -1 else num_classes or 0


# ------------------------------------------------------------------ images and masks


def read_sample(
    name: str,
    inputs: Any,
    labels_getter: Callable[[Any], Any],
    num_classes: int | None,
    *,
    cuts: bool,
    inplace: bool,
    sparse: bool,
) -> Sample:
    """Sort the entries and check all of them, before anything is drawn or written."""
    leaves, spec = _flatten(inputs)
    images, masks, pure = _sort(name, leaves, cuts)
    labels = _check_labels(labels_getter(inputs), num_classes, sparse)
    at = next((i for i, leaf in enumerate(leaves) if leaf is labels), None)
    if at is None:
        raise ValueError(
            "labels_getter: expected it to return one of the sample's own tensors, got another; "
            "convert labels before the transform, not in the getter"
        )
    if not images:  # then torchvision takes the first plain tensor for the image
        images = [i for i in pure[:1] if i != at]
    if not images:
        _refuse_no_image(name, cuts, others=len(pure) > 1)
    for i in images:
        check_memory("images", leaves[i])
        _check_image(name, leaves[i], labels.shape[0], cuts)
    for i in masks:
        check_memory("masks", leaves[i])
    if cuts:
        _check_sizes([leaves[i] for i in images], [leaves[i] for i in masks], labels.shape[0])
    if inplace:
        for i in images + masks:
            check_writable("images" if i in images else "masks", plain(leaves[i]), "detach it")
        _check_disjoint([plain(leaves[i]) for i in images + masks])
    return Sample(leaves, spec, labels, at, images, masks)


def _sort(name: str, leaves: list[Any], cuts: bool) -> tuple[list[int], list[int], list[int]]:
    images: list[int] = []
    masks: list[int] = []
    pure: list[int] = []
    for i, leaf in enumerate(leaves):
        if is_pure(leaf):
            pure.append(i)
        elif not isinstance(leaf, Tensor):
            if isinstance(leaf, _types("PIL.Image", "Image")):
                raise ValueError(
                    f"{name}: expected a batch of images as one tensor, got a PIL image; use "
                    "v2.ToImage() on the samples and mix the collated batch"
                )
        elif isinstance(leaf, tv_types("Image", "Video")):
            images.append(i)
        elif isinstance(leaf, tv_types("Mask")):
            if not cuts:
                raise ValueError(
                    f"{name}: expected no masks, got a tv_tensors.Mask: class indices cannot be "
                    "blended; use CutMix, which pastes them"
                )
            masks.append(i)
        elif isinstance(leaf, tv_types("BoundingBoxes", "KeyPoints")):
            raise ValueError(
                f"{name}: expected images, masks and labels, got tv_tensors."
                f"{type(leaf).__name__}, which cannot be mixed; leave them out of what the "
                "transform is given"
            )
    return images, masks, pure


def _refuse_no_image(name: str, cuts: bool, others: bool) -> None:
    remedy = "put the images first, or make them a tv_tensors.Image"
    if cuts:
        raise TypeError(
            f"{name}: expected an image (the first plain tensor, or a tv_tensors.Image or Video), "
            f"got none; {remedy}"
        )
    if others:  # torchvision does the same, without a warning
        warnings.warn(
            f"{name}: the labels are the first tensor of the sample, so they are mixed and no "
            f"image is; {remedy}",
            stacklevel=7,  # the caller of the transform: nn.Module's two frames lie between
        )


def _check_image(name: str, image: Tensor, batch_size: int, cuts: bool) -> None:
    video = not is_pure(image) and isinstance(image, tv_types("Video"))
    shape = list(image.shape)
    if len(shape) != 4 + video:
        want = "videos: expected [B, T, C, H, W]" if video else "images: expected [B, C, H, W]"
        raise ValueError(f"{want}, got {shape}; {name} takes batches: use it after collating")
    if shape[0] != batch_size:
        raise ValueError(
            f"images: expected a batch of {batch_size}, as there are labels, got {shape}"
        )
    if not cuts and image.dtype not in BLENDABLE and not image.is_complex():
        raise RuntimeError(
            f"images: expected a floating dtype or uint8, got {image.dtype}; use .float()"
        )
    if cuts and 0 in shape[-2:]:
        raise RuntimeError(f"images: expected H and W of at least 1, got {shape}")


def _check_sizes(images: list[Tensor], masks: list[Tensor], batch_size: int) -> None:
    sizes = sorted({tuple(t.shape[-2:]) for t in images})
    if len(sizes) > 1:
        raise ValueError(f"images: expected one size, as they share the box, got {sizes}")
    for mask in masks:
        shape = tuple(mask.shape)
        if not 3 <= len(shape) <= 1 + MAX_DIMS or shape[0] != batch_size or shape[-2:] != sizes[0]:
            raise ValueError(
                f"masks: expected [{batch_size}, …, {sizes[0][0]}, {sizes[0][1]}] as the images, "
                f"in at most {1 + MAX_DIMS} dims, got {list(shape)}"
            )


def memory_of(t: Tensor) -> tuple[Any, ...]:
    """A key that is equal for tensors that are the same view of the same memory."""
    return t.data_ptr(), t.shape, t.stride(), t.dtype


def _check_disjoint(tensors: list[Tensor]) -> None:
    """Raise where two tensors to be written share a part of their memory, but not all of it.

    Only tensors without gaps are compared. Interleaved ones (channels of one tensor) pass, as they
    may well be disjoint.
    """
    if len(tensors) < 2:
        return
    pieces = {}
    for t in tensors:
        first, last = span(t)
        if last + 1 - first == t.nbytes > 0:
            pieces[memory_of(t)] = first, last
    for (_, last), (first, _) in pairwise(sorted(pieces.values())):
        if first <= last:
            raise ValueError(
                "images, masks: expected memory of their own, or all of it in common, as they are "
                "written in place, got two that overlap in part; use .clone() or inplace=False"
            )
