"""Prepares README for a package index, where relative paths of the repository do not work.

`Repository` under [project.urls] of pyproject.toml makes links and pictures absolute, at the tag of
the version. Without it links become their text, and pictures are left out.
"""

from __future__ import annotations

import re
from pathlib import Path

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)\s]+)\)")


def absolute_links(readme: str, repository: str | None, version: str) -> str:
    def absolute(found: re.Match[str]) -> str:
        path, picture = found["path"], bool(found["picture"])
        if re.match(r"\w+:|#", path):
            return found[0]
        if repository is None:
            return "" if picture else found["text"]
        kind = "raw" if picture else "blob"
        return f"{found['picture']}[{found['text']}]({repository}/{kind}/v{version}/{path})"

    # Odd parts are code between fences.
    parts = re.split(r"(^```.*?^```$)", readme, flags=re.M | re.S)
    return "".join(part if i % 2 else LINK.sub(absolute, part) for i, part in enumerate(parts))


def _field(pyproject: str, name: str) -> str | None:
    found = re.search(rf'^{name} = "([^"]+)"', pyproject, re.M)
    return found[1] if found else None


def long_description(root: Path) -> str:
    pyproject = (root / "pyproject.toml").read_text(encoding="utf-8")
    version = _field(pyproject, "version") or ""
    readme = (root / "README.md").read_text(encoding="utf-8")
    return absolute_links(readme, _field(pyproject, "Repository"), version)
