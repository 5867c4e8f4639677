#!/usr/bin/env bash
# PyTorch 2.13.0: interpolate(scale_factor=s) and interpolate(size=int(n·s)) sample other places.
#
# With a factor the step in the source is 1 / s, though the result has int(n·s) pixels: ten pixels by
# 0.37 give three, taken at steps of 2.7 from the first on, and the last two are never seen. With a
# size the step is 10 / 3. One would guess that the same input and the same output size give the same
# values; recompute_scale_factor=True makes them so. Resizing a pasted image by a drawn factor cuts
# its lower right border off.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, torch
from torch.nn.functional import interpolate

x = torch.arange(10.0).view(1, 1, 10)
seen = {}
for mode in ("nearest", "linear"):
    ways = {"scale_factor": 0.37}, {"size": 3}, {"scale_factor": 0.37, "recompute_scale_factor": True}
    seen[mode] = [[round(v, 2) for v in interpolate(x, mode=mode, **way)[0, 0].tolist()] for way in ways]
    print(f"torch {torch.__version__}, {mode}: factor, size, recomputed factor:", *seen[mode])
sys.exit(not all(a != b == c for a, b, c in seen.values()))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu, nearest: factor, size, recomputed factor: [0.0, 2.0, 5.0] [0.0, 3.0, 6.0] [0.0, 3.0, 6.0]
# seen: torch 2.13.0+cpu, linear: factor, size, recomputed factor: [0.85, 3.55, 6.26] [1.17, 4.5, 7.83] [1.17, 4.5, 7.83]
