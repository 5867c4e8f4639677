#!/usr/bin/env bash
# torchvision 0.28.0, PyTorch 2.13.0: default_collate makes plain tensors of tv_tensors.
#
# A data set that is wrapped for transforms.v2 gives Mask and BoundingBoxes, and a loader collates
# them. One would guess that a batch of masks is still a Mask, so that a v2 transform after the
# loader (MixUp and CutMix stand there) leaves it alone or moves it as one. torch.stack returns a
# plain tensor; what was a mask is then the label, or is resized as an image.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
"$dir/v/bin/pip" install --quiet --no-deps torchvision==0.28.0 pillow 2> /dev/null
cat > "$dir/f.py" <<'P'
import importlib.metadata, importlib.util, pathlib, re, sys, torch
# A torchvision built for another kind of PyTorch still imports where its operators are declared.
folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
library = torch.library.Library("torchvision", "FRAGMENT")
try:
    torch.ops.load_library(str(next(folder.glob("_C*.so"))))
except OSError:
    for name in sorted(set(re.findall(r'"torchvision::(\w+)"', (folder / "_meta_registrations.py").read_text()))):
        library.define(name + "() -> ()")
from torch.utils.data import default_collate
from torchvision import tv_tensors
mask = tv_tensors.Mask(torch.zeros(1, 4, 4, dtype=torch.uint8))
boxes = tv_tensors.BoundingBoxes([[0, 0, 2, 2]], format="XYXY", canvas_size=(4, 4))
kinds = [type(default_collate([t, t])).__name__ for t in (mask, boxes)]
print(f"torchvision {importlib.metadata.version('torchvision')}: a batch of Mask is {kinds[0]}, "
      f"of BoundingBoxes {kinds[1]}; boxes of ints are {boxes.dtype}")
sys.exit(kinds != ["Tensor", "Tensor"])
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torchvision 0.28.0: a batch of Mask is Tensor, of BoundingBoxes Tensor; boxes of ints are torch.int64
