"""The list of wrong edits: cuda*.toml, cpu.toml and triton.toml beside this file.

Each [[edit]] has a file, a text that stands in it once (old), the text that replaces it (new), and
the tests that must fail then, as arguments of pytest.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LISTS = ("cuda", "cpu", "triton")


@dataclass(frozen=True)
class Edit:
    list: str  # of LISTS: says what has to be built
    file: str
    old: str
    new: str
    tests: str
    drivers: str = ""  # of tests/host_cuda that are compiled, where the file of tests calls more

    @property
    def name(self) -> str:
        """One line that tells the edit from others."""
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {old} -> {new or 'nothing'}"

    def why_not(self, root: Path = ROOT) -> str | None:
        """Why the edit does not apply to the sources, or None."""
        path = root / self.file
        if not path.is_file():
            return "the file is gone"
        found = path.read_text().count(self.old)
        return None if found == 1 else f"its old text stands there {found} times, not once"

    def applied(self, root: Path) -> str:
        return (root / self.file).read_text().replace(self.old, self.new)


def load() -> list[Edit]:
    return [
        Edit(name, **edit)
        for name in LISTS
        for path in sorted(HERE.glob(f"{name}*.toml"))
        for edit in tomllib.loads(path.read_text()).get("edit", [])
    ]
