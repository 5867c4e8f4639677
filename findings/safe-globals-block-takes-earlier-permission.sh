#!/usr/bin/env bash
# PyTorch 2.13.0: leaving `with safe_globals([C])` also undoes an earlier add_safe_globals([C]).
#
# A library that registers its classes on import, so that torch.load(weights_only=True) reads them,
# loses one for the rest of the process as soon as anybody names it in the context manager: on exit
# the manager removes its classes from one global set, and does not restore earlier entries.
# One would guess that the block leaves the permissions as it found them.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import io, pickle, sys, torch

class Point:
    x = 0

def loads():
    file = io.BytesIO()
    torch.save(Point(), file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError:
        return False
    return True

torch.serialization.add_safe_globals([Point])
before = loads()
with torch.serialization.safe_globals([Point]):
    inside = loads()
print(f"torch {torch.__version__}: loads before, inside, after the block:", before, inside, loads())
sys.exit(not before or not inside or loads())
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu: loads before, inside, after the block: True True False
