"""Prepares docstrings for the documentation site: an extension of griffe, named in mkdocs.yml.

Docstrings are written to be read in an editor and by ``help``. Three of their conventions are not
Markdown, and are translated before griffe parses sections:

- ``Equivalent to::`` and an indented block become a fenced block of Python;
- roles such as ``:func:`mix_``` become links to the page that documents the name;
- ``arXiv 1710.09412`` becomes a link to the paper.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

import griffe

PACKAGE = "fused_mixup"
PEERS = "timm", "torchvision"  # modules with public names of their own
_LITERAL = re.compile(r"^(?P<lead>[^\n]*\S)::\n\n(?P<code>(?:(?:    [^\n]*)?\n)+)", re.MULTILINE)
_ROLE = re.compile(r":(?:func|class|meth|attr|mod):`~?([\w.]+)`")
_PAPER = re.compile(r"\barXiv\s+(\d{4}\.\d{4,5})\b")


def translated(text: str, names: Mapping[str, str]) -> str:
    """``text`` as Markdown, with links to the paths of ``names``. KeyError for another name."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        path = name if name.startswith(f"{PACKAGE}.") else names[name]
        return f"[`{name.rpartition('.')[2]}`][{path}]"

    def fence(match: re.Match[str]) -> str:
        code = textwrap.dedent(match["code"]).strip("\n")
        return f"{match['lead']}:\n\n```python\n{code}\n```\n\n"

    text = _LITERAL.sub(fence, text + "\n")
    text = _ROLE.sub(link, text)
    return _PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text).rstrip("\n")


class Docstrings(griffe.Extension):
    """Translates the docstrings of the package's public names once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        if pkg.path != PACKAGE:
            return
        public = _paths(pkg)
        for module in (pkg, *(pkg[peer] for peer in PEERS)):
            own = public | _paths(module)
            for path in _paths(module).values():
                documented = pkg[path.removeprefix(f"{PACKAGE}.")]
                if documented.is_alias:
                    documented = documented.final_target
                members = documented.members if documented.is_class else {}
                names = own | {name: f"{path}.{name}" for name in members}
                for each in (documented, *members.values()):
                    if not each.is_alias and each.docstring is not None:
                        each.docstring.value = translated(each.docstring.value, names)


def _paths(module: griffe.Module) -> dict[str, str]:
    """The public path of each name in ``__all__``."""
    return {str(name): f"{module.path}.{name}" for name in module.exports or ()}
