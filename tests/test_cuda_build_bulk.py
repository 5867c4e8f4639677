"""What csrc/cuda/bulk.cuh assembles, in PTX: the host replaces its functions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import kernels

BULK_KERNEL = """#include "bulk.cuh"
extern "C" __global__ void all(uint64_t* barrier, unsigned count, unsigned bytes, unsigned parity,
                               void* shared, const void* global) {
  using namespace fused_mixup;
  barrier_init(barrier, count);
  fence_proxy_async();
  barrier_arrive(barrier, bytes);
  bulk_load(shared, global, bytes, barrier);
  barrier_wait(barrier, parity);
}
"""
BULK_CODE = """
mbarrier.init.shared::cta.b64 [barrier], count;
fence.proxy.async.shared::cta;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], bytes;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [shared], [global], bytes, [barrier];
{
.reg .pred done;
again:
mbarrier.try_wait.parity.shared::cta.b64 done, [barrier], parity;
@!done bra again;
}
"""  # noqa: E501


@pytest.mark.proof
@pytest.mark.parametrize(("arch", "code"), [(90, BULK_CODE), (80, "")])
def test_bulk_instructions_take_their_operands(tmp_path, arch, code):
    try:
        tools = kernels.find_tools(os.environ)
    except kernels.MissingTool as missing:
        pytest.skip(str(missing))
    source, ptx = tmp_path / "bulk.cu", tmp_path / "bulk.ptx"
    source.write_text(BULK_KERNEL)
    options = [*kernels.NVCC_FLAGS, f"-I{kernels.ROOT / 'csrc' / 'cuda'}", f"-arch=compute_{arch}"]
    subprocess.run([tools.nvcc, *options, "-ptx", "-o", ptx, source], check=True)
    text = ptx.read_text().split(".entry all(")[1]
    names = ["barrier", "count", "bytes", "parity", "shared", "global"]
    of = {f"all_param_{k}": name for k, name in enumerate(names)}
    # What a register holds: a parameter, whose address may have changed its space or width.
    for to, what in re.findall(r"(?:ld\.param|cvta?|mov)\S*\s+(%\w+), \[?([%\w]+)\]?;", text):
        of[to] = of[what]
    asm = "\n".join(re.findall(r"// begin inline asm\n(.*?)// end inline asm", text, re.DOTALL))
    asm = re.sub(r"%r\w+", lambda found: of[found[0]], asm)
    lines = (line.strip() for line in asm.splitlines())
    assert [line for line in lines if line] == code.split("\n")[1:-1]
