#!/usr/bin/env bash
# MONAI 1.6.1: CutMix gives every image the class label of its partner, however small its box.
#
# CutMix(images, labels) and CutMixd(label_keys=…) take class labels [B, K] and cut them as they cut
# images: a mask of the labels' shape, in which the box covers all that lies behind the batch and
# channel dims. Labels have nothing there, so a whole row is replaced. One would guess rows weighed by
# λ or by the pixels that stay; apply_on_labels(), which weighs by λ, is there and is not called.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
"$dir/v/bin/pip" install --quiet --no-deps monai==1.6.1 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, warnings, torch
warnings.simplefilter("ignore")
import monai
from monai.transforms import CutMixd

images, labels = torch.rand(4, 1, 32, 32), torch.eye(4)
cut = CutMixd(keys=["image"], batch_size=4, label_keys=["label"])
cut.set_random_state(0)
batch = cut({"image": images, "label": labels})
_, partner, _ = cut.mixer._params
own = (batch["image"] == images).float().mean((1, 2, 3))
swapped = torch.equal(torch.as_tensor(batch["label"]), labels[torch.from_numpy(partner)])
print(
    f"monai {monai.__version__}: own pixels {[round(v, 2) for v in own.tolist()]}, labels are "
    f"{'wholly the partners' if swapped else 'mixed'}"
)
sys.exit(not (swapped and own.min() > 0.5))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: monai 1.6.1: own pixels [0.99, 0.99, 0.99, 0.99], labels are wholly the partners
