"""Limits of each CUDA kernel's compiled code: registers, loads in flight, stores.

tests/test_cuda_build.py fails where a kernel needs more registers than its blocks leave it, where
it has fewer loads in flight, and where an instantiation has no entry here. `make kernels` lists
the compiled code of each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SHORT = {
    "unsigned char": "u8",
    "uint8_t": "u8",
    "__half": "f16",
    "__nv_bfloat16": "bf16",
    "float": "f32",
    "double": "f64",
}
BYTES = {"u8": 1, "f16": 2, "bf16": 2, "f32": 4, "f64": 8}
KINDS = ("sparse", "ranked", "dense")  # TargetKind of loss_args.cuh
PARTS = ("loss", "gradient", "both")  # LossPart of loss_args.cuh


@dataclass(frozen=True)
class Design:
    """One line of the table; it covers the instantiations whose label the pattern matches."""

    pattern: str
    threads: int  # of the largest block that is launched
    blocks: int  # that must fit on a multiprocessor at once
    loads: int  # of 16 bytes, in flight per thread; 0: no bandwidth goal, or no reads
    params: int  # narrower loads at most: weights, boxes, partners. -1: any, rows have ragged ends
    stores: int  # of 16 bytes at least; -1 in params allows narrower ones too
    why: str
    tile: bool = False  # holds a tile in dynamic shared memory, and reads it all at once
    since: int = 0  # the first architecture that has it; on older ones the kernel is empty


# The first line that matches counts. Labels: kernel, dtype x elements per access, flags.
DESIGNS = (
    Design(r"pair (b?f16x16|f32x8|f64x4).*", 256, 4, 0, -1, 0, "32 bytes at once", since=100),
    Design(r"ring \w+x\d+.*", 1024, 1, 0, -1, 0, "bulk copies", since=90),
    Design(r"pair u8x16 box", 256, 5, 2, 8, 2, "widening uint8 takes the registers"),
    Design(r"pair u8x16", 256, 8, 2, 4, 2, "widening uint8 takes the registers"),
    Design(r"pair raw1x16 box", 256, 5, 2, 6, 2, "as for uint8, which shares the launch"),
    Design(r"pair raw16x1 box", 256, 2, 8, 6, 8, "launched as single elements are"),
    Design(r"pair \w+x\d+ box.*", 256, 4, 4, 8, 4, "as below; rows once per block"),
    Design(r"pair \w+x\d+.*", 256, 4, 4, 4, 4, "both samples, two vectors of each"),
    Design(r"tile \w+x\d+.*", 512, 2, 4, 20, 2, "one block loads, the other stores", tile=True),
    Design(r"walk raw16x1", 256, 2, 8, 10, 4, "launched as single elements are: four rows"),
    Design(r"walk \w+x\d+", 256, 2, 16, 10, 8, "eight rows; half of them along cycles"),
    Design(r"gather f64x2 box", 256, 4, 2, 9, 2, "each row once more, from L2"),
    Design(r"gather \w+x\d+.*", 256, 4, 3, 9, 2, "each row once more, from L2"),
    Design(r"scatter \w+x\d+ box", 256, 3, 3, 26, 2, "each row once more, from L2"),
    Design(r"scatter \w+x\d+", 256, 3, 2, 8, 2, "nvcc waits for the row on sm_90"),
    Design(r"(pair|tile|gather|scatter|walk) \w+ single.*", 256, 2, 0, -1, 0, "unaligned"),
    Design(r"order", 1024, 1, 0, -1, 0, "one block, 2 B integers"),
    Design(r"targets \w+x\d+", 256, 6, 0, -1, 1, "written only, from labels in cache"),
    Design(r"row f64 \w+ loss", 512, 1, 2, -1, 0, "exp of doubles takes the registers"),
    Design(r"row f64 .*", 512, 1, 2, -1, 2, "exp of doubles takes the registers"),
    Design(r"row \w+ sparse loss", 1024, 1, 4, -1, 0, "logits alone"),
    Design(
        r"row \w+ (ranked|dense) loss", 1024, 1, 2, -1, 0, "ranks take registers, targets loads"
    ),
    Design(r"row \w+ sparse \w+", 1024, 1, 4, -1, 4, "logits and gradient"),
    Design(r"row \w+ ranked \w+", 1024, 1, 2, -1, 4, "the labels' ranks take the registers"),
    Design(r"row \w+ dense \w+", 1024, 1, 3, -1, 2, "logits, target, gradient"),
    Design(r"cluster \w+ ranked", 256, 2, 4, -1, 2, "ranks take the registers", since=90),
    Design(r"cluster \w+ \w+", 256, 3, 4, -1, 2, "a slice of the row ahead", since=90),
    Design(r"column b?f16x8 dense", 128, 4, 2, -1, 2, "eight positions have much state"),
    Design(r"column b?f16x8 sparse", 128, 4, 4, -1, 4, "eight positions have much state"),
    Design(r"column \w+x\d+ dense", 128, 5, 2, -1, 2, "logits, target, gradient"),
    Design(r"column \w+x\d+ sparse", 128, 5, 4, -1, 4, "logits and gradient; the loss alone: 1"),
    Design(r"column \w+ single.*", 128, 5, 0, -1, 0, "unaligned positions, ranks"),
    Design(r"binary_row f64.*", 512, 1, 2, -1, 2, "exp of doubles takes the registers"),
    Design(r"binary_row \w+ focal", 1024, 1, 0, -1, 0, "two more exps for each element"),
    Design(r"binary_row \w+", 1024, 1, 2, -1, 2, "softplus and its slope take the registers"),
    Design(r"binary_column .* focal", 128, 5, 0, -1, 0, "two more exps for each element"),
    Design(r"binary_column f32x4", 128, 5, 4, -1, 4, "labels, scales, sums of 4 positions"),
    Design(r"binary_column \w+", 128, 5, 0, -1, 0, "8 bytes: labels, scales, sums of 4"),
    Design(r"binary_column \w+ single", 128, 5, 0, -1, 0, "unaligned positions"),
    Design(r"scale bf16x8", 256, 4, 3, -1, 4, "nvcc takes one apart before the last on sm_90"),
    Design(r"scale f64x2", 256, 4, 2, -1, 4, "nvcc waits for two before the others on sm_80"),
    Design(r"scale \w+x\d+", 256, 4, 4, -1, 4, "nothing where the factor is one"),
    Design(r"scale \w+ single", 256, 4, 0, -1, 0, "unaligned"),
    Design(r"reduce \w+", 512, 1, 0, -1, 0, "one value per block, or two labels per row"),
    Design(r"boxes f(32|64)", 128, 4, 0, -1, 0, "a warp for each sample's few boxes"),
    # A block more before sm_100, which takes the registers (mix_masked_rows.cuh).
    Design(r"masked_pair u8x16", 128, 2, 2, -1, 2, "widening uint8 takes the registers"),
    Design(r"masked_pair \w+x\d+ transposed", 128, 2, 2, -1, 6, "nvcc waits on sm_100"),
    Design(r"masked_pair \w+x\d+.*", 128, 2, 6, -1, 6, "both samples, three channels of each"),
    Design(r"masked_gather u8x16", 128, 3, 2, -1, 2, "widening uint8 takes the registers"),
    Design(r"masked_gather \w+x\d+", 128, 3, 3, -1, 6, "each row once more, from L2"),
    Design(r"masked_scatter \w+x\d+", 128, 2, 1, -1, 1, "two masks and a sum take the registers"),
    Design(r"masked_(pair|scatter) \w+ single.*", 128, 2, 0, -1, 0, "unaligned"),
    Design(r"masked_gather \w+ single", 128, 3, 0, -1, 0, "unaligned"),
    Design(r"mask_mean", 512, 2, 0, -1, 0, "small tables, in cache"),
    Design(r"normalize_groups .* c1", 128, 8, 2, 40, 1, "both samples, one vector of each"),
    Design(r"normalize_groups u8-b?f16 c3", 128, 6, 6, 40, 6, "both samples, three vectors"),
    Design(r"normalize_groups u8-b?f16 c4", 128, 4, 8, 40, 8, "both samples, four vectors"),
    Design(r"normalize_groups .* c3", 128, 4, 6, 40, 3, "both samples, three vectors"),
    Design(r"normalize_groups .* c4", 128, 3, 8, 40, 4, "both samples, four vectors"),
    Design(r"normalize_single .*", 256, 4, 0, -1, 0, "any strides"),
    Design(r"rectangles \w+x\d+", 256, 4, 0, -1, 1, "finds the rectangle of each element"),
    Design(r"patches \w+x\d+", 256, 5, 0, -1, 1, "where a patch lies takes the registers"),
    Design(r"(rectangles|patches) \w+ single", 256, 4, 0, -1, 0, "unaligned, or narrow patches"),
    Design(r"neighbor f(32|64)", 256, 1, 0, -1, 0, "a warp for each sample, arithmetic on float64"),
    Design(r"erasing", 512, 1, 0, -1, 0, "one block, arithmetic on float64"),
    Design(r"variant", 512, 1, 0, -1, 0, "a block for each unit, arithmetic on float64"),
    Design(r"plan_rows", 128, 4, 0, -1, 0, "a thread for each sample, arithmetic on float64"),
    Design(r"plan", 512, 1, 0, -1, 0, "one block, arithmetic on float64"),
)


def design_of(label: str) -> Design:
    for design in DESIGNS:
        if re.fullmatch(design.pattern, label):
            return design
    raise KeyError(f"{label}: no line of tools/kernel_table.py covers it")


def label_of(demangled: str) -> str:
    """``pair bf16x8 box`` for ``void fused_mixup::pair_kernel<__nv_bfloat16, 8, true, false>(…)``.

    ``single`` means one element at a time; Raw<n>, values that are only moved, becomes ``rawn``.
    """
    name = re.search(
        r"(\w+?)_kernel(?:<(.*)>)?\(",
        demangled.replace("(fused_mixup::TargetKind)", "").replace("(fused_mixup::LossPart)", ""),
    )
    if name is None:
        raise ValueError(f"{demangled}: not a kernel of this package")
    kernel, inner = name[1], (name[2] or "").replace("fused_mixup::", "")
    given = [SHORT.get(g.strip(), g.strip()) for g in inner.split(",")] if inner else []
    given = [re.sub(r"Raw<(\d+)>", r"raw\1", g) for g in given]
    if kernel == "row":
        return f"row {given[0]} {KINDS[int(given[1])]} {PARTS[int(given[2])]}"
    if kernel == "cluster":
        return f"cluster {given[0]} {KINDS[int(given[1])]}"
    if kernel == "column":
        return f"column {_width(given[0], given[1])} {KINDS[int(given[2])]}"
    if kernel in ("scale", "rectangles", "patches"):
        return f"{kernel} {_width(given[0], given[1])}"
    if kernel in ("binary_row", "binary_column"):
        *place, focal = given
        shown = place[0] if kernel == "binary_row" else _width(*place)
        return f"{kernel} {shown}{' focal' if focal == 'true' else ''}"
    if kernel == "reduce":
        return f"reduce {'rows' if given[0] == 'true' else 'sums'}"
    if kernel == "targets":
        return f"targets {given[0]}x{16 // BYTES[given[0]]}"
    if kernel.startswith("normalize"):
        return " ".join([kernel, f"{given[0]}-{given[1]}", *(f"c{n}" for n in given[2:])])
    if kernel in (
        "order",
        "plan",
        "plan_rows",
        "variant",
        "erasing",
        "neighbor",
        "boxes",
        "mask_mean",
    ):
        return " ".join([kernel, *given])
    dtype, v, *flags = given
    names = ["transposed"] if kernel.startswith("masked") else ["box", "transposed"]
    on = [n for n, flag in zip(names, flags, strict=False) if flag == "true"]
    return " ".join([kernel, _width(dtype, v), *on])


def _bytes(dtype: str) -> int:
    return int(dtype[3:]) if dtype.startswith("raw") else BYTES[dtype]


def _width(dtype: str, v: str) -> str:
    single = v == "1" and _bytes(dtype) < 16
    return f"{dtype} single" if single else f"{dtype}x{v}"


def tile_bytes(batch: int, row_bytes: int, many: bool, shared_limit: int) -> int:
    """Dynamic shared memory of tile_kernel, as tile_width() in csrc/cuda/mix_tile.cuh has it."""
    for width in (256, 128) if batch > 64 else (1024, 512, 256, 128)[not many :]:
        if batch * (width + row_bytes) <= shared_limit // 2:
            return batch * (width + row_bytes)
    for width in (128, 64, 32, 16):
        if batch * (width + row_bytes) <= shared_limit:
            return batch * (width + row_bytes)
    return 0


MOST_ROW_BYTES = 56  # of a staged row of doubles with a box
