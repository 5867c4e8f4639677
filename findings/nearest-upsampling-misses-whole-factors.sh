#!/usr/bin/env bash
# PyTorch 2.13.0: interpolate(mode="nearest") by a whole factor does not always repeat each value.
#
# The factor is turned into a float32 ratio, in / out, and the source is floor(dst · ratio). For
# factors of 41, 47, 55 and 61 (and no other below 64) the product falls just below a whole number:
# the first pixel of a cell shows the cell before it. One would guess that a mask of patches,
# upsampled by its patch size, has cells of that size. mode="nearest-exact" has.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, torch
import torch.nn.functional as F

values = torch.arange(4.0)
wrong = {}
for mode in ("nearest", "nearest-exact"):
    wrong[mode] = [
        factor for factor in range(1, 64)
        if not torch.equal(
            F.interpolate(values[None, None], size=4 * factor, mode=mode)[0, 0],
            values.repeat_interleave(factor),
        )
    ]
print(f"torch {torch.__version__}: factors below 64 that do not repeat four values:", wrong)
sys.exit(wrong != {"nearest": [41, 47, 55, 61], "nearest-exact": []})
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu: factors below 64 that do not repeat four values: {'nearest': [41, 47, 55, 61], 'nearest-exact': []}
