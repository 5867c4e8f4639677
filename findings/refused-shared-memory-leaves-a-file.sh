#!/usr/bin/env bash
# PyTorch 2.13.0: share_memory_() that is refused for lack of room leaves its file in /dev/shm.
#
# The file is made before the room for it is asked for, and nobody removes it when that fails. The
# RuntimeError can be caught and the tensor used on, but one empty file stays for each attempt, also
# when the process has ended. One would guess that a refused allocation leaves nothing. Here a limit
# on the size of files stands in for a full /dev/shm.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import os, resource, sys, torch
def files():
    return sorted(n for n in os.listdir("/dev/shm") if n.startswith(f"torch_{os.getpid()}_"))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
refused = 0
for _ in range(3):
    try:
        torch.empty(8 << 20, dtype=torch.uint8).share_memory_()
    except RuntimeError:
        refused += 1
left = files()
print(f"torch {torch.__version__}: {refused} of 3 refused, {len(left)} files left")
for name in left:
    os.unlink(f"/dev/shm/{name}")
sys.exit(not (refused == 3 and len(left) == 3))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu: 3 of 3 refused, 3 files left
