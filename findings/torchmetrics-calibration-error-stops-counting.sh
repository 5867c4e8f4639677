#!/usr/bin/env bash
# torchmetrics 1.9.0, PyTorch 2.13.0: a calibration error of 0.4 is reported as 0.0.
#
# Its bins sum in float32, one prediction after another. A sum of 4 million confidences has lost its
# last digits, and a count ends at 2^24 = 16,777,216, where adding one changes nothing; the sums of
# confidences and of hits end likewise, and meet. A data set of class maps has more pixels than that
# in the bin of high confidence (64 maps of 512 x 512). No error, no warning. Predictions of
# confidence 0.9 of which half are right must give 0.4, however many there are.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy torchmetrics==1.9.0 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, torch
from torchmetrics.functional.classification import binary_calibration_error

seen = {}
for n in (2**16, 2**22, 2**25):
    right = torch.zeros(n, dtype=torch.int64)
    right[: n // 2] = 1
    seen[n] = binary_calibration_error(torch.full((n,), 0.9), right, validate_args=False).item()
    print(f"torchmetrics 1.9.0: {n:>10,} predictions, calibration error {seen[n]:.4f}, expected 0.4000")
off = [abs(error - 0.4) for error in seen.values()]
sys.exit(not (off[0] < 1e-3 and off[1] > 0.01 and off[2] > 0.1))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torchmetrics 1.9.0:     65,536 predictions, calibration error 0.3995, expected 0.4000
# seen: torchmetrics 1.9.0:  4,194,304 predictions, calibration error 0.4332, expected 0.4000
# seen: torchmetrics 1.9.0: 33,554,432 predictions, calibration error 0.0000, expected 0.4000
