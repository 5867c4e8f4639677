"""Every sample structure of torchvision's wrapped detection and segmentation data sets.

The data sets are the real classes on small synthetic files: what ``wrap_dataset_for_transforms_v2``
makes of them goes through ``BatchMix.collate`` and back, in eval mode as it came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from xml.etree import ElementTree

import pytest
import torch
from peers import torchvision, tv_tensors, v2

import fused_mixup as fm
from fused_mixup import BatchMix, MixedTarget

Image = pytest.importorskip("PIL.Image", reason="the data sets read files with Pillow")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation:DeprecationWarning"
    ),  # pycocotools'
]
datasets = torchvision.datasets
H, W, N = 20, 28, 4
K = 256


def picture(path, seed, mode="RGB"):
    pixels = torch.randint(
        0, 256, (H, W, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    image = Image.fromarray(pixels.numpy()).convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def class_map(path, seed, values=(0, 1, 2, 255)):
    at = torch.randint(0, len(values), (H, W), generator=torch.Generator().manual_seed(seed))
    image = Image.fromarray(torch.tensor(values)[at].to(torch.uint8).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


# ------------------------------------------------------------------ the data sets


def coco(root, target_keys=None):
    pytest.importorskip("pycocotools", reason="torchvision reads COCO with pycocotools")
    images, boxes = [], []
    for i in range(N):
        picture(root / f"{i}.png", i)
        images.append({"id": i, "file_name": f"{i}.png", "height": H, "width": W})
        for k in range(i):  # the first has none
            box = [2.0 + k, 3.0, 9.0, 8.0 + k]
            x, y, w, h = box
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": i,
                    "category_id": k + 1,
                    "bbox": box,
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": outline,
                }
            )
    made = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": k, "name": str(k)} for k in range(1, N + 1)],
    }
    (root / "instances.json").write_text(json.dumps(made))
    return datasets.CocoDetection(str(root), str(root / "instances.json")), target_keys


def voc(root):
    base = root / "VOCdevkit" / "VOC2012"
    names = [f"2008_{i:06d}" for i in range(N)]
    for kind in ("Main", "Segmentation"):
        (base / "ImageSets" / kind).mkdir(parents=True)
        (base / "ImageSets" / kind / "train.txt").write_text("\n".join(names))
    (base / "Annotations").mkdir()
    for i, name in enumerate(names):
        picture(base / "JPEGImages" / f"{name}.jpg", i)
        class_map(base / "SegmentationClass" / f"{name}.png", i)
        note = ElementTree.Element("annotation")
        ElementTree.SubElement(note, "filename").text = f"{name}.jpg"
        for k in range(i + 1):
            thing = ElementTree.SubElement(note, "object")
            ElementTree.SubElement(thing, "name").text = ("cat", "dog", "car", "bus")[k]
            box = ElementTree.SubElement(thing, "bndbox")
            for part, value in zip(
                ("xmin", "ymin", "xmax", "ymax"), (2, 3, 12 + k, 11), strict=True
            ):
                ElementTree.SubElement(box, part).text = str(value)
        ElementTree.ElementTree(note).write(base / "Annotations" / f"{name}.xml")
    return str(root)


def voc_detection(root):
    return datasets.VOCDetection(voc(root), image_set="train"), None


def voc_detection_with_annotation(root):
    return datasets.VOCDetection(voc(root), image_set="train"), "all"


def voc_segmentation(root):
    return datasets.VOCSegmentation(voc(root), image_set="train"), None


def sbd(root):
    scipy = pytest.importorskip("scipy.io", reason="torchvision reads SBD with SciPy")
    (root / "img").mkdir()
    (root / "cls").mkdir()
    for i in range(N):
        picture(root / "img" / f"{i}.jpg", i)
        at = torch.randint(0, 3, (H, W), generator=torch.Generator().manual_seed(i))
        cell = {"Segmentation": at.to(torch.uint8).numpy()}
        scipy.savemat(root / "cls" / f"{i}.mat", {"GTcls": cell})
    (root / "train.txt").write_text("\n".join(map(str, range(N))))
    return datasets.SBDataset(str(root), image_set="train", mode="segmentation"), None


def kitti(root):
    base = root / "Kitti" / "raw" / "training"
    for i in range(N):
        picture(base / "image_2" / f"{i:06d}.png", i)
        lines = [f"Car 0.{k} {k} 1.5 2 3 {12 + k} 11 1.0 1.0 1.0 0 0 0 0.1" for k in range(i + 1)]
        (base / "label_2").mkdir(exist_ok=True)
        (base / "label_2" / f"{i:06d}.txt").write_text("\n".join(lines))
    return datasets.Kitti(str(root)), None


def kitti_all(root):
    return kitti(root)[0], "all"


def cityscapes(kinds):
    def make(root):
        for i in range(N):
            picture(root / "leftImg8bit" / "train" / "ulm" / f"ulm_{i}_leftImg8bit.png", i)
            base = root / "gtFine" / "train" / "ulm"
            class_map(base / f"ulm_{i}_gtFine_labelIds.png", i, (0, 7, 11))
            class_map(base / f"ulm_{i}_gtFine_instanceIds.png", i, (7, 24, 25)[: 2 + i % 2])
        return datasets.Cityscapes(str(root), split="train", mode="fine", target_type=kinds), None

    return make


def pets(kinds):
    def make(root):
        base = root / "oxford-iiit-pet"
        (base / "annotations").mkdir(parents=True)
        names = [f"cat_{i}" for i in range(N)]
        lines = [f"{name} {i % 3 + 1} 1 1" for i, name in enumerate(names)]
        (base / "annotations" / "trainval.txt").write_text("\n".join(lines))
        for i, name in enumerate(names):
            picture(base / "images" / f"{name}.jpg", i)
            class_map(base / "annotations" / "trimaps" / f"{name}.png", i, (1, 2, 3))
        return datasets.OxfordIIITPet(str(root), target_types=kinds), None

    return make


def wider(root):
    base = root / "widerface"
    lines = []
    for i in range(N):
        picture(base / "WIDER_train" / "images" / f"{i}.jpg", i)
        rows = [f"{2 + k} 3 9 8 0 0 0 0 0 0 " for k in range(i + 1)]
        lines += [f"{i}.jpg", str(i + 1), *rows]
    (base / "wider_face_split").mkdir()
    (base / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    made = object.__new__(datasets.WIDERFace)
    made.root, made.split, made.img_info = str(base), "train", []
    made.transform = made.target_transform = made.transforms = None
    made.parse_train_val_annotations_file()
    return made, None


CASES = {
    "COCO": coco,
    "COCO, masks": lambda root: (coco(root)[0], ["boxes", "labels", "masks", "image_id"]),
    "COCO, raw": lambda root: (
        coco(root)[0],
        ["boxes", "labels", "area", "iscrowd", "segmentation"],
    ),
    "VOC detection": voc_detection,
    "VOC detection, all": voc_detection_with_annotation,
    "VOC segmentation": voc_segmentation,
    "SBD": sbd,
    "Kitti": kitti,
    "Kitti, all": kitti_all,
    "Cityscapes, semantic": cityscapes("semantic"),
    "Cityscapes, instance": cityscapes("instance"),
    "Cityscapes, both": cityscapes(["semantic", "instance"]),
    "Pets, category": pets("category"),
    "Pets, segmentation": pets("segmentation"),
    "Pets, both": pets(["category", "segmentation"]),
    "WIDER": wider,
}
MODES = {
    "CutMix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "both": {"mixup_alpha": 1.0, "cutmix_alpha": 1.0},
}


def wrapped(name, root, monkeypatch):
    if name.startswith("WIDER"):  # its constructor asks for downloaded archives
        monkeypatch.setattr(datasets.WIDERFace, "BASE_FOLDER", "widerface")
    data, keys = CASES[name](root)
    options = {} if keys is None else {"target_keys": keys}
    data = datasets.wrap_dataset_for_transforms_v2(data, **options)
    return [
        (v2.functional.to_image(image), target) for image, target in map(data.__getitem__, range(N))
    ]


def leaves(value, path=()):
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            yield from leaves(each, (*path, i))
    else:
        yield path, value


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_batch_goes_through(name, mode, tmp_path, monkeypatch):
    samples = wrapped(name, tmp_path, monkeypatch)
    mix = BatchMix(K, **mode, per="sample", pairing="derangement", seed=3, inplace=False)
    images, targets = zip(*samples, strict=True)

    kept = mix.eval()(list(images), targets)
    for path, value in leaves((list(images), list(targets))):
        got = dict(leaves(kept)).get(path)
        if isinstance(value, torch.Tensor) and isinstance(got, torch.Tensor):
            assert torch.equal(value, got) and type(value) is type(got), path

    mixed = mix.train().collate(samples)
    image, target = mixed
    whole = torch.stack([torch.as_tensor(x) for x in images])
    assert image.shape == whole.shape and not torch.equal(image, whole)
    if isinstance(target, (MixedTarget, torch.Tensor)):
        assert len(target) == N
        return
    if isinstance(target[0], (MixedTarget, torch.Tensor)):  # heads: of the category, a map
        assert len(target) == 2 and all(len(part) == N for part in target)
        return
    assert len(target) == N
    for i, each in enumerate(target):
        record = next(
            part
            for part in [each, *(each if isinstance(each, tuple) else ())]
            if isinstance(part, dict)
        )
        given = samples[i][1]
        given = given if isinstance(given, dict) else given[-1]
        assert set(given) <= set(record)
        rows = {key: record[key] for key in ("boxes", "bbox", "labels", "masks") if key in record}
        assert len({len(v) for v in rows.values()}) <= 1, {k: len(v) for k, v in rows.items()}
        for key, value in rows.items():
            whole = given.get(key)
            assert whole is None or type(value) is type(whole)
            if isinstance(whole, torch.Tensor):
                assert value.dtype == whole.dtype
        for key in ("boxes", "bbox"):
            if isinstance(record.get(key), torch.Tensor):
                assert isinstance(record[key], tv_tensors.BoundingBoxes)
                assert record[key].canvas_size == (H, W)
        if mode["mixup_alpha"] and rows:
            assert len(record["box_weights"]) == len(next(iter(rows.values())))


def test_another_canvas_and_rotated_boxes_are_refused():
    def batch(canvas=(H, W), format="XYXY", numbers=4):
        boxes = tv_tensors.BoundingBoxes(torch.ones(2, numbers), format=format, canvas_size=canvas)
        return torch.rand(2, 3, H, W), [{"boxes": boxes, "labels": torch.arange(2)}] * 2

    mix = BatchMix()
    with pytest.raises(ValueError, match=r"boxes.*expected the canvas of the images, \[20, 28\]"):
        mix(*batch(canvas=(10, 10)))
    with pytest.raises(ValueError, match="format: expected one of.*xyxyr|format.*cxcywhr"):
        mix(*batch(format="CXCYWHR", numbers=5))
    assert torch.equal(mix.state, fm.plan_state(0))


def test_formats_come_from_the_boxes():
    xyxy = torch.tensor([[2.0, 3.0, 12.0, 9.0], [5.0, 6.0, 20.0, 18.0]])
    made = {}
    for name in ("XYXY", "XYWH", "CXCYWH"):
        boxes = v2.functional.convert_bounding_box_format(
            tv_tensors.BoundingBoxes(xyxy, format="XYXY", canvas_size=(H, W)), new_format=name
        )
        targets = [{"boxes": boxes, "labels": torch.arange(2)} for _ in range(N)]
        mix = BatchMix(mixup_alpha=0.0, cutmix_alpha=1.0, seed=2, per="sample", pairing="roll")
        _, out = mix(torch.rand(N, 3, H, W), targets)
        made[name] = torch.cat(
            [
                v2.functional.convert_bounding_box_format(
                    t["boxes"], new_format="XYXY"
                ).as_subclass(torch.Tensor)
                for t in out
            ]
        )
        assert all(t["boxes"].format.value == name for t in out)
    torch.testing.assert_close(made["XYWH"], made["XYXY"])
    torch.testing.assert_close(made["CXCYWH"], made["XYXY"])
