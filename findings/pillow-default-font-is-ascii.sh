#!/usr/bin/env bash
# Pillow 12.0.0: the font of ImageFont.load_default(size) draws é, λ and ← as one and the same box.
#
# Since 10.1 the default font is a scalable one, and one would guess that it has the letters of
# Western languages at least. It is a subset: letters with accents, Greek ones and arrows become the
# glyph of a missing letter, without a warning. Class names in a figure of mixed samples need a font
# of the system.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet pillow==12.0.0 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, PIL
from PIL import ImageFont
font = ImageFont.load_default(20)
def glyph(letter):
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
missing = glyph("\uffff")
boxes = [letter for letter in "eA0éäñλα←" if glyph(letter) == missing]
print(f"Pillow {PIL.__version__}, {font.getname()[0]}: drawn as a missing letter: {' '.join(boxes)}")
sys.exit(boxes != list("éäñλα←"))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: Pillow 12.0.0, Aileron: drawn as a missing letter: é ä ñ λ α ←
