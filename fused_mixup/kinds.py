"""What the entries of a batch are, and what MixUp and CutMix do with each: one table.

:class:`fused_mixup.BatchMix` and ``docs/kinds.md`` read it. An entry's kind is the one said with
``kinds=``, else that of its tv_tensor type, else that of its name.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from torch import Tensor

from .arguments import kind as shown


class Kind(NamedTuple):
    """One kind of entry. A cut box lies in the last ``space`` dims, or in the dim ``time``."""

    shape: str
    mixup: str  # what happens to a row that is blended
    cutmix: str  # what happens to a row that is cut
    names: tuple[str, ...] = ()  # the keys that mean this kind
    tv_tensor: str = ""  # the class in torchvision.tv_tensors that means it
    space: int | None = None  # dims of the box; None: those of the batch's box
    time: int | None = None  # the dim of time, counted from the end
    scene: str = ""  # entries of one scene share the box in space


_BLEND, _PASTE = "`λ·x_i + (1-λ)·x_j`", "box of x_j pasted"
_WEIGHTS = "`w_i0·y_i + w_i1·y_j`"

KINDS = {
    "image": Kind(
        "[B, C, H, W]",
        _BLEND,
        _PASTE,
        ("image", "images", "pixel_values", "inputs", "x", "img", "imgs", "depth"),
        "Image",
        scene="picture",
    ),
    "video": Kind(
        "[B, T, C, H, W]",
        _BLEND,
        'same box in all frames, or frames with `cut="time"`',
        ("video", "videos", "pixel_values_videos", "frames"),
        "Video",
        space=2,
        time=-4,
        scene="picture",
    ),
    "volume": Kind(
        "[B, C, D, H, W]", _BLEND, _PASTE, ("volume", "volumes"), space=3, scene="volume"
    ),
    "spectrogram": Kind(
        "[B, …, F, T]",
        _BLEND,
        'box in frequency and time, or whole frames with `cut="time"`',
        ("spectrogram", "spectrograms", "mel", "mels", "fbank", "input_features"),
        space=2,
        time=-1,
        scene="spectrogram",
    ),
    "audio": Kind(
        "[B, …, T]",
        _BLEND,
        "span of time pasted; beside pictures `w_i0·x_i + w_i1·x_j`",
        ("audio", "audios", "waveform", "waveforms", "wave", "input_values"),
        space=1,
        time=-1,
        scene="sound",
    ),
    "class_map": Kind(
        "integers [B, …, H, W]",
        "both maps and (λ, 1-λ), as a `MixedTarget`",
        "pasted; a `MixedTarget` of weights (1, 0) where MixUp is on, else integers",
        ("mask", "masks", "segmentation", "segmentation_map", "semantic", "class_map"),
        "Mask",
        scene="any",
    ),
    "soft_map": Kind("floats [B, …, H, W]", _BLEND, _PASTE, ("soft_map",), scene="any"),
    "boxes": Kind(
        "lists of [n, 4], or [B, N, 4]",
        "joined, with `box_weights` λ and 1-λ",
        "kept by the share that is seen, cut to it: `mix_boxes`",
        ("boxes", "bboxes", "bbox", "bounding_boxes"),
        "BoundingBoxes",
    ),
    "instance_masks": Kind(
        "lists of [n, H, W]",
        "joined, as their boxes",
        "cut as the image, dropped with their boxes",
        ("instance_masks", "mask_labels"),
    ),
    "keypoints": Kind(
        "lists of [n, …, 2 or 3]",
        "joined",
        "visible where their pixel is seen: `mix_keypoints`",
        ("keypoints", "kpts", "landmarks"),
        "KeyPoints",
    ),
    "field": Kind(
        "a value for each box",
        "follows its box",
        "follows its box",
        ("class_labels", "box_labels", "category_id", "category_ids", "area", "iscrowd")
        + ("box_weights",),
    ),
    "labels": Kind(
        "int64 [B], or floats [B, …]: soft, multi-hot, real-valued; heads of those",
        f"class indices: a `MixedTarget`; floats: {_WEIGHTS}",
        "the same, by the share that was pasted",
        ("label", "labels", "target", "targets", "y"),
    ),
    "tokens": Kind(
        "integers [B, T]",
        "refused: ids cannot be blended; mix their embeddings",
        "refused",
        ("input_ids", "token_ids", "tokens", "decoder_input_ids"),
    ),
    "keep": Kind(
        "anything",
        "left as it is",
        "left as it is",
        ("id", "ids", "image_id", "image_ids", "index", "indices", "idx", "path", "paths")
        + ("filename", "file_name", "name", "names", "size", "orig_size", "num_boxes"),
    ),
}

IMAGE_LIKE = ("image", "video", "volume", "spectrogram", "audio")
MAPS = ("class_map", "soft_map")
OF_BOXES = ("boxes", "instance_masks", "keypoints", "field")  # each sample has its own number

_BY_NAME = {name: kind for kind, row in KINDS.items() for name in row.names}
_BY_TV_TENSOR = {row.tv_tensor: kind for kind, row in KINDS.items() if row.tv_tensor}


def kind_of_name(name: object) -> str | None:
    """The kind that the key ``name`` means, if any."""
    return _BY_NAME.get(name) if isinstance(name, str) else None


def kind_of_type(value: Any) -> str | None:
    """The kind that the tv_tensor type of ``value`` means, if it is one."""
    if type(value) is Tensor or not isinstance(value, Tensor):
        return None
    tv_tensors = sys.modules.get("torchvision.tv_tensors")  # without it there can be none
    if tv_tensors is None or not isinstance(value, tv_tensors.TVTensor):
        return None
    return next(
        (_BY_TV_TENSOR[c.__name__] for c in type(value).__mro__ if c.__name__ in _BY_TV_TENSOR),
        None,
    )


def check_kind(name: str, kind: object) -> str:
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{name}: expected one of {list(KINDS)}, got {shown(kind)}")
    return kind
