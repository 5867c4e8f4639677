#!/usr/bin/env bash
# DALI 2.4.0, PyTorch 2.13.0: len() of a DALI iterator changes from epoch to epoch by default.
#
# Ten files in batches of four, LastBatchPolicy.FILL (the default): epochs have 3, 2, 3, 2 batches.
# What fills the last batch are the first samples of the next epoch, which then is shorter. One would
# guess 3 each time, as len() of a DataLoader: a schedule of learning rates that is made of
# epochs * len(loader) steps is wrong by a sixth here. With pad_last_batch=True, or with PARTIAL or
# DROP and auto_reset, all epochs are alike.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install --quiet torch==2.13.0 numpy nvidia-dali-cuda130==2.4.0 2> /dev/null
mkdir -p "$dir/files/0"
for i in 0 1 2 3 4 5 6 7 8 9; do printf %s "$i" > "$dir/files/0/$i.jpg"; done  # read, not decoded
cat > "$dir/f.py" <<'P'
import sys, nvidia.dali
from nvidia.dali import fn, pipeline_def
from nvidia.dali.plugin.pytorch import DALIGenericIterator
@pipeline_def(batch_size=4, num_threads=1, device_id=None)
def read(pad):
    data, label = fn.readers.file(file_root=sys.argv[1], name="files", pad_last_batch=pad)
    return data, label
def epochs(pad):
    loader = DALIGenericIterator(read(pad), ["data", "label"], reader_name="files", auto_reset=True)
    return [(len(loader), sum(1 for _ in loader)) for _ in range(4)]
filled, padded = epochs(False), epochs(True)
print(f"DALI {nvidia.dali.__version__}: (len(), batches) of four epochs {filled}; with pad_last_batch {padded}")
sys.exit((filled, padded) != ([(3, 3), (2, 2)] * 2, [(3, 3)] * 4))
P
"$dir/v/bin/python" "$dir/f.py" "$dir/files"
# seen: DALI 2.4.0: (len(), batches) of four epochs [(3, 3), (2, 2), (3, 3), (2, 2)]; with
#       pad_last_batch [(3, 3), (3, 3), (3, 3), (3, 3)]
