"""``python -m fused_mixup.preview``: read images, mix them with BatchMix, draw what comes out."""

from __future__ import annotations

import argparse
import copy
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import BatchMix
from .gallery import bundled_photographs, show_variants
from .options import BATCH, check_all, make_parser, settings_of, settings_text
from .pillow import require_pillow
from .progress import Progress
from .view import show

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ends
MOST_NAMED = 20  # files that could not be read
FEWEST = 2  # images that can be mixed


class Sample(NamedTuple):
    path: Path
    image: Tensor  # uint8 [3, size, size]
    boxes: Tensor | None  # float32 [n, 4]
    box_labels: Tensor | None  # int64 [n]
    mask: Tensor | None  # int64 [size, size]


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        require_pillow()
        print(run(args))
    except (ImportError, ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("\ninterrupted, nothing is written", file=sys.stderr)
        return INTERRUPTED
    return 0


def run(args: argparse.Namespace) -> str:
    """Read, mix, draw and write; returns what was done. Errors are ValueError and the like."""
    from .annotations import CocoBoxes, MaskFolder
    from .pictures import class_of, find_pictures

    for name, least in (("batch", FEWEST), ("size", 8), ("columns", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name}: expected at least {least}, got {value}")
    file_format = check_out(args.out)
    settings = settings_of(args)
    if args.all:
        check_all(args)
        write(draw_variants(args, settings["seed"]), args.out, file_format)
        return f"{args.out}: every variant on two images of {args.size} x {args.size} pixels"
    if not args.paths:
        raise ValueError("PATH: expected folders or images, got none")
    BatchMix(2, **settings)  # errors of settings come before any image is read
    coco = None if args.boxes is None else CocoBoxes(args.boxes)
    masks = None if args.masks is None else MaskFolder(args.masks)

    paths = find_pictures(args.paths, settings["seed"])
    samples, unread = read_samples(paths, args, coco, masks)
    if len(samples) < FEWEST:
        raise ValueError(
            f"expected at least {FEWEST} images that can be read, got {len(samples)} in "
            f"{', '.join(map(str, args.paths))}"
        )
    if coco is not None and not any(coco.find(sample.path) for sample in samples):
        raise ValueError(
            f"--boxes: expected the names of the images read, got none in {args.boxes}"
        )
    class_names = sorted({class_of(path) for path in paths})
    index = {name: i for i, name in enumerate(class_names)}
    labels = torch.tensor([index[class_of(sample.path)] for sample in samples])
    figure = mix_and_draw(samples, labels, class_names, settings, args, coco)
    write(figure, args.out, file_format)
    done = f"{args.out}: {len(samples)} mixed images of {args.size} x {args.size} pixels"
    return f"{done}; {unread} could not be read" if unread else done


def draw_variants(args: argparse.Namespace, seed: int) -> Any:
    """The figure of ``--all``."""
    from .gallery_plans import CELLS
    from .pictures import find_pictures, read_picture

    if args.size % CELLS or args.size < 2 * CELLS:
        raise ValueError(
            f"--size: expected a multiple of {CELLS} from {2 * CELLS} on for --all, whose grids "
            f"divide it, got {args.size}"
        )
    paths = find_pictures(args.paths or bundled_photographs(), seed)[:FEWEST]
    if len(paths) < FEWEST:
        raise ValueError(f"PATH: expected {FEWEST} images for --all, got {len(paths)}")
    images = torch.stack([read_picture(path, args.size).image for path in paths])
    names = [path.stem for path in paths]
    return show_variants(images, names, seed=seed, columns=args.columns)


def read_samples(
    paths: Sequence[Path], args: argparse.Namespace, coco: Any, masks: Any
) -> tuple[list[Sample], int]:
    """The first images that can be read, as many as asked for, and how many could not."""
    samples: list[Sample] = []
    unread = []
    batch = BATCH if args.batch is None else args.batch
    with Progress(min(batch, len(paths))) as progress:
        for path in paths:
            if len(samples) == batch:
                break
            try:
                samples.append(read_sample(path, args.size, coco, masks))
            except Exception as error:  # decoders raise errors of any type
                said = " ".join(str(error).replace(str(path), path.name).split())
                unread.append(f"not read: {path}: {said or type(error).__name__}")
            else:
                progress.step()
    for line in unread[:MOST_NAMED]:
        print(line, file=sys.stderr)
    if len(unread) > MOST_NAMED:
        print(f"not read: {len(unread) - MOST_NAMED} more", file=sys.stderr)
    return samples, len(unread)


def read_sample(path: Path, size: int, coco: Any, masks: Any) -> Sample:
    from .pictures import read_picture

    record = None if coco is None else coco.find(path)
    picture = read_picture(path, size, None if record is None else record.size)
    boxes, box_labels = (None, None) if coco is None else coco.boxes(record, picture.square)
    mask = None if masks is None else masks.read(path, picture.square)
    return Sample(path, picture.image, boxes, box_labels, mask)


def mix_and_draw(
    samples: Sequence[Sample],
    labels: Tensor,  # [B]
    class_names: Sequence[str],
    settings: dict[str, Any],
    args: argparse.Namespace,
    coco: Any,
) -> Any:
    batch: dict[str, Any] = {
        "image": torch.stack([sample.image for sample in samples]),
        "label": labels,
    }
    num_classes = {"label": len(class_names)}
    if coco is not None:
        batch["boxes"] = [sample.boxes for sample in samples]
        batch["labels"] = [sample.box_labels for sample in samples]
    if args.masks is not None:
        batch["mask"] = torch.stack([s.mask for s in samples if s.mask is not None])
        classes = batch["mask"][batch["mask"] != settings["ignore_index"]]
        num_classes["mask"] = int(classes.max()) + 1 if classes.numel() else 1
    mixer = BatchMix(num_classes, **settings)
    # A copy draws the plan of the step, which BatchMix does not give.
    plan = copy.deepcopy(mixer).draw(len(samples), batch["image"].shape[2:], labels)
    originals = batch["image"].clone() if args.compare else None
    mixed = mixer(batch)
    if len(class_names) == 1:  # its weight is 1: numbers of samples say more
        del mixed["label"]
    return show(
        plan,
        mixed,
        originals=originals,
        class_names=class_names,
        box_names=None if coco is None else coco.names,
        columns=args.columns,
        limit=len(samples),
        title=settings_text(settings),
    )


# ---------------------------------------------------------------- writing


def check_out(path: Path) -> str:
    """Pillow's name of the format to write; ValueError where ``path`` cannot be written."""
    from PIL import Image

    file_format = Image.registered_extensions().get(path.suffix.lower())
    if file_format is None or file_format not in Image.SAVE:
        raise ValueError(
            f"--out: expected a suffix of an image format such as .png or .jpg, got {path}"
        )
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--out: expected a folder that exists, got {path.absolute().parent}")
    if path.is_dir():
        raise ValueError(f"--out: expected a file, got {path}, a folder")
    return file_format


def write(figure: Any, path: Path, file_format: str) -> None:
    """Write the figure, over a file of that name; nothing is left half written."""
    data = io.BytesIO()
    options = {"quality": 92} if file_format in ("JPEG", "WEBP", "AVIF") else {}
    figure.save(data, file_format, **options)
    path.write_bytes(data.getvalue())


if __name__ == "__main__":
    sys.exit(main())
