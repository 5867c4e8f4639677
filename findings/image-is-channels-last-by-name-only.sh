#!/usr/bin/env bash
# PyTorch 2.13.0: one image can be channels_last by is_contiguous, and NCHW to every operator.
#
# A decoder gives [C, H, W] over HWC memory; unsqueeze(0) makes a batch of one. is_contiguous says
# that it is channels_last, and contiguous(memory_format=channels_last) returns it as it is. But the
# stride of the batch dim is C (a dim of size 1 takes any), operators go by the order of all strides,
# and conv2d takes it for NCHW: its output is not channels_last, nor is any after it. The same pixels
# by hwc[None].permute(0, 3, 1, 2) stay channels_last. One would guess that is_contiguous and the
# operators agree, and that inference on single images keeps the format that training has.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, torch
last = torch.channels_last
hwc = torch.rand(32, 48, 3)
named, right = hwc.permute(2, 0, 1).unsqueeze(0), hwc[None].permute(0, 3, 1, 2)
conv = torch.nn.Conv2d(3, 8, 3)
says = [x.is_contiguous(memory_format=last) for x in (named, right)]
kept = named.contiguous(memory_format=last) is named
keeps = [conv(x).is_contiguous(memory_format=last) for x in (named, right)]
print(f"torch {torch.__version__}: strides {named.stride()} and {right.stride()}; is_contiguous(channels_last) "
      f"{says}, returned as it is {kept}; output of conv2d channels_last {keeps}")
sys.exit((says, kept, keeps) != ([True, True], True, [False, True]))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu: strides (3, 1, 144, 3) and (4608, 1, 144, 3); is_contiguous(channels_last)
#       [True, True], returned as it is True; output of conv2d channels_last [False, True]
