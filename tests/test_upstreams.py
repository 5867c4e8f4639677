"""mix_normalize behind the real DALI, webdataset, torchvision decoders and torchcodec."""

from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest
import torch
from image_layouts import MEAN, STD, check, plain_lines, plan_of, watch
from upstreams import FILES, SIZE, decoded, jpeg, need, write_folder, write_shard

import fused_mixup as fm
from fused_mixup import MixPlan
from fused_mixup.timm import FastCollateMixup

proof = pytest.mark.proof
BATCH = 4
TURNED = 6  # the EXIF orientation of a phone held upright


@pytest.fixture
def handed(monkeypatch):
    return watch(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_folder(root)
    return root


IN_ORDER = [*range(0, FILES, 2), *range(1, FILES, 2)]  # DALI reads folder by folder


# ------------------------------------------------------------------ DALI


def dali_pipeline(folder, size=None, device="cpu", **options):
    dali, fn = need("nvidia.dali"), need("nvidia.dali.fn")

    @dali.pipeline_def(batch_size=BATCH, num_threads=1, **{"device_id": None, **options})
    def decode():
        files, labels = fn.readers.file(file_root=str(folder), name="files")
        images = fn.decoders.image(files, device="mixed" if device == "gpu" else "cpu")
        images = fn.resize(images, size=size) if size else images
        return images, labels

    pipeline = decode()
    pipeline.build()
    return pipeline


def from_dali(batch):
    return torch.from_dlpack(batch.as_tensor())


@proof
def test_dali_hands_its_memory_to_the_op(folder, handed):
    batch, _ = dali_pipeline(folder).run()
    images = from_dali(batch)
    assert images.dtype == torch.uint8 and images.shape == (BATCH, *SIZE, 3)
    assert images.is_contiguous()  # dense NHWC, which mix_normalize takes as it is
    expected = torch.stack([decoded(i) for i in IN_ORDER[:BATCH]])
    check(images, expected, "DALI")
    height, width = SIZE
    nchw = (3 * height * width, 1, 3 * width, 3)
    assert handed == [(batch.as_tensor().data_ptr(), nchw)]


@proof
def test_dali_resizes_and_torch_mixes(folder, handed):
    batch, _ = dali_pipeline(folder, (32, 40)).run()
    images = from_dali(batch)
    assert images.shape == (BATCH, 32, 40, 3)
    check(images, images.permute(0, 3, 1, 2), "resized")
    assert handed[0][0] == batch.as_tensor().data_ptr()
    # Samples of several sizes are no tensor; a list of them goes to the op one size at a time.
    array = np.asarray(batch[0])
    assert array.ctypes.data == batch.as_tensor().data_ptr()
    check([np.asarray(batch[i]) for i in range(BATCH)], images.permute(0, 3, 1, 2), "list")
    assert handed[0][0] == array.ctypes.data


@proof
def test_dali_keeps_a_tensor_alive_in_the_dynamic_executor_alone(folder):
    """Elsewhere use or copy a batch before the next run (docs/upstreams.md)."""
    pipeline = dali_pipeline(folder)
    assert pipeline.exec_dynamic is True
    images = from_dali(pipeline.run()[0])
    before = images.clone()
    for _ in range(6):
        pipeline.run()
    assert torch.equal(images, before)
    del pipeline
    gc.collect()
    assert torch.equal(images, before)

    pipeline = dali_pipeline(folder, exec_dynamic=False)
    assert pipeline.exec_dynamic is not True
    images = from_dali(pipeline.run()[0])
    before = images.clone()
    y = fm.mix_normalize(images, mean=MEAN, std=STD)
    # The next run gives the buffer back; a thread fills it soon after, or in the run after that.
    pipeline.run()
    pipeline.run()
    assert not torch.equal(images, before)
    # What the op has written is memory of its own.
    assert torch.equal(y, fm.mix_normalize(before, mean=MEAN, std=STD))


@proof
def test_dali_normalises_by_another_rounding():
    """crop_mirror_normalize multiplies by a rounded reciprocal; ours divides, as timm does."""
    dali, fn = need("nvidia.dali"), need("nvidia.dali.fn")
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def normalise():
        images = fn.external_source(lambda: values, layout="HWC")
        mean, std = ([255 * v for v in constants] for constants in (MEAN, STD))
        return fn.crop_mirror_normalize(images, mean=mean, std=std, output_layout="CHW")

    pipeline = normalise()
    pipeline.build()
    theirs = from_dali(pipeline.run()[0])
    ours = fm.mix_normalize(values, mean=MEAN, std=STD, dtype=torch.float32)
    exact = plain_lines(torch.from_numpy(values).permute(0, 3, 1, 2), MixPlan.identity(1))
    assert torch.equal(ours, exact)
    assert torch.equal(theirs.bfloat16(), ours.bfloat16())  # where it is rounded once more
    differ = int((theirs != ours).sum())
    assert 0 < differ < theirs.numel() // 2
    assert (theirs - ours).abs().max() <= 2.4e-7  # one unit in the last place of 2
    mean, std = (torch.tensor([255 * n for n in v]).view(-1, 1, 1) for v in (MEAN, STD))
    x = torch.from_numpy(values).permute(0, 3, 1, 2).float()
    assert torch.equal(theirs, (x - mean) * (1 / std))


@proof
def test_dali_iterator(folder, handed):
    plugin = need("nvidia.dali.plugin.pytorch")
    batches = plugin.DALIClassificationIterator(
        dali_pipeline(folder),
        reader_name="files",
        last_batch_policy=plugin.LastBatchPolicy.PARTIAL,
        auto_reset=True,
    )
    sizes = []
    for batch in batches:
        images, labels = batch[0]["data"], batch[0]["label"]
        n = len(images)
        sizes.append(n)
        target = fm.MixedTarget.from_labels(
            labels.squeeze(1).long(), MixPlan.uniform(n, "flip", 0.3), num_classes=2
        )
        assert len(target) == n
        check(images, images.permute(0, 3, 1, 2), "iterator")
        assert handed[0][0] == images.data_ptr()
    assert sizes == [4, 4, 2]


@proof
def test_dali_dynamic_mode(folder, handed):
    dynamic = need("nvidia.dali.experimental.dynamic")
    reader = dynamic.readers.File(file_root=str(folder))
    for files, _ in reader.next_epoch(batch_size=BATCH):
        images = dynamic.decoders.image(files, device="cpu").torch()
        check(images, images.permute(0, 3, 1, 2), "dynamic")
        assert handed[0][0] == images.data_ptr()
        break
    assert torch.equal(
        images, torch.stack([decoded(i) for i in IN_ORDER[:BATCH]]).permute(0, 2, 3, 1)
    )


# ------------------------------------------------------------------ webdataset


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "train-000.tar"
    write_shard(path)
    return path


def web_samples(path):
    web = need("webdataset")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return web.WebDataset(str(path), shardshuffle=False).decode("rgb8").to_tuple("jpg", "cls")


@proof
def test_webdataset_samples_are_read_where_they_lie(shard, handed):
    samples = [image for image, _ in web_samples(shard)]
    assert not any(s.flags.writeable for s in samples)
    before = [s.copy() for s in samples]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(samples, torch.stack([decoded(i) for i in range(FILES)]), "rgb8")
    assert [p for p, _ in handed] == [s.ctypes.data for s in samples]
    assert all(map(np.array_equal, samples, before))


@proof
def test_webdataset_batches(shard, handed):
    """Collated by webdataset: NHWC arrays; by FastCollateMixup: mixed in the loader."""
    arrays, _ = next(iter(web_samples(shard).batched(BATCH)))
    check(arrays, torch.stack([decoded(i) for i in range(BATCH)]), "batched")
    assert handed[0][0] == arrays.ctypes.data
    # Of [H, W, C] samples it makes [B, H, W, C], as timm's fast_collate does.
    collate = FastCollateMixup(mixup_alpha=0.8, num_classes=2, sparse_targets=True)
    for x, target in web_samples(shard).batched(BATCH, collation_fn=collate):
        assert x.dtype == torch.uint8 and x.shape[1:] == (*SIZE, 3) and len(target) == len(x)
        y = fm.mix_normalize(x, mean=MEAN, std=STD, dtype=torch.float32)
        assert handed[0][0] == x.data_ptr()
        assert torch.equal(y, plain_lines(x.permute(0, 3, 1, 2), MixPlan.identity(len(x))))


# ------------------------------------------------------------------ torchvision and torchcodec


def as_bytes(i, orientation=None):
    return torch.frombuffer(bytearray(jpeg(i, orientation)), dtype=torch.uint8)


def check_decoder(decode, handed):
    """``decode(file, turn)`` gives HWC views, and turned ones, which the op reads as they are."""
    height, width = SIZE
    upright = [decode(as_bytes(i), True) for i in range(BATCH)]
    expected = torch.stack([decoded(i) for i in range(BATCH)])
    check(upright, expected, "upright")
    assert handed == [(s.data_ptr(), (1, 3 * width, 3)) for s in upright]
    turned = [decode(as_bytes(i, TURNED), True) for i in range(BATCH)]
    check(turned, expected.rot90(-1, (2, 3)), "turned")
    assert handed == [(s.data_ptr(), (1, 3, 3 * width)) for s in turned]
    assert turned[0].shape == (3, width, height)
    # A crop to one size mixes photographs that were held either way.
    both = [s[:, :40, :40] for s in (upright[0], turned[1], upright[2], turned[3])]
    check(both, torch.stack(both), "both")
    assert handed == [(s.data_ptr(), s.stride()) for s in both]


@proof
def test_torchvision_decoders(handed):
    io_module = need("torchvision.io")
    mode = io_module.ImageReadMode.RGB
    check_decoder(
        lambda file, turn: io_module.decode_image(file, mode, apply_exif_orientation=turn), handed
    )
    files = [as_bytes(i) for i in range(BATCH)]
    samples = io_module.decode_jpeg(files, mode)
    check(samples, torch.stack([decoded(i) for i in range(BATCH)]), "decode_jpeg of a list")


@proof
def test_torchcodec(handed):
    codec = need("torchcodec.decoders")
    check_decoder(lambda file, turn: codec.decode_image(file), handed)


# ------------------------------------------------------------------ on a GPU


def check_on_gpu(images, x):
    plan = plan_of(len(x), *x.shape[2:])
    got = fm.mix_normalize(images, plan.to("cuda"), mean=MEAN, std=STD, dtype=torch.float32)
    assert torch.equal(got.cpu(), plain_lines(x.cpu(), plan))
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_dali_on_the_device(folder):
    """Decoded by nvJPEG, handed over by DLPack: neither pixels nor results leave the device."""
    batch, _ = dali_pipeline(folder, device="gpu", device_id=torch.cuda.current_device()).run()
    images = torch.from_dlpack(batch.as_tensor())
    assert images.is_cuda and images.data_ptr() == batch.as_tensor().data_ptr()
    check_on_gpu(images, images.permute(0, 3, 1, 2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_torchvision_on_the_device():
    images = need("torchvision.io").decode_jpeg([as_bytes(i) for i in range(BATCH)], device="cuda")
    x = torch.stack(images)
    check_on_gpu(x, x)
    check_on_gpu(x.contiguous(memory_format=torch.channels_last), x)
