#!/usr/bin/env bash
# PyTorch 2.13.0, NumPy 2.4.6: from_dlpack of a read-only array gives a tensor that writes through it.
#
# numpy.asarray(PIL image) and webdataset's rgb8 are read-only arrays over a bytes object.
# torch.from_numpy warns of them; torch.from_dlpack says nothing, and an in-place operation then
# changes the immutable bytes, for all who hold them (a cache, another sample, a dict's key). One
# would guess an error, or a copy: DLPack has a flag for read-only memory, and NumPy sets it.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, warnings, numpy, torch
def through(take):
    owner = bytes(bytearray(b"immutable"))
    array = numpy.frombuffer(owner, numpy.uint8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        take(array).fill_(ord("x"))
    return owner.decode(), array.flags.writeable, len(caught)
dlpack, plain = through(torch.from_dlpack), through(torch.from_numpy)
print(f"torch {torch.__version__}, numpy {numpy.__version__}: (bytes afterwards, array writable, warnings) "
      f"by from_dlpack {dlpack}, by from_numpy {plain}")
sys.exit((dlpack, plain) != (("x" * 9, False, 0), ("x" * 9, False, 1)))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu, numpy 2.4.6: (bytes afterwards, array writable, warnings) by from_dlpack
#       ('xxxxxxxxx', False, 0), by from_numpy ('xxxxxxxxx', False, 1)
