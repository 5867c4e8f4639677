#!/usr/bin/env bash
# timm 1.0.31, PyTorch 2.13.0: BinaryCrossEntropy of one logit treats label 0 as a positive.
#
# A binary classifier with one output [B, 1] and labels 0 / 1: timm scatters the labels as class
# indices into [B, 1], so label 0 (absent) trains the logit up. A batch of negatives gets the
# loss of a batch of positives, without a warning. One would guess the label to be the target of
# the logit, as in nn.BCEWithLogitsLoss.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
"$dir/v/bin/pip" install --quiet --no-deps timm==1.0.31 2> /dev/null
cat > "$dir/f.py" <<'P'
import importlib.util, pathlib, sys, torch
import torch.nn.functional as F

# Load this file alone: the rest of timm needs torchvision.
spec = importlib.util.find_spec("timm")
path = pathlib.Path(spec.submodule_search_locations[0], "loss", "binary_cross_entropy.py")
loaded = importlib.util.spec_from_file_location("timm_bce", path)
module = importlib.util.module_from_spec(loaded)
loaded.loader.exec_module(module)

z, negatives = torch.linspace(-2, 3, 6)[:, None], torch.zeros(6, dtype=torch.int64)
got = module.BinaryCrossEntropy(smoothing=0.0)(z, negatives).item()
as_ones, as_zeros = (F.binary_cross_entropy_with_logits(z, torch.full_like(z, v)).item() for v in (1, 0))
print(f"timm 1.0.31: labels 0 give {got:.4f}; targets 1 give {as_ones:.4f}, targets 0 give {as_zeros:.4f}")
sys.exit(abs(got - as_ones) > 1e-6)
P
"$dir/v/bin/python" "$dir/f.py"
# seen: timm 1.0.31: labels 0 give 0.7704; targets 1 give 0.7704, targets 0 give 1.2704
