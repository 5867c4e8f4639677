"""Reads the machine code of NVIDIA GPUs: a kernel's loads, stores and loads in flight.

The disassembler is ``cuobjdump``, of the CUDA toolkit or of Triton's package. Its text is parsed
line by line; no kernel's name occurs here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FUNCTION = re.compile(r"^\s*Function : (\S+)", re.M)
# An instruction has two lines; its second word holds the counters that it waits for:
#     /*0080*/   @!P0 LDG.E.128 R4, desc[UR6][R2.64] ;    /* 0x0000000602048981 */
#                                                         /* 0x000ea2000c1e1d00 */
_LINE = re.compile(
    r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);"
    r"\s*/\* 0x[0-9a-f]{16} \*/\s*/\* 0x([0-9a-f]{16}) \*/"
)
_TARGET = re.compile(r"\b0x([0-9a-f]+)\s*$")
_USAGE = re.compile(
    r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)",
)
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
# Contractions, which round once where a product and a sum round twice. With a factor RZ a
# half-precision one is no product: it writes a constant into a register.
_FUSED = re.compile(r"[FD]FMA|HFMA2")
_DIVISION = re.compile(r"I2F\.[US](32|64)\.RP")  # a divisor, rounded up for its reciprocal


@dataclass(frozen=True)
class Instruction:
    address: int
    predicate: str  # "" where it always runs
    op: str  # "LDG.E.128"
    operands: str
    control: int = 0  # the upper half of its encoding

    @property
    def signals(self) -> int:
        """The counter, of a thread's six, that signals its result; 7 for none."""
        return self.control >> 46 & 7

    @property
    def waits(self) -> tuple[int, ...]:
        """The counters that must be zero before it issues."""
        return tuple(k for k in range(6) if self.control >> 52 + k & 1)

    @property
    def name(self) -> str:
        return self.op.partition(".")[0]

    @property
    def width(self) -> int:
        """Bytes that a memory access moves per thread."""
        parts = self.op.split(".")[1:]
        return next((_WIDTHS[p] for p in parts if p in _WIDTHS), 4)

    @property
    def fused(self) -> bool:
        """Whether it multiplies and adds with one rounding."""
        return bool(_FUSED.match(self.name)) and "RZ" not in self.operands


@dataclass(frozen=True)
class Usage:
    registers: int
    stack: int
    shared: int  # static, in bytes
    local: int


@dataclass(frozen=True)
class Kernel:
    """Figures of one kernel's machine code."""

    usage: Usage
    loads: Counter[int]  # width in bytes -> instructions; global memory, cp.async left out
    stores: Counter[int]
    copies: Counter[int]  # cp.async: global to shared memory past the registers
    bulk: int  # bulk copies into shared memory
    local: int  # loads and stores of local memory: spills and arrays outside registers
    fused: int  # fused multiply-adds
    divisions: int  # of integers; each takes a reciprocal and some twenty instructions
    first: int  # loads of 16 bytes issued before the first wait for a narrower one
    ahead: int  # loads of 16 bytes or more, cp.async included, that a thread has in flight at once
    instructions: int


def find_cuobjdump(env: Mapping[str, str], toolkit: Path | None) -> Path | None:
    """A folder's ``cuobjdump`` next to ``nvdisasm``: toolkit, PATH, or Triton's package."""
    folders = [toolkit / "bin"] if toolkit else []
    on_path = shutil.which("cuobjdump", path=env.get("PATH"))
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    triton = importlib.util.find_spec("triton")
    for place in triton.submodule_search_locations or [] if triton else []:
        folders.append(Path(place) / "backends" / "nvidia" / "bin")
    for folder in folders:
        if all((folder / name).exists() for name in ("cuobjdump", "nvdisasm")):
            return folder / "cuobjdump"
    return None


def _run(cuobjdump: Path, option: str, cubin: Path) -> str:
    env = {**os.environ, "PATH": f"{cuobjdump.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [str(cuobjdump), option, str(cubin)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def parse(text: str) -> dict[str, list[Instruction]]:
    """Mangled name -> instructions, from the text of ``cuobjdump -sass``."""
    parts = _FUNCTION.split(text)
    return {
        name: [
            Instruction(int(address, 16), predicate, op, operands.strip(), int(control, 16))
            for address, predicate, op, operands, control in _LINE.findall(body)
        ]
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def parse_usage(text: str) -> dict[str, Usage]:
    """Mangled name -> resources, from the text of ``cuobjdump -res-usage``."""
    return {name: Usage(*map(int, numbers)) for name, *numbers in _USAGE.findall(text)}


_PATH_ENDS = ("BRA", "EXIT", "RET", "BRX", "JMP")  # without a condition they end a path
_COPIES = -1  # cp.async has a counter of its own
_Pending = tuple[int, ...]  # the counters of the loads in flight


def loads_ahead(code: Sequence[Instruction], width: int) -> int:
    """The most loads of ``width`` bytes or more that a thread has in flight at once.

    Waits are exact: a load raises a counter, and an instruction that waits for that counter names
    it in its encoding. Where paths meet, the one with more in flight counts: contiguous samples
    skip the divisions of strided ones. Jumps back are not followed, so loads that a loop keeps in
    flight from one iteration to the next are not counted.
    """
    most = 0
    arriving: dict[int, _Pending] = {}  # address -> loads in flight on the best jump to it
    here: _Pending | None = ()
    for at in code:
        ways = [way for way in (here, arriving.pop(at.address, None)) if way is not None]
        here = max(ways, key=len, default=())
        done = at.waits
        if at.name == "BAR" or at.name == "DEPBAR":
            done = (*done, _COPIES)
        here = tuple(counter for counter in here if counter not in done)
        if at.width >= width and at.name in ("LDG", "LDGSTS"):
            here = (*here, at.signals if at.name == "LDG" else _COPIES)
            most = max(most, len(here))
        target = _TARGET.search(at.operands) if at.name == "BRA" else None
        if target and int(target[1], 16) > at.address:
            to = int(target[1], 16)
            arriving[to] = max(here, arriving.get(to, ()), key=len)
        if at.name in _PATH_ENDS and not at.predicate and not at.operands.startswith(("P", "!P")):
            here = None
    return most


def loads_first(code: Sequence[Instruction], width: int) -> int:
    """Loads of ``width`` bytes that stand before the first wait for a narrower load.

    These do not depend on what narrower loads bring: weights, boxes, partners. A counter that both
    raise counts as that of the narrower one.
    """
    found = 0
    narrow: set[int] = set()
    for at in code:
        if narrow & set(at.waits):
            break
        if at.name == "LDG" and at.width < width:
            narrow.add(at.signals)
        found += at.name in ("LDG", "LDGSTS") and at.width == width
    return found


def examine(code: Sequence[Instruction], usage: Usage) -> Kernel:
    def widths(name: str) -> Counter[int]:
        return Counter(i.width for i in code if i.name == name)

    return Kernel(
        usage=usage,
        loads=widths("LDG"),
        stores=widths("STG"),
        copies=widths("LDGSTS"),
        bulk=sum(i.name == "UBLKCP" for i in code),
        local=sum(i.name in ("LDL", "STL") for i in code),
        fused=sum(i.fused for i in code),
        divisions=sum(bool(_DIVISION.match(i.op)) for i in code),
        first=loads_first(code, 16),
        ahead=loads_ahead(code, 16),
        instructions=sum(i.name != "NOP" for i in code),
    )


def read(cuobjdump: Path, cubin: Path) -> dict[str, Kernel]:
    """Mangled name -> figures, for every kernel of a cubin."""
    usage = parse_usage(_run(cuobjdump, "-res-usage", cubin))
    code = parse(_run(cuobjdump, "-sass", cubin))
    return {name: examine(code[name], usage[name]) for name in usage}
