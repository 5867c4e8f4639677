"""``python -m fused_mixup.preview``: image files of every kind, options, errors."""

from __future__ import annotations

import inspect
import json
import sys

import pytest
import torch

from fused_mixup import BatchMix, MixedTarget, mix

pytest.importorskip("PIL", reason="the preview needs Pillow; pip install 'fused-mixup[preview]'")

from PIL import Image

from fused_mixup.preview import __main__ as cli
from fused_mixup.preview import options, pictures
from fused_mixup.preview.progress import Progress


def save(path, mode="RGB", colour=(200, 100, 50), size=(40, 30), **written):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **written)
    return path


def middle(path, size=16):
    """The colour of the pixel in the middle of the image as read."""
    image = pictures.read_picture(path, size).image
    assert image.shape == (3, size, size) and image.dtype == torch.uint8
    return image[:, size // 2, size // 2].tolist()


@pytest.fixture
def folder(tmp_path):
    """Three classes of two images each."""
    for c, name in enumerate(("cat", "dog", "owl")):
        for i in range(2):
            save(tmp_path / "data" / name / f"{name}{i}.png", colour=(80 * c, 120 * i, 60))
    return tmp_path / "data"


@pytest.fixture
def seen(monkeypatch):
    """What main() gives to show()."""
    calls = []
    real = cli.show
    monkeypatch.setattr(
        cli, "show", lambda *args, **more: calls.append((*args, more)) or real(*args, **more)
    )
    return calls


def refused(capsys, *argv):
    """The message of a call that exits with 2."""
    with pytest.raises(SystemExit) as exit:
        cli.main(list(map(str, argv)))
    assert exit.value.code == 2
    return capsys.readouterr().err


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("name", "mode", "colour", "options", "expected"),
    [
        ("a.png", "RGB", (200, 100, 50), {}, (200, 100, 50)),
        ("a.png", "L", 77, {}, (77, 77, 77)),
        ("a.png", "1", 1, {}, (255, 255, 255)),
        ("a.png", "RGBA", (200, 100, 50, 0), {}, (255, 255, 255)),
        ("a.png", "RGBA", (200, 100, 50, 51), {}, (244, 224, 214)),  # a fifth, on white
        ("a.png", "LA", (40, 255), {}, (40, 40, 40)),
        ("a.png", "P", 0, {"transparency": 0}, (255, 255, 255)),
        ("a.png", "I;16", 65535 // 5, {}, (51, 51, 51)),
        ("a.tif", "I;16", 65535 // 5, {}, (51, 51, 51)),
        ("a.tif", "F", 0.2, {}, (51, 51, 51)),
        ("a.tif", "I", 51, {}, (51, 51, 51)),
        ("a.tif", "CMYK", (0, 255, 255, 0), {}, (255, 0, 0)),
        ("a.jpg", "CMYK", (0, 255, 255, 0), {"quality": 100}, (255, 0, 0)),
        ("a.gif", "RGB", (255, 0, 0), {}, (255, 0, 0)),
        ("a.bmp", "RGB", (1, 2, 3), {}, (1, 2, 3)),
    ],
)
def test_images_of_every_mode(tmp_path, name, mode, colour, options, expected):
    path = save(tmp_path / name, mode, colour, **options)
    near = 2 if name.endswith("jpg") else 1
    assert middle(path) == pytest.approx(expected, abs=near)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (20, 20), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert middle(tmp_path / "a.gif") == [255, 0, 0]


def test_the_middle_square_is_read(tmp_path):
    image = Image.new("RGB", (60, 20), "blue")
    image.paste("red", (20, 0, 40, 20))
    image.save(tmp_path / "a.png")
    read = pictures.read_picture(tmp_path / "a.png", 10)
    assert read.square == (60, 20, 10)
    assert (read.image[:, 2:8, 2:8] == torch.tensor([255, 0, 0]).view(3, 1, 1)).all()
    assert read.square.box(20, 0, 20, 10) == [0, 0, 10, 5]
    assert read.square.box(30, 10, 30, 10) == [5, 5, 10, 10]  # cut off
    assert read.square.box(0, 0, 20, 20) is None


def test_a_large_jpeg_is_read_as_a_small_one(tmp_path):
    gradient = Image.linear_gradient("L").resize((1600, 1200))
    gradient.save(tmp_path / "a.jpg", quality=95)
    read = pictures.read_picture(tmp_path / "a.jpg", 32)
    whole = gradient.crop((200, 0, 1400, 1200)).resize((32, 32))
    assert read.square == (1600, 1200, 32)
    difference = read.image[0].flatten().float() - torch.tensor(list(whole.tobytes()))
    assert difference.abs().max() <= 4


def test_exif_turns_the_image_unless_boxes_fit_the_stored_one(tmp_path):
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))  # on the right
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: the right is the bottom
    image.save(tmp_path / "a.png", exif=exif)
    upright = pictures.read_picture(tmp_path / "a.png", 20)
    assert upright.square == (20, 40, 20)
    assert upright.image[0, 2, 10] == 255 and upright.image[2, 17, 10] == 255
    stored = pictures.read_picture(tmp_path / "a.png", 20, (40, 20))
    assert stored.square == (40, 20, 20)
    assert stored.image[0, 10, 2] == 255 and stored.image[2, 10, 17] == 255


def test_folders_are_searched_to_the_bottom_and_shuffled_by_the_seed(tmp_path):
    paths = [save(tmp_path / "a" / f"{i}.png") for i in range(8)]
    paths.append(save(tmp_path / "a" / "b" / "deep.JPG"))
    save(tmp_path / "a" / ".hidden" / "copy.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")  # a circle
    found = pictures.find_pictures([tmp_path / "a"], 0)
    assert sorted(found) == sorted(paths)
    assert found == pictures.find_pictures([tmp_path / "a"], 0)
    assert found != pictures.find_pictures([tmp_path / "a"], 1)
    named = [paths[3], paths[1]]
    assert pictures.find_pictures([*named, tmp_path / "a"], 0)[:2] == named
    assert pictures.class_of(paths[8]) == "b"
    with pytest.raises(ValueError, match="does not exist"):
        pictures.find_pictures([tmp_path / "nothing"], 0)


# ---------------------------------------------------------------- the program


def test_it_draws_what_batchmix_makes_of_a_folder(folder, tmp_path, seen, capsys):
    out = tmp_path / "grid.png"
    argv = [folder, "-o", out, "--size", 32, "--cutmix-alpha", 1, "--per", "sample", "--compare"]
    assert cli.main(list(map(str, argv))) == 0
    assert capsys.readouterr().out == f"{out}: 6 mixed images of 32 x 32 pixels\n"
    ((plan, mixed, more),) = seen
    assert torch.equal(mixed["image"], mix(more["originals"], plan))
    assert isinstance(mixed["label"], MixedTarget) and mixed["label"].num_classes == 3
    assert more["class_names"] == ["cat", "dog", "owl"]
    colours = more["originals"][:, 0, 16, 16]
    assert torch.equal(mixed["label"].labels, torch.div(colours, 80).long())
    with Image.open(out) as page:
        assert page.format == "PNG" and page.width > 2 * 160


GIVEN = {
    "mixup_alpha": ["0.3"], "cutmix_alpha": ["0.7"], "switch_prob": ["0.9"], "prob": ["0.8"],
    "per": ["pair"], "pairing": ["roll"], "cutmix_minmax": ["0.2", "0.6"], "correct_lam": None,
    "symmetric": [], "label_smoothing": ["0.2"], "ignore_index": ["9"], "seed": ["7"],
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_every_setting_reaches_batchmix(name):
    values, option = GIVEN[name], "--" + name.replace("_", "-")
    argv = ["--no-correct-lam"] if values is None else [option, *values]
    settings = options.settings_of(options.make_parser().parse_args(["folder", *argv]))
    defaults = {n: inspect.signature(BatchMix).parameters[n].default for n in settings}
    changed = {n for n in settings if settings[n] != defaults[n]}
    assert changed == {name} and set(settings) == set(GIVEN) == set(options.SETTINGS)
    BatchMix(10, **settings)
    assert f"{name}=" in options.settings_text(settings) or name == "switch_prob"


def test_recipes_give_settings_and_options_go_first():
    parse = options.make_parser().parse_args
    timm = options.settings_of(parse(["x", "--recipe", "timm"]))
    assert (timm["mixup_alpha"], timm["cutmix_alpha"], timm["label_smoothing"]) == (0.8, 1.0, 0.1)
    both = options.settings_of(parse(["x", "--recipe", "torchvision", "--mixup-alpha", "0.4"]))
    assert (both["mixup_alpha"], both["cutmix_alpha"], both["pairing"]) == (0.4, 1.0, "roll")


def test_files_that_cannot_be_read_are_named_and_left_out(folder, tmp_path, seen, capsys):
    (folder / "cat" / "torn.png").write_bytes((folder / "cat" / "cat0.png").read_bytes()[:60])
    (folder / "dog" / "text.jpg").write_text("no image")
    (folder / "dog" / "empty.webp").write_bytes(b"")
    assert cli.main([str(folder), "-o", str(tmp_path / "grid.jpg"), "--size", "16"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("6 mixed images of 16 x 16 pixels; 3 could not be read\n")
    assert all(name in said.err for name in ("torn.png", "text.jpg", "empty.webp"))
    assert said.err.count("\n") == 3  # and no bar, as this is no terminal
    assert len(seen[0][1]["image"]) == 6


def test_one_image_is_too_few(tmp_path, capsys):
    path = save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.png").write_text("no image")
    said = refused(capsys, tmp_path / "a", "-o", tmp_path / "grid.png")
    assert "expected at least 2 images that can be read, got 1" in said and "2.png" in said
    assert "got 1" in refused(capsys, path, path, "-o", tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--mixup-alpha", "-1"], "mixup_alpha: expected a number in"),
        (["--per", "epoch"], "per: expected one of"),
        (["--pairing", "flop"], "pairing: expected one of"),
        (["--cutmix-minmax", "0.6", "0.2"], "cutmix_minmax: expected 0 <= low < high"),
        (["--mixup-alpha", "0"], "expected one of them > 0"),
        (["--label-smoothing", "2"], "label_smoothing: expected"),
        (["--batch", "1"], "--batch: expected at least 2"),
        (["--size", "0"], "--size: expected at least 8"),
        (["--columns", "0"], "--columns: expected at least 1"),
        (["-o", "grid.txt"], "expected a suffix of an image format"),
        (["-o", "no/such/folder/grid.png"], "expected a folder that exists"),
        (["--boxes", "no.json"], "no.json: No such file"),
        (["--masks", "no"], "expected a folder of class maps"),
        (["--boxes", "other.json"], "expected the names of the images read, got none in other"),
    ],
)
def test_errors_come_without_a_traceback(folder, capsys, monkeypatch, argv, words):
    monkeypatch.chdir(folder)
    (folder / "other.json").write_text('{"images": [], "annotations": [], "categories": []}')
    said = refused(capsys, folder, *argv)
    assert words in said and "Traceback" not in said


def test_ctrl_c_writes_nothing(folder, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "read_sample", stop)
    assert cli.main([str(folder), "-o", str(tmp_path / "grid.png")]) == 130
    assert "interrupted" in capsys.readouterr().err and not (tmp_path / "grid.png").exists()


@pytest.mark.parametrize("tqdm", [True, False])
def test_a_terminal_shows_progress(monkeypatch, capsys, tqdm):
    if tqdm:
        pytest.importorskip("tqdm", reason="tqdm is not installed")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(2) as progress:
        progress.step()
        progress.step()
    assert ("2/2" in capsys.readouterr().err) or tqdm  # tqdm's own pace


def test_class_maps_are_mixed_with_the_images(folder, tmp_path, seen):
    for path in folder.rglob("*.png"):
        save(tmp_path / "maps" / path.name, "L", 1 if path.stem[0] == "c" else 2, (40, 30))
    masks = ["--masks", str(tmp_path / "maps"), "--size", "16"]
    assert cli.main([str(folder), "-o", str(tmp_path / "grid.png"), *masks]) == 0
    plan, mixed, _ = seen[0]
    cats = mixed["label"].labels == 0
    expected = torch.where(cats, 1, 2).view(-1, 1, 1).expand(-1, 16, 16)
    assert mixed["mask"] == MixedTarget.from_labels(expected.contiguous(), plan, 3)


def test_boxes_reach_batchmix_in_pixels_of_its_images(folder, tmp_path, monkeypatch, seen):
    batches = []

    class Watched(BatchMix):
        def forward(self, *inputs):
            batches.append(dict(inputs[0]))
            return super().forward(*inputs)

    monkeypatch.setattr(cli, "BatchMix", Watched)
    images = [{"id": i, "file_name": p.name} for i, p in enumerate(folder.rglob("*.png"))]
    box = {"category_id": 4, "bbox": [5, 0, 15, 15]}  # the upper left quarter of the square
    content = {"images": images, "annotations": [{"image_id": i, **box} for i in range(6)]}
    content["categories"] = [{"id": 4, "name": "thing"}]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    boxes = ["--boxes", str(tmp_path / "boxes.json"), "--size", "16"]
    assert cli.main([str(folder), "-o", str(tmp_path / "grid.png"), *boxes]) == 0
    (batch,) = batches
    assert [b.tolist() for b in batch["boxes"]] == [[[0, 0, 8, 8]]] * 6
    assert [y.tolist() for y in batch["labels"]] == [[0]] * 6
    assert seen[0][2]["box_names"] == ["thing"]


def test_images_of_one_class_are_told_by_their_numbers(tmp_path, seen):
    for i in range(3):
        save(tmp_path / "a" / f"{i}.png")
    assert cli.main([str(tmp_path / "a"), "-o", str(tmp_path / "grid.webp"), "--size", "16"]) == 0
    assert "label" not in seen[0][1]
