#!/usr/bin/env bash
# PyTorch 2.13.0: the first optimizer that a process makes imports torch._dynamo and sympy.
#
# No compiled code is near: SGD over one parameter does it, and the import takes ten times as long as
# making the optimizer afterwards, seconds on a busy machine. One would guess that eager training
# never loads the compiler, and that `import torch` has paid for what an optimizer needs. A test or
# a benchmark that times its first step times this import.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, time, torch
def loaded():
    return [name for name in ("torch._dynamo", "sympy") if name in sys.modules]
before, times = loaded(), []
for _ in range(2):
    start = time.perf_counter()
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    times.append(time.perf_counter() - start)
print(f"torch {torch.__version__}: after import {before}, after SGD {loaded()}; "
      f"first {times[0]:.1f} s, second {times[1] * 1e3:.2f} ms")
sys.exit(not ("torch._dynamo" not in before and "torch._dynamo" in loaded() and times[0] > 10 * times[1]))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu: after import [], after SGD ['torch._dynamo', 'sympy']; first 5.7 s, second 0.19 ms
