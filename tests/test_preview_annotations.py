"""Detection boxes and class maps of the preview: read, scaled and cropped with their images."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("PIL", reason="the preview needs Pillow; pip install 'fused-mixup[preview]'")

from PIL import Image

from fused_mixup.preview import annotations, pictures


def coco(tmp_path, **changes):
    content = {
        "images": [
            {"id": 5, "file_name": "x/a.png", "width": 80, "height": 40},
            {"id": 6, "file_name": "y/a.png"},
        ],
        "annotations": [
            {"image_id": 5, "category_id": 9, "bbox": [20, 0, 40, 20]},
            {"image_id": 5, "category_id": 3, "bbox": [0, 0, 10, 10]},  # outside of the square
            {"image_id": 5, "category_id": 3, "bbox": [30, 10, 20, 20], "iscrowd": 1},
            {"image_id": 6, "category_id": 3, "bbox": [10, 0, 10, 20]},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_coco_boxes_are_scaled_and_cropped_with_the_image(tmp_path):
    boxes = annotations.CocoBoxes(coco(tmp_path))
    assert boxes.names == ["cat", "dog"]
    square = pictures.Square(40, 20, 10)  # half of the size that the file says
    corners, labels = boxes.boxes(boxes.find(tmp_path / "x" / "a.png"), square)
    assert corners.tolist() == [[0, 0, 10, 5]] and labels.tolist() == [1]
    corners, labels = boxes.boxes(boxes.find(tmp_path / "y" / "a.png"), square)
    assert corners.tolist() == [[0, 0, 5, 10]] and labels.tolist() == [0]
    assert boxes.find(tmp_path / "z" / "a.png") is None  # two of that name
    corners, labels = boxes.boxes(None, square)
    assert corners.shape == (0, 4) and labels.dtype == torch.int64


def test_class_maps_are_read_by_the_nearest_pixel(tmp_path):
    maps = Image.new("P", (40, 20))
    maps.putpalette([i % 256 for i in range(768)])
    maps.paste(7, (10, 0, 20, 20))
    maps.paste(255, (20, 0, 30, 20))
    (tmp_path / "m").mkdir()
    maps.save(tmp_path / "m" / "a.png")
    read = annotations.MaskFolder(tmp_path / "m").read(
        tmp_path / "x" / "a.jpg", pictures.Square(80, 40, 8)
    )
    assert read.dtype == torch.int64
    assert torch.equal(read, torch.tensor([7] * 4 + [255] * 4).expand(8, 8))
    Image.new("I;16", (4, 4), 300).save(tmp_path / "m" / "b.png")
    square = pictures.Square(4, 4, 2)
    assert pictures.read_map(tmp_path / "m" / "b.png", square).tolist() == [[300] * 2] * 2
    with pytest.raises(ValueError, match="4 x 4 pixels, the image 8 x 4"):
        pictures.read_map(tmp_path / "m" / "b.png", pictures.Square(8, 4, 2))
    Image.new("RGB", (4, 4)).save(tmp_path / "m" / "c.png")
    with pytest.raises(ValueError, match="colours"):
        pictures.read_map(tmp_path / "m" / "c.png", pictures.Square(4, 4, 2))
    with pytest.raises(ValueError, match="class map d.png"):
        annotations.MaskFolder(tmp_path / "m").read(tmp_path / "d.jpg", square)


def test_annotations_that_are_none(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    empty = tmp_path / "empty"
    empty.mkdir()
    for make, words in (
        (lambda: annotations.CocoBoxes(tmp_path / "bad.json"), "got no json"),
        (lambda: annotations.CocoBoxes(tmp_path / "none.json"), "No such file"),
        (lambda: annotations.CocoBoxes(coco(tmp_path, categories=[])), "misses parts"),
        (lambda: annotations.CocoBoxes(coco(tmp_path, images=3)), "misses parts"),
        (lambda: annotations.MaskFolder(empty), "got no PNG"),
        (lambda: annotations.MaskFolder(tmp_path / "none"), "expected a folder"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
