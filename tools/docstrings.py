"""Prepares docstrings for the documentation site: an extension of griffe, named in mkdocs.yml.

Docstrings are written for editors and ``help``. Some of their conventions are not griffe's or
Markdown's. They are translated before griffe parses sections:

- ``Equivalent to::`` and an indented block become a fenced block of Python;
- roles such as ``:func:`mix_``` become links to the page that documents the name;
- ``arXiv 1710.09412`` becomes a link to the paper;
- ``docs/batchmix.md`` becomes a link to the page;
- a list of arguments may continue in the next line; a sentence among arguments or errors becomes
  a paragraph after them;
- sections of prose (results, shapes, notes) become paragraphs under their name.

A warning of griffe fails the build.
"""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Mapping

import griffe

PACKAGE = "fused_mixup"
PEERS = "timm", "torchvision", "kornia", "preview", "text"  # modules with public names of their own
_LITERAL = re.compile(r"^(?P<lead>[^\n]*\S)::\n\n(?P<code>(?:(?:    [^\n]*)?\n)+)", re.MULTILINE)
_ROLE = re.compile(r":(?:func|class|meth|attr|mod):`~?([\w.]+)`")
_PAPER = re.compile(r"\barXiv\s+(\d{4}\.\d{4,5})\b")
_PAGE = re.compile(r"\bdocs/(\w+)\.md\b")
_BODY = r":\n((?:(?: {4}.*)?\n)+)"
_ITEMS = re.compile(rf"^(Args|Attributes|Raises){_BODY}", re.MULTILINE)
_PROSE = re.compile(rf"^(Args, Returns|Returns|Shapes|Notes){_BODY}", re.MULTILINE)
_SHAPE = re.compile(r"^(\w+):(?= )", re.MULTILINE)
_WRAPPED_NAMES = re.compile(r"^( {4}(?:\w+, )*\w+,)\n {8}(?=\w)", re.MULTILINE)
_ITEM = re.compile(r" {4}\w+(?:, \w+)*:")


def translate(text: str, names: Mapping[str, str]) -> str:
    """``text`` as Markdown, with links to the paths of ``names``. KeyError for another name."""

    def link(match: re.Match[str]) -> str:
        first, dot, rest = match[1].partition(".")
        if first == PACKAGE:
            return f"[`{rest.rpartition('.')[2]}`][{match[1]}]"
        if dot and first not in names:
            return f"`{match[1]}`"  # a name of another package
        return f"[`{match[1]}`][{names[first]}{dot}{rest}]"

    text = _ITEMS.sub(_items_alone, text + "\n")
    text = _PROSE.sub(_paragraphs, text)
    text = _LITERAL.sub(_fence, text)
    text = _ROLE.sub(link, text)
    text = _PAGE.sub(r"[\1](../\1.md)", text)
    return _PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text).rstrip("\n")


def _fence(match: re.Match[str]) -> str:
    code = textwrap.dedent(match["code"]).strip("\n")
    return f"{match['lead']}:\n\n```python\n{code}\n```\n\n"


def _paragraphs(match: re.Match[str]) -> str:
    body = textwrap.dedent(match[2])
    if match[1] == "Shapes":
        body = _SHAPE.sub(r"- **`\1`**:", body)
    return f"**{match[1]}:**\n\n{body}"


def _items_alone(match: re.Match[str]) -> str:
    """A section of named items, followed by the sentences that stood among them."""
    items: list[str] = []
    sentences: list[str] = []
    into = items
    for line in _WRAPPED_NAMES.sub(r"\1 ", match[2]).splitlines():
        if _ITEM.match(line):
            into = items
        elif line[4:5].strip():  # no deeper than an item
            into = sentences
        into.append(line if into is items else line.strip())
    section = "\n".join([f"{match[1]}:", *items]).rstrip()
    return "\n\n".join([section, " ".join(sentences).strip()]).rstrip() + "\n\n"


class Docstrings(griffe.Extension):
    """Translates the docstrings of the package's public names once it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("mkdocs.plugins").addHandler(_Refuses(logging.WARNING))

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
                members = documented.all_members if documented.is_class else {}
                names = own | {name: f"{path}.{name}" for name in members}
                for each in (documented, *members.values()):
                    if each.docstring is not None:
                        each.docstring.value = translate(each.docstring.value, names)


class _Refuses(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError(record.getMessage())


def _paths(module: griffe.Module) -> dict[str, str]:
    """The public path of each name in ``__all__``."""
    return {str(name): f"{module.path}.{name}" for name in module.exports or ()}
