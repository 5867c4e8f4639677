#!/usr/bin/env bash
# torchvision 0.28.0, PyTorch 2.13.0: a wrapped Cityscapes cannot read its own instance maps.
#
# Cityscapes' instanceIds are 16-bit PNG files (24001 is the second car). wrap_dataset_for_transforms_v2
# supports target_type="instance" and divides such ids by 1000, but the map arrives as uint16, for
# which PyTorch's CPU has no comparison: every sample raises. One would guess that the data set that
# the wrapper names goes through it. Maps of 8 bits (ids below 256) do.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
"$dir/v/bin/pip" install --quiet --no-deps torchvision==0.28.0 pillow==12.0.0 2> /dev/null
cat > "$dir/f.py" <<'P'
import importlib.util, pathlib, re, sys, torch
folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
library = torch.library.Library("torchvision", "FRAGMENT")
try:
    torch.ops.load_library(str(next(folder.glob("_C*.so"))))
except OSError:  # built for another kind of PyTorch
    for name in sorted(set(re.findall(r'"torchvision::(\w+)"', (folder / "_meta_registrations.py").read_text()))):
        library.define(name + "() -> ()")
import numpy as np
from PIL import Image
from torchvision import datasets
root = pathlib.Path(sys.argv[1])
def run(dtype, ids):
    base = root / np.dtype(dtype).name
    for part, name in (("leftImg8bit", "leftImg8bit.png"), ("gtFine", "gtFine_instanceIds.png")):
        (base / part / "train" / "ulm").mkdir(parents=True)
        pixels = np.zeros((4, 4, 3), np.uint8) if part == "leftImg8bit" else np.array(ids, dtype).reshape(4, 4)
        Image.fromarray(pixels).save(base / part / "train" / "ulm" / f"ulm_0_{name}")
    data = datasets.Cityscapes(str(base), split="train", mode="fine", target_type="instance")
    try:
        return str(datasets.wrap_dataset_for_transforms_v2(data)[0][1]["labels"].tolist())
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
wide, narrow = run(np.uint16, [7] * 8 + [24001] * 8), run(np.uint8, [7] * 8 + [24] * 8)
print(f"16 bits: {wide}; 8 bits: labels {narrow}")
sys.exit(not ("UInt16" in wide and narrow == "[7, 24]"))
P
"$dir/v/bin/python" "$dir/f.py" "$dir"
# seen: 16 bits: NotImplementedError: "ge_cpu" not implemented for 'UInt16'; 8 bits: labels [7, 24]
