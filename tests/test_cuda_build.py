"""Compiles every CUDA kernel, without PyTorch and without a GPU, and reads the machine code.

tools/kernel_table.py holds each kernel's requirements and their reasons; `make kernels` lists the
compiler's results. Limits are tested, not register numbers, which differ between compilers. (PTX
is not enough: the assembler decides whether 16 bytes move at once.)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import flow_table
import kernels
from kernel_table import DESIGNS, MOST_ROW_BYTES, tile_bytes
from occupancy import ARCHS, blocks_per_multiprocessor


@pytest.fixture(scope="module")
def everything() -> list[kernels.Instance]:
    """Every instantiation on every architecture that nvcc knows."""
    try:
        tools = kernels.find_tools(os.environ)
    except kernels.MissingTool as missing:
        pytest.skip(str(missing))
    return kernels.examine(tools, [arch for arch in ARCHS if tools.knows(arch)])


@pytest.fixture(params=ARCHS, ids=lambda arch: f"sm_{arch}")
def instances(everything, request) -> list[kernels.Instance]:
    found = [i for i in everything if i.arch == request.param]
    if not found:
        pytest.skip(f"this nvcc does not compile for sm_{request.param}")
    return found


def _vectors(found):
    """Instantiations for aligned samples, where V elements are 16 bytes."""
    return [i for i in found if re.search(r"x\d+\b", i.label)]


# Fewer would mean that the drivers no longer instantiate every kernel.
@pytest.mark.proof
@pytest.mark.parametrize(
    ("driver", "count"),
    [("mix", 111), ("loss", 67), ("normalize", 48), ("collage", 38), ("masks", 37), ("plan", 3)],
)
def test_every_kernel_is_instantiated_once(instances, driver, count):
    labels = [i.label for i in instances if i.driver == driver]
    assert len(labels) >= count
    assert len(set(labels)) == len(labels)


@pytest.mark.proof
def test_every_line_of_the_table_is_a_kernel(instances):
    """A line that matches no kernel, or that an earlier line hides, would require nothing."""
    arch = instances[0].arch
    assert {i.design for i in instances} == {d for d in DESIGNS if d.since <= arch}


@pytest.mark.proof
def test_nothing_lives_in_local_memory(instances):
    """Every access to a spill or to an array in local memory goes through the memory bus."""
    # nvcc 13.0 spills in these whatever registers it may have (mix_masked_rows.cuh).
    spills = {(100, "masked_pair u8x16"), (100, "masked_gather u8x16")}
    for i in instances:
        if (i.arch, i.label) not in spills:
            assert (i.code.usage.stack, i.code.usage.local, i.code.local) == (0, 0, 0), i.label


@pytest.mark.proof
def test_registers_leave_room_for_the_blocks(instances):
    for i in instances:
        assert i.code.usage.registers <= i.most_registers, (i.label, i.most_registers)
    arch = instances[0].arch
    for kernel in flow_table.KERNELS.values() if arch in flow_table.GPUS else ():
        (compiled,) = (i for i in instances if i.label == kernel.label)
        registers, shared = compiled.code.usage.registers, compiled.static_shared
        fit = blocks_per_multiprocessor(ARCHS[arch], kernel.threads, registers, shared)
        assert fit >= kernel.resident(arch), kernel.label  # as predicted


@pytest.mark.proof
def test_tiles_share_a_multiprocessor(instances):
    """Two tiles of 128 bytes per sample fit at these batch sizes; at larger ones one runs alone."""
    for i in instances:
        if i.design.tile and "single" not in i.label:
            for batch in (64, 256):  # up to 64 samples a tile may be 1 KiB wide
                dynamic = tile_bytes(batch, MOST_ROW_BYTES, True, ARCHS[i.arch].shared_limit)
                assert i.blocks(dynamic) >= 2, (i.label, batch)


@pytest.mark.proof
def test_enough_loads_are_in_flight(instances):
    for i in instances:
        assert i.code.ahead >= i.design.loads, (i.label, i.code.ahead)


MIXING = ("pair", "tile", "gather", "scatter", "walk")


@pytest.mark.proof
def test_no_thread_divides_integers(instances):
    """Blocks, rows and coordinates are told apart by products."""
    checked = [i for i in instances if i.label.startswith(MIXING) and "single" not in i.label]
    assert len(checked) >= 60
    assert {i.label: i.code.divisions for i in checked if i.code.divisions} == {}


@pytest.mark.proof
def test_samples_do_not_wait_for_weights(instances):
    """Without boxes nothing that a plan says decides what pairs and tiles read."""
    plain = [i for i in instances if re.fullmatch(r"(pair|tile) \w+x\d+( transposed)?", i.label)]
    checked = [i for i in plain if i.design.since == 0]
    assert len(checked) == 14  # five dtypes of pairs and of tiles, four transposes
    for i in checked:
        assert i.code.first >= i.design.loads, (i.label, i.code.first)
    boxed = [i for i in instances if re.fullmatch(r"gather \w+x\d+ box", i.label)]
    assert boxed and all(i.code.first < i.design.loads for i in boxed)  # the test would see it


@pytest.mark.proof
def test_aligned_samples_move_16_bytes_at_a_time(instances):
    checked = [i for i in _vectors(instances) if i.design.params >= 0]
    assert len(checked) >= 66
    for i in checked:
        # Nothing but whole vectors is written, and no narrower load can be one of elements: there
        # are no more of them than weights, boxes and partners take.
        assert set(i.code.stores) == {16}, (i.label, i.code.stores)
        assert i.code.stores[16] >= i.design.stores, (i.label, i.code.stores)
        assert i.code.loads[16] + i.code.copies[16] >= i.design.loads, i.label
        assert set(i.code.loads) <= {4, 8, 16}, (i.label, i.code.loads)
        narrow = i.code.loads[4] + i.code.loads[8]
        assert narrow <= i.design.params, (i.label, i.code.loads)


@pytest.mark.proof
def test_tiles_are_staged_past_the_registers(instances):
    for i in _vectors(instances):
        if i.label.startswith("tile"):
            assert set(i.code.copies) == {16}, (i.label, i.code.copies)


@pytest.mark.proof
def test_rings_move_whole_tiles(instances):
    """Bulk copies in, 16 bytes a thread out; other loads are those of rows, once per block."""
    checked = [i for i in instances if i.label.startswith("ring")]
    # Five dtypes with and without boxes, five widths of pasted values.
    assert len(checked) == (15 if instances[0].arch >= 90 else 0)
    for i in checked:
        assert i.code.bulk == 2, i.label  # the first tiles of a block, and the next ones
        assert set(i.code.stores) == {16}, (i.label, i.code.stores)
        assert set(i.code.loads) <= {4, 8} and not i.code.copies, (i.label, i.code.loads)


@pytest.mark.proof
def test_wide_pairs_move_32_bytes_at_a_time(instances):
    checked = [i for i in instances if re.match(r"pair (b?f16x16|f32x8|f64x4)\b", i.label)]
    # Four dtypes, with and without boxes, both directions.
    assert len(checked) == (16 if instances[0].arch >= 100 else 0)
    for i in checked:
        assert set(i.code.stores) == {32}, (i.label, i.code.stores)
        assert i.code.loads[32] >= 2 and i.code.ahead >= 2, (i.label, i.code.loads)
        assert set(i.code.loads) <= {4, 8, 16, 32}, (i.label, i.code.loads)


@pytest.mark.proof
def test_rows_of_logits_move_16_bytes_at_a_time(instances):
    """Heads, tails and unaligned targets also move, element by element.

    The code of a kernel with two sweeps holds both, which read equally many vectors.
    """
    checked = [i for i in instances if i.design.params < 0 and i.design.loads]
    checked += [i for i in instances if i.label.startswith("targets")]
    assert len(checked) >= 30
    for i in checked:
        sweeps = 2 if re.match(r"column|row .* both", i.label) else 1
        read = i.code.loads[16] + i.code.copies[16]  # those of clusters go to shared memory
        assert read >= sweeps * min(i.design.loads, 4), (i.label, i.code.loads)
        assert i.code.stores[16] >= i.design.stores, (i.label, i.code.stores)


@pytest.mark.proof
def test_clusters_read_logits_once(instances):
    """Slices reach shared memory past the registers, and both sweeps read them there."""
    checked = [i for i in instances if i.label.startswith("cluster")]
    if instances[0].arch < 90:
        assert not checked
        return
    assert len(checked) == 9  # three dtypes, three kinds of targets
    for i in checked:
        assert set(i.code.copies) == {16} and i.code.loads[16] == 0, (i.label, i.code.loads)
        slices = 2 * 33 * 1024  # this row's and the next one's, at the longest rows of a size
        assert i.blocks(slices) >= i.design.blocks, i.label


@pytest.mark.proof
def test_groups_of_pixels_move_16_bytes_at_a_time(instances):
    """Narrower loads are those of partners, flips, weights, boxes and what is erased."""
    checked = [i for i in instances if i.label.startswith("normalize_groups")]
    assert len(checked) == 36  # four dtypes of images, three of results, 1, 3 and 4 channels
    for i in checked:
        assert set(i.code.stores) == {16}, (i.label, i.code.stores)
        assert i.code.stores[16] >= i.design.stores, (i.label, i.code.stores)
        # Both samples, each byte once; on some GPUs a path for each place of the channels.
        channels = int(i.label[-1])
        vectors = 2 * channels * (2 if " f32-" in i.label else 1)
        assert i.code.loads[16] >= vectors, (i.label, i.code.loads)
        assert set(i.code.loads) == {1, 4, 8, 16} and i.code.loads[1] == 2, (i.label, i.code.loads)
        assert i.code.loads[4] + i.code.loads[8] <= i.design.params, (i.label, i.code.loads)


@pytest.mark.proof
def test_no_fused_multiply_add_in_a_blend(instances):
    """A contraction would round once where eager PyTorch rounds twice.

    There is none in these kernels for any other reason either: addresses are integers, and they
    divide by multiplication of integers. Those of boxes have quotients: see below.
    """
    mix = [i for i in instances if i.driver == "mix"]
    checked = [i for i in mix if not i.label.startswith("boxes")]
    assert {i.label: i.code.fused for i in checked if i.code.fused} == {}
    # The loss has fused multiply-adds, so the test would see them.
    assert all(i.code.fused for i in instances if i.label.startswith(("row", "column", "binary")))


def ptx_of(driver, tmp_path):
    try:
        tools = kernels.find_tools(os.environ)
    except kernels.MissingTool as missing:
        pytest.skip(str(missing))
    ptx = tmp_path / f"{driver}.ptx"
    source = kernels.ROOT / "tests" / "host_cuda" / f"device_{driver}.cu"
    subprocess.run([tools.nvcc, *kernels.NVCC_FLAGS, "-ptx", "-o", ptx, source], check=True)
    return ptx.read_text()


@pytest.mark.proof
def test_boxes_round_every_operation_on_its_own(tmp_path):
    """Their shares decide which boxes stay. PTX shows quotients, whose code has multiply-adds."""
    entries = [e for e in ptx_of("mix", tmp_path).split(".entry ") if "boxes_kernel" in e[:99]]
    assert len(entries) == 2  # float32 and float64
    for entry in entries:
        found = re.findall(r"\b(fma|mad|add|sub|mul|div)\.((?:\w+\.)*)f(?:32|64)", entry)
        # A product that is said to be rounded is never contracted with a sum.
        assert set(found) == {("mul", "rn."), ("div", "rn."), ("add", ""), ("sub", "")}


@pytest.mark.proof
def test_masks_round_every_operation_on_its_own(tmp_path):
    """Nothing is fused, so that each pixel has the bits of the CPU; sigmoids too."""
    entries = ptx_of("masks", tmp_path).split(".entry ")[1:]
    assert len(entries) == 37
    for entry in entries:
        name = entry.split("(")[0]
        assert not re.search(r"\b(?:fma|mad)\.(?:\w+\.)*f(?:16|32|64)", entry), name
        # A product that is said to be rounded is never contracted with a sum; there is one other,
        # of the pixels of a mean, which no sum takes.
        others = {"mul.f64"} if "mask_mean" in name else set()
        found = re.findall(r"\bmul\.(?:\w+\.)*f(?:16|32|64)", entry)
        assert set(found) <= {"mul.rn.f32", "mul.rn.f64"} | others, name
        # No element is found by a division of 64 bits.
        assert not re.search(r"\b(?:div|rem)\.[su]64", entry), name


@pytest.mark.proof
def test_samples_that_masks_mix_move_16_bytes_at_a_time(instances):
    """Narrower loads are those of masks, weights, boxes and partners."""
    checked = [i for i in _vectors(instances) if i.label.startswith("masked")]
    assert len(checked) == 18  # five dtypes, four of them with a transpose
    for i in checked:
        assert set(i.code.stores) == {16}, (i.label, i.code.stores)
        assert i.code.stores[16] >= i.design.stores, (i.label, i.code.stores)
        assert i.code.loads[16] >= i.design.loads, (i.label, i.code.loads)


@pytest.mark.proof
def test_normalising_rounds_every_operation_on_its_own(tmp_path):
    """Bytes are divided by two products, one of them fused; nothing else is fused."""
    entries = ptx_of("normalize", tmp_path).split(".entry ")[1:]
    assert len(entries) == 48
    for entry in entries:
        name = entry.split("(")[0]
        groups_of_bytes = "groups_kernelIh" in name
        found = re.findall(r"\b(?:fma|mad|add|sub|mul|div)\.(?:\w+\.)*f(?:32|64)", entry)
        quotient = "fma.rn.f32" if groups_of_bytes else "div.rn.f32"
        # An operation that is said to be rounded is never contracted with another.
        assert set(found) == {"add.rn.f32", "sub.rn.f32", "mul.rn.f32", quotient}, name


def test_draws_round_every_operation_on_its_own(tmp_path):
    """A plan's bits depend on it. PTX shows quotients and roots, whose code has multiply-adds."""
    ptx = ptx_of("plan", tmp_path)
    found = re.findall(r"\b(?:fma|mad|add|sub|mul|div|sqrt)\.(?:\w+\.)*f64", ptx)
    kinds = {"add.rn.f64", "sub.rn.f64", "mul.rn.f64", "div.rn.f64", "sqrt.rn.f64"}
    assert set(found) == kinds
