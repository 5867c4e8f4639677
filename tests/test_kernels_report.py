"""The tools that read compiled code: occupancy, names, machine code, the table of designs.

No compiler is needed: the machine code is text, cut from what cuobjdump prints.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import flow_table  # noqa: E402
import kernel_table  # noqa: E402
import kernels  # noqa: E402
import kernels_triton  # noqa: E402
import sass  # noqa: E402
from occupancy import ARCHS, blocks_per_multiprocessor, most_registers  # noqa: E402


# Values of the CUDA occupancy calculator, and two that follow from its rules by hand.
@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "blocks"),
    [
        (80, 256, 32, 0, 8),  # 64 warps: full
        (80, 256, 64, 0, 4),  # half of the warps
        (80, 256, 65, 0, 3),  # 72 after rounding: 2304 registers a warp, 7 in each partition
        (80, 1024, 64, 0, 1),
        (90, 128, 168, 0, 3),  # 5376 registers a warp, 3 in each of four partitions
        (90, 32, 16, 0, 32),  # the number of blocks limits, although warps are left
        (80, 128, 32, 48 * 1024, 3),  # 49 KiB each of 164
        (90, 128, 32, 48 * 1024, 4),  # ... of 228
        (80, 256, 32, 163 * 1024, 1),
        (90, 256, 32, 227 * 1024, 1),
        (90, 256, 32, 114 * 1024, 1),  # 115 KiB each: two would be 2 KiB too many
        (100, 512, 40, 64 * 1024, 3),
    ],
)
def test_occupancy(arch, threads, registers, shared, blocks):
    assert blocks_per_multiprocessor(ARCHS[arch], threads, registers, shared) == blocks


@pytest.mark.parametrize(
    ("threads", "blocks", "registers"), [(256, 2, 128), (512, 2, 64), (256, 4, 64), (256, 8, 32)]
)
def test_registers_that_leave_room(threads, blocks, registers):
    assert most_registers(ARCHS[90], threads, blocks) == registers


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (
            "void fused_mixup::pair_kernel<__nv_bfloat16, 8, true, false>(fused_mixup::MixParams)",
            "pair bf16x8 box",
        ),
        (
            "void fused_mixup::pair_kernel<double, 1, true, true>(fused_mixup::MixParams)",
            "pair f64 single box transposed",
        ),
        (
            "void fused_mixup::walk_kernel<fused_mixup::Raw<16>, 1>(fused_mixup::MixParams)",
            "walk raw16x1",
        ),
        (
            "void fused_mixup::row_kernel<__half, (fused_mixup::TargetKind)2, "
            "(fused_mixup::LossPart)1>(fused_mixup::LossParams<fused_mixup::Number<__half>::Acc>)",
            "row f16 dense gradient",
        ),
        (
            "void fused_mixup::column_kernel<float, 1, (fused_mixup::TargetKind)1>(x)",
            "column f32 single ranked",
        ),
        ("void fused_mixup::binary_column_kernel<__half, 4, false>(x)", "binary_column f16x4"),
        (
            "void fused_mixup::binary_column_kernel<float, 1, true>(x)",
            "binary_column f32 single focal",
        ),
        ("void fused_mixup::binary_row_kernel<double, false>(x)", "binary_row f64"),
        ("void fused_mixup::binary_row_kernel<__half, true>(x)", "binary_row f16 focal"),
        ("void fused_mixup::scale_kernel<float, 4>(fused_mixup::ScaleParams)", "scale f32x4"),
        ("void fused_mixup::reduce_kernel<true>(fused_mixup::ReduceArgs)", "reduce rows"),
        ("void fused_mixup::targets_kernel<__half>(fused_mixup::TargetParams<x>)", "targets f16x8"),
        ("fused_mixup::order_kernel(int const*, long, int*, int*)", "order"),
    ],
)
def test_labels(name, label):
    assert kernel_table.label_of(name) == label
    assert kernel_table.design_of(label).threads >= 128


def test_an_unknown_kernel_is_named():
    with pytest.raises(KeyError, match="spin f32x4"):
        kernel_table.design_of("spin f32x4")


def _code(*lines: tuple[str, int, tuple[int, ...]]) -> list[sass.Instruction]:
    """Machine code as text: (instruction, counter that it raises, counters that it waits for)."""
    text = "\t\tFunction : f\n"
    for k, (line, raises, waits) in enumerate(lines):
        control = raises << 46 | sum(1 << 52 + w for w in waits)
        text += f"        /*{k * 16:04x}*/  {line} ;  /* 0x{0:016x} */\n"
        text += f"                                    /* 0x{control:016x} */\n"
    return sass.parse(text)["f"]


def _load(to: int, counter: int = 0, waits: tuple[int, ...] = (), predicate: str = ""):
    return (f"{predicate} LDG.E.128 R{to}, desc[UR4][R2.64]", counter, waits)


FREE = 7  # the load has no counter


def test_instructions_are_read():
    code = _code(("@!P0 LDG.E.U8.CONSTANT R4, [R2.64]", 3, (0, 5)), ("STG.E.64 [R2.64], R4", 7, ()))
    assert (code[0].predicate, code[0].name, code[0].width) == ("!P0", "LDG", 1)
    assert (code[0].signals, code[0].waits) == (3, (0, 5))
    assert (code[1].width, code[1].signals, code[1].address) == (8, FREE, 16)


def test_loads_are_counted_until_one_is_waited_for():
    assert sass.loads_ahead(_code(_load(4), _load(8), ("FADD R0, R4, R8", FREE, (0,))), 16) == 2
    waited = _code(_load(4), ("FADD R0, R4, R4", FREE, (0,)), _load(8))
    assert sass.loads_ahead(waited, 16) == 1
    # A wait for another counter leaves the load in flight. Narrower loads do not count.
    apart = _code(_load(4), ("LDG.E R1, [R2.64]", 1, ()), ("FADD R0, R1, R1", FREE, (1,)), _load(8))
    assert sass.loads_ahead(apart, 16) == 2


def test_loads_that_wait_for_no_weight():
    weight = ("LDG.E.64 R20, [R2.64]", 1, ())
    used = ("FADD R0, R20, R20", FREE, (1,))
    assert sass.loads_first(_code(_load(4), weight, _load(8), used, _load(12)), 16) == 2
    assert sass.loads_first(_code(weight, used, _load(4)), 16) == 0
    copy = ("LDGSTS.E.BYPASS.128 [R0], [R2.64]", 0, ())
    assert sass.loads_first(_code(copy, weight, used, copy), 16) == 1


def test_divisions_of_integers_are_counted():
    lines = ("I2F.U32.RP R0, R4", "I2F.U64.RP R10, R4", "I2F.U16 R0, R4", "I2FP.F32.U32 R0, R4")
    code = _code(*((line, FREE, ()) for line in lines))
    assert sass.examine(code, sass.Usage(1, 0, 0, 0)).divisions == 2


def test_loads_are_counted_along_paths():
    # A jump skips a wait: that path has both loads in flight.
    around = _code(_load(4), ("@P0 BRA 0x30", FREE, ()), ("FADD R0, R4, R4", FREE, (0,)), _load(8))
    assert sass.loads_ahead(around, 16) == 2
    # Only one of two paths runs, never both.
    either = _code(_load(4, predicate="@P0"), ("EXIT", FREE, ()), _load(8), ("EXIT", FREE, ()))
    assert sass.loads_ahead(either, 16) == 1
    copies = _code(*[("LDGSTS.E.BYPASS.128 [R0], [R2.64]", 0, ())] * 3, ("DEPBAR", FREE, ()))
    assert sass.loads_ahead(copies, 16) == 3


def test_what_counts_as_a_fused_multiply_add():
    fused = _code(
        ("FFMA R0, R1, R2, R3", FREE, ()),
        ("DFMA R0, R2, R4, R6", FREE, ()),
        ("HFMA2.BF16 R0, R1, R2, R3", FREE, ()),
        ("HFMA2.MMA R0, -RZ, RZ, 0, 0", FREE, ()),  # this puts a constant into a register
        ("IMAD R0, R1, R2, R3", FREE, ()),
        ("FMUL R0, R1, R2", FREE, ()),
    )
    assert [i.fused for i in fused] == [True, True, True, False, False, False]


@pytest.mark.parametrize("shared_limit", [163 * 1024, 227 * 1024])
def test_tiles_of_the_table_are_those_of_the_source(shared_limit):
    """C++ and, for test_cuda_build.py, Python state the rule: their constants must agree."""
    source = (ROOT / "csrc" / "cuda" / "mix_tile.cuh").read_text()
    body = re.search(r"inline int tile_width.*?\n}\n", source, re.S)
    assert body is not None
    first = re.search(
        r"width = batch > (\d+) \? (\d+) : many \? (\d+) : (\d+); width >= (\d+)", body[0]
    )
    second = re.search(r"width = (\d+); width >= (\d+)", body[0])
    assert first is not None and second is not None
    small, narrow, wide, usual, least = map(int, first.groups())
    sizes = itertools.product((1, 3, 64, 65, 256, 500, 1024, 5000, 20000), (16, 56), (False, True))
    for batch, row_bytes, many in sizes:
        start = narrow if batch > small else wide if many else usual
        expected = 0
        for share, begin, end in ((2, start, least), (1, *map(int, second.groups()))):
            while begin >= end and not expected:
                bytes_ = batch * (begin + row_bytes)
                expected = bytes_ if bytes_ <= shared_limit // share else 0
                begin //= 2
        assert kernel_table.tile_bytes(batch, row_bytes, many, shared_limit) == expected


def test_a_report_lists_each_kernel_with_its_limit(monkeypatch):
    monkeypatch.setattr(kernels_triton, "machine_code", lambda target: [TRITON | {"case": target}])
    code = sass.examine(_code(_load(4), _load(8)), sass.Usage(50, 0, 2048, 0))
    design = kernel_table.design_of("pair f32x4")
    at = [kernels.Instance("pair f32x4", "mix", arch, design, code) for arch in (80, 90)]
    tools = SimpleNamespace(toolkit=SimpleNamespace(version="13.0"))
    lines = kernels.report(tools, at, (80, 90)).splitlines()
    rows = [line for line in lines if line.startswith("| pair f32x4 |")]
    # 2048 bytes of shared memory, of which the system takes 1024 on sm_90.
    assert rows == [f"| pair f32x4 | 256 | 50 | 64 | {n} | 4 | 2 |" for n in (2048, 1024)]
    if importlib.util.find_spec("triton"):
        assert "| sm_90 | pair | 128 | 40 | 0 | 12 | 4 |" in lines


TRITON = {"kernel": "pair_kernel", "warps": 4, "registers": 40, "shared": 0, "ahead": 4}


def test_without_a_toolkit_the_report_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert kernels.main([]) == 1
    assert "CUDA_HOME does not name a CUDA toolkit" in capsys.readouterr().err


def test_an_unknown_architecture_is_refused(capsys):
    with pytest.raises(SystemExit):
        kernels.main(["75"])
    assert "architectures are 80, 90, 100, not 75" in capsys.readouterr().err


# ------------------------------------------------------------------ predictions


def test_the_prediction_of_one_block_is_the_sum_of_its_phases():
    gpu, latency = flow_table.GPUS[90], flow_table.LATENCY * 1.98e9
    moved = 512 / (gpu.bandwidth / gpu.multiprocessors / gpu.clock)  # cycles of a vector
    phases = [flow_table.Phase(2, 400), flow_table.Phase(0, 8, 16, 50, 3, barrier=True)]

    def cycles(warps):
        kernel = flow_table.Kernel("", 32 * warps, {90: 32}, 0, phases, 1)
        assert kernel.moved == 5 * 512 * warps
        return flow_table._cycles(kernel, 90, gpu)

    assert cycles(1) == pytest.approx(2 * moved + latency + 100 + 50 + 32 + 3 * moved)
    # The second warp's vectors come 2 moved later, but its first phase waits for the first one's.
    assert cycles(2) == pytest.approx(2 * moved + latency + 200 + 50 + 32 + 3 * moved, rel=0.02)


@pytest.mark.parametrize("arch", flow_table.GPUS)
def test_predictions_of_flips_reach_the_goal(arch):
    for box in (False, True):
        kernel = flow_table.flip(box)
        assert 0.95 <= flow_table.predict(kernel, arch) <= 1
    few = flow_table.predict(flow_table.flip(False, batch=16), arch)
    assert few < 0.9 * flow_table.predict(flow_table.flip(False), arch)  # latency, the last round


@pytest.mark.parametrize("arch", flow_table.GPUS)
def test_predictions_of_the_loss_move_each_logit_once_each_way(arch):
    kernel = flow_table.loss()
    assert kernel.moved == pytest.approx(2 * 2 * 21841, rel=1e-3)
    assert flow_table.predict(flow_table.loss(264), arch) < flow_table.predict(kernel, arch) < 1
