#!/usr/bin/env bash
# PyTorch 2.13.0: x.to(memory_format=channels_last) returns a crop that is not contiguous in it.
#
# A crop of a channels_last batch, or every second row of it, has the order of strides of
# channels_last, with gaps. `.to` looks at that order alone and returns its input: is_contiguous stays
# False, and a kernel that was handed "channels_last memory" reads gaps. `.contiguous` packs; so does
# `.to` if it also converts the dtype. One would guess the two to be the same for a memory format, as
# the documentation of channels_last uses either.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, torch
last = torch.channels_last
x = torch.rand(2, 3, 8, 8).contiguous(memory_format=last)
found = []
for view in (x[:, :, 1:7, 1:7], x[:, :, ::2]):
    to, packed = view.to(memory_format=last), view.contiguous(memory_format=last)
    cast = view.to(torch.bfloat16, memory_format=last)
    found.append((to is view, *(t.is_contiguous(memory_format=last) for t in (to, packed, cast))))
print(f"torch {torch.__version__}: (.to returned its input; channels_last after .to, .contiguous, "
      f".to with a dtype) of a crop {found[0]}, of every second row {found[1]}")
sys.exit(found != [(True, False, True, True)] * 2)
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu: (.to returned its input; channels_last after .to, .contiguous, .to with a
#       dtype) of a crop (True, False, True, True), of every second row (True, False, True, True)
