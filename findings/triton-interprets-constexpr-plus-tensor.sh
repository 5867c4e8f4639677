#!/usr/bin/env bash
# Triton 3.6.0 and 3.9.0: interpreted, constexpr + tensor is a constexpr; tensor + constexpr is none.
#
# One would guess that both sums are tensors, as they are compiled. The interpreter adds a
# global tl.constexpr as Python does, and its __add__ wraps the sum, until it is assigned to a name.
# So (C + x).to(…) fails in both versions; tl.where(C + x > 6, …), tl.exp(C * x) and a counter C + x
# of tl.philox run in 3.6, and in 3.9 stop at "cannot convert [5 6 7 8] of type <class
# 'triton.language.core.tensor'> to tensor". Write the tensor first.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy setuptools 2> /dev/null
cat > "$dir/f.py" <<'P'
import os, sys
import torch, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

C = tl.constexpr(5)

@triton.jit
def compared(out, FIRST: tl.constexpr):
    x = tl.arange(0, 4)
    tl.store(out + x, tl.where((C + x if FIRST else x + C) > 6, 1, 0))

@triton.jit
def converted(out, FIRST: tl.constexpr):
    x = tl.arange(0, 4)
    tl.store(out + x, (C + x if FIRST else x + C).to(tl.int64))

INTERPRETED = os.environ["TRITON_INTERPRET"] == "1"

def works(kernel, first):
    try:
        if INTERPRETED:
            kernel[(1,)](torch.zeros(4), FIRST=first)
        else:
            source = ASTSource(kernel, {"out": "*fp32", "FIRST": "constexpr"}, {(1,): first})
            triton.compile(source, GPUTarget("cuda", 90, 32), {"enable_fp_fusion": False})
    except triton.runtime.errors.InterpreterError:
        return False
    return True

found = {f"{k.__name__}, {'C + x' if first else 'x + C'}": works(k, first)
         for k in (compared, converted) for first in (False, True)}
how = "interpreted" if INTERPRETED else "compiled"
print(f"triton {triton.__version__}, {how}:", found)
want = [True, not INTERPRETED or triton.__version__ == "3.6.0", True, not INTERPRETED]
sys.exit(list(found.values()) != want)
P
for version in 3.6.0 3.9.0; do
  "$dir/v/bin/pip" install --quiet triton==$version 2> /dev/null
  for interpret in 0 1; do
    TRITON_INTERPRET=$interpret TRITON_CACHE_DIR="$dir/c" "$dir/v/bin/python" "$dir/f.py"
  done
done
