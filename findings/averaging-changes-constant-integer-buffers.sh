#!/usr/bin/env bash
# PyTorch 2.13.0: AveragedModel(use_buffers=True) changes integer buffers that no step changes.
#
# EMA and SWA average every buffer in float32, integers too, and write the rounded result back. An
# integer above 2**24 that is the same in every step (a version, a seed) therefore changes with the
# first average that is not a copy. One would guess that the average of equal integers is that
# integer, or that integer buffers are copied.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 2)
        self.register_buffer("word", torch.tensor([2**24 + 1]))

seen = {}
for name, fn in (("SWA", None), ("EMA", get_ema_multi_avg_fn(0.999))):
    model = Model()
    average = AveragedModel(model, multi_avg_fn=fn, use_buffers=True)
    for _ in range(3):
        average.update_parameters(model)
    seen[name] = average.module.word.item()
print(f"torch {torch.__version__}: a buffer that is always {2**24 + 1} is averaged to", seen)
sys.exit(any(value == 2**24 + 1 for value in seen.values()))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu: a buffer that is always 16777217 is averaged to {'SWA': 16777216, 'EMA': 16777216}
