#!/usr/bin/env bash
# timm 1.0.31, PyTorch 2.13.0: NaFlexMixup's MixUp darkens uint8 images by half a step.
#
# timm's loader mixes bytes (use_prefetcher=True, the default). The blend is a float tensor that is
# assigned to a slice of the uint8 image, which cuts towards 0, so each mixed pixel is 0.5 too dark on
# average: an image mixed with its own copy loses a step wherever λ + (1-λ) rounds below 1. One would
# guess rounding, as in timm's FastCollateMixup.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install --quiet torch==2.13.0 numpy pyyaml huggingface_hub safetensors 2> /dev/null
"$dir/v/bin/pip" install --quiet --no-deps timm==1.0.31 torchvision==0.28.0 pillow 2> /dev/null
cat > "$dir/f.py" <<'P'
import importlib.util, pathlib, re, sys, torch
from torch import library
# A torchvision built for another kind of PyTorch still imports where its operators are declared.
folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
declared = library.Library("torchvision", "FRAGMENT")
try:
    torch.ops.load_library(str(next(folder.glob("_C*.so"))))
except OSError:
    for name in sorted(set(re.findall(r'"torchvision::(\w+)"', (folder / "_meta_registrations.py").read_text()))):
        declared.define(name + "() -> ()")
import timm
from timm.data.naflex_mixup import mix_batch_variable_size
torch.manual_seed(0)
imgs = [torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8) for _ in range(2)]
error = 0.0
for seed in range(20):
    results = []
    for x in (imgs, [i.double() for i in imgs]):
        torch.manual_seed(seed)
        results.append(mix_batch_variable_size(x, cutmix_alpha=0.0, local_shuffle=0)[0][0].double())
    error += (results[0] - results[1]).mean().item() / 20
print(f"timm {timm.__version__}: uint8 images are {-error:.2f} darker than their exact mix, on average")
sys.exit(not -0.6 < error < -0.4)
P
"$dir/v/bin/python" "$dir/f.py"
# seen: timm 1.0.31: uint8 images are 0.50 darker than their exact mix, on average
