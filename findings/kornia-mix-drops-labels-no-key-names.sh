#!/usr/bin/env bash
# Kornia 0.9.0: a mix called with images and labels mixes the images and drops the labels.
#
# Inputs are zipped with data_keys, which by default is ["input"], so RandomMixUpV2()(x, y) returns
# the mixed images alone, without a word. Of a batch of two, `x, y = mix(x, y)` even unpacks: y is
# then the second image. One would guess an error for two inputs and one key, as
# AugmentationSequential raises. Too few inputs pass in the same way.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
"$dir/v/bin/pip" install --quiet --no-deps kornia==0.9.0 kornia-rs==0.2.0 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, torch
import kornia.augmentation as K

x, labels = torch.rand(2, 3, 8, 8), torch.tensor([4, 7])
got = K.RandomMixUpV2()(x, labels)
images, unpacked = K.RandomMixUpV2()(x, labels)
fewer = K.RandomMixUpV2(data_keys=["input", "class"])(x)
try:
    K.AugmentationSequential(K.RandomHorizontalFlip(), data_keys=["input"])(x, labels)
    sequence = "accepts"
except Exception as error:
    sequence = f"raises {type(error).__name__}"
print(
    f"kornia 0.9.0: two inputs and one key give {list(got.shape)} and no labels, which unpack as "
    f"{list(images.shape)} and {list(unpacked.shape)}; one input and two keys give "
    f"{list(fewer.shape)}; AugmentationSequential {sequence}"
)
dropped = isinstance(got, torch.Tensor) and got.shape == x.shape
sys.exit(not (dropped and isinstance(fewer, torch.Tensor)))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: kornia 0.9.0: two inputs and one key give [2, 3, 8, 8] and no labels, which unpack as
# seen: [3, 8, 8] and [3, 8, 8]; one input and two keys give [2, 3, 8, 8]; AugmentationSequential
# seen: raises AssertionError
