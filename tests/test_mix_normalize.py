"""mix_normalize: values, layouts, rounding, compile, and what it refuses."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from comparing import same_bits
from normalize_cases import IMAGENET, OUTPUTS, by_hand, images, random_call, random_results

import fused_mixup as fm
from fused_mixup import Erasing, MixPlan, mix_normalize
from fused_mixup.timm import FastCollateMixup

FLIP = MixPlan.uniform(4, "flip", 0.3)


def constants():
    """float32 mean and std for bytes, as timm makes them."""
    return (torch.tensor([v * 255 for v in t]).view(-1, 1, 1) for t in IMAGENET.values())


def batch(dtype=torch.uint8, kind="nchw"):
    return images(kind, dtype, 4, 3, 20, 17)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_float32_is_what_the_plain_lines_give(backend):
    rng = random.Random(3)
    torch.manual_seed(3)
    for _ in range(120):
        x, arguments, what = random_call(rng, ((torch.uint8, torch.float32), (torch.float32,)), 64)
        if arguments["erase"] is not None and arguments["erase"].noise is not None:
            continue
        whole = torch.stack(x) if isinstance(x, list) else x
        expected = by_hand(whole, **arguments)
        with fm.backend(backend):
            got = mix_normalize(x, **arguments)
        assert got is arguments["out"]
        assert torch.equal(got, expected), what


def test_backends_agree_to_the_bit():
    torch.manual_seed(5)
    for got, expected, what in random_results(200, 5):
        assert same_bits(got, expected), what


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mix", ["before", "after"])
def test_halves_are_the_nearest_to_the_true_value(dtype, mix):
    x = images("nchw", torch.uint8, 4, 3, 64, 64)
    plan = MixPlan.uniform(4, "flip", 0.3)
    got = mix_normalize(x, plan, **IMAGENET, dtype=dtype, mix=mix).double()
    m, s = constants()
    values = x.double() * 0.3 + x.flip(0).double() * 0.7
    truth = ((fm.mix(x, plan).double() if mix == "before" else values) - m.double()) / s.double()
    bits = {torch.float16: 11, torch.bfloat16: 8}[dtype]
    half_unit = 2.0 ** (truth.abs().log2().floor().clamp(min=-14) - bits)
    assert ((got - truth).abs() <= half_unit + 1e-6).all()


def test_every_value_of_a_byte_is_rounded_once():
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    m, s = constants()
    truth = (x.double() - m.double()) / s.double()
    for dtype in OUTPUTS:
        assert torch.equal(mix_normalize(x, **IMAGENET, dtype=dtype), truth.to(dtype))


def test_constants_whose_inverse_does_not_round_to_the_quotient():
    # Values far from any image's, where a product with 1/std would be off.
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    rng = random.Random(0)
    for _ in range(300):
        mean, std = rng.uniform(-1e3, 1e3), rng.choice((-1, 1)) * 10 ** rng.uniform(-30, 30)
        m, s = torch.tensor(mean * 255), torch.tensor(std * 255)
        got = mix_normalize(x, mean=mean, std=std, dtype=torch.float32)
        assert torch.equal(got, (x.float() - m) / s)


def test_default_result_is_bfloat16_channels_last_with_explicit_strides():
    for c, h, w in ((3, 5, 7), (1, 5, 7), (3, 1, 1), (1, 1, 1)):
        x = images("nchw", torch.uint8, 2, c, h, w)
        got = mix_normalize(x, mean=0.5, std=0.25)
        assert got.dtype == torch.bfloat16 and got.stride() == (c * h * w, 1, c * w, c)
        got = mix_normalize(x, mean=0.5, std=0.25, memory_format=torch.contiguous_format)
        assert got.stride() == (c * h * w, h * w, w, 1)


def test_layouts_are_found_by_the_number_of_channels():
    x = batch()
    expected = mix_normalize(x, FLIP, **IMAGENET)
    last = x.permute(0, 2, 3, 1)
    for given in (last, last.contiguous(), last.contiguous().numpy(), list(last), [*x.numpy()]):
        assert torch.equal(mix_normalize(given, FLIP, **IMAGENET), expected)
    square = images("nchw", torch.uint8, 2, 3, 5, 3)  # both dims would do: NCHW
    assert torch.equal(
        mix_normalize(square, **IMAGENET),
        mix_normalize(square.permute(0, 2, 3, 1), **IMAGENET, layout="NHWC"),
    )


def test_read_only_arrays_are_read_and_never_written():
    data = bytes(range(256)) * 3
    array = np.frombuffer(data, np.uint8).reshape(1, 16, 16, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = mix_normalize(array, **IMAGENET, flip=[True])
        samples = mix_normalize([array[0]], **IMAGENET, flip=[True])
    assert data == bytes(range(256)) * 3
    assert torch.equal(got, samples)


def test_images_are_never_written():
    x = batch(torch.float32)
    before = x.clone()
    mix_normalize(x, FLIP, **IMAGENET, dtype=torch.float32, memory_format=torch.contiguous_format)
    assert torch.equal(x, before)


def test_erased_boxes_follow_flip_and_mix():
    x = batch()
    box = torch.tensor([[2, 3, 9, 11]] * 4)
    flips = torch.tensor([True, False, True, True])
    colour = [0.5, -1.0, 2.0]
    got = mix_normalize(x, FLIP, **IMAGENET, flip=flips, erase=Erasing(box, colour))
    plain = mix_normalize(x, FLIP, **IMAGENET, flip=flips)
    plain[:, :, 2:9, 3:11] = torch.tensor(colour).view(-1, 1, 1).to(plain.dtype)
    assert torch.equal(got, plain)


def test_noise_is_normal_and_of_its_key_alone():
    x = torch.zeros(3, 5, 64, 64, dtype=torch.uint8)
    box = torch.tensor([[0, 0, 64, 64]] * 3)
    erase = Erasing(box, noise=[7, 7, 8])
    got = mix_normalize(x, mean=0.5, std=0.5, dtype=torch.float32, erase=erase)
    assert torch.equal(got[0], got[1]) and not torch.equal(got[0], got[2])
    assert abs(got[::2].mean()) < 0.02 and abs(got[::2].std() - 1) < 0.02
    flat = got[0].flatten(1)
    assert (torch.corrcoef(flat) - torch.eye(5)).abs().max() < 0.06


def test_a_plan_drawn_on_the_device_and_compile():
    state = fm.plan_state(3)
    x = batch()
    plan = fm.draw_plan(4, (20, 17), state=state, cutmix_alpha=1.0, per="sample", pairing="shuffle")
    erase = Erasing(torch.tensor([[1, 2, 9, 8]] * 4), 0.5)
    flips = torch.tensor([True, False, True, False])

    def step(x, plan):
        return mix_normalize(x, plan, **IMAGENET, flip=flips, erase=erase)

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True)
    assert torch.equal(compiled(x, plan), step(x, plan))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            y = batch()
            drawn = fm.draw_plan(
                4, (20, 17), state=state, cutmix_alpha=1.0, per="sample", pairing="shuffle"
            )
            assert torch.equal(compiled(y, drawn), step(y, drawn))


def test_sizes_that_change_compile_once():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: mix_normalize(x, **IMAGENET), fullgraph=True, dynamic=True)
    compiled(images("nchw", torch.uint8, 4, 3, 20, 17))
    compiled(images("nchw", torch.uint8, 6, 3, 24, 24))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for b, h, w in ((8, 32, 40), (5, 28, 12)):
            x = images("nchw", torch.uint8, b, 3, h, w)
            assert torch.equal(compiled(x), mix_normalize(x, **IMAGENET))


def test_memory_of_results_is_reused():
    x = images("nchw", torch.uint8, 8, 3, 256, 256)
    first = mix_normalize(x, **IMAGENET)
    address = first.data_ptr()
    del first
    assert mix_normalize(x, **IMAGENET).data_ptr() == address


def test_out_counts_as_written():
    out = torch.zeros(4, 3, 20, 17)
    version = out._version
    assert mix_normalize(batch(), **IMAGENET, out=out) is out
    assert out._version == version + 1
    assert mix_normalize(batch(), **IMAGENET, out=out.half()).dtype == torch.float16


def test_no_images():
    for shape in ((0, 3, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)):
        got = mix_normalize(torch.zeros(shape, dtype=torch.uint8), **IMAGENET)
        assert got.shape == shape and got.dtype == torch.bfloat16


def test_before_is_fast_collate_mixup_followed_by_normalising():
    x = batch()
    np.random.seed(3)  # noqa: NPY002 (timm draws from NumPy's global generator)
    collated, _ = FastCollateMixup(mixup_alpha=1.0, num_classes=4)([(s, 0) for s in x.numpy()])
    np.random.seed(3)  # noqa: NPY002
    np.random.rand()  # noqa: NPY002 (whether to mix at all)
    plan = MixPlan.uniform(4, "flip", float(np.random.beta(1.0, 1.0)))  # noqa: NPY002
    m, s = constants()
    expected = collated.float().sub_(m).div_(s)
    got = mix_normalize(x, plan, **IMAGENET, dtype=torch.float32, mix="before")
    assert torch.equal(got, expected)
