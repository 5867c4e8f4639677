#!/usr/bin/env bash
# Triton 3.6.0 and 3.9.0: a tensor descriptor for a GPU without bulk copies loads element by element.
#
# A descriptor promises a base and strides of whole 16 bytes and a last stride of 1. One would guess
# that sm_80, which has no copy engine for it, gets the 16-byte loads that plain pointers to the same
# block get. The compiler makes 2-byte loads for bfloat16 instead, eight times as many; sm_90 copies
# in bulk. So a kernel with descriptors is no portable kernel: keep one of pointers beside it.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
cat > "$dir/f.py" <<'P'
import re, sys
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

@triton.jit
def by_descriptor(d, out, N: tl.constexpr):
    tl.store(out + tl.arange(0, N), d.load([0, 0]).reshape(N))

@triton.jit
def by_pointer(x, out, N: tl.constexpr):
    tl.store(out + tl.arange(0, N), tl.load(x + tl.arange(0, N)))

def loads(kernel, signature, arch):
    attrs = {(k,): [["tt.divisibility", 16]] for k, t in enumerate(signature.values()) if t[0] == "*"}
    source = ASTSource(kernel, {**signature, "N": "constexpr"}, {(2,): 2048}, attrs)
    ptx = triton.compile(source, target=GPUTarget("cuda", arch, 32)).asm["ptx"]
    bulk = len(re.findall(r"cp\.async\.bulk\.tensor", ptx))
    return bulk, len(re.findall(r"ld\.global\.b16", ptx)), len(re.findall(r"ld\.global\.v4", ptx))

found = {
    "descriptor, sm_90": loads(by_descriptor, {"d": "tensordesc<bf16[1, 2048]>", "out": "*bf16"}, 90),
    "descriptor, sm_80": loads(by_descriptor, {"d": "tensordesc<bf16[1, 2048]>", "out": "*bf16"}, 80),
    "pointer, sm_80": loads(by_pointer, {"x": "*bf16", "out": "*bf16"}, 80),
}
print(f"triton {triton.__version__}: bulk copies, loads of 2 bytes, loads of 16 bytes:", found)
want = {"descriptor, sm_80": (0, 16, 0), "pointer, sm_80": (0, 0, 2)}
sys.exit(found["descriptor, sm_90"][0] == 0 or any(found[k] != v for k, v in want.items()))
P
for version in 3.6.0 3.9.0; do
  "$dir/v/bin/pip" install --quiet triton==$version setuptools 2> /dev/null
  TRITON_CACHE_DIR="$dir/c" "$dir/v/bin/python" "$dir/f.py"
done
