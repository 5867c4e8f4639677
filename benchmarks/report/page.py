"""One HTML page that needs nothing beside it: tables, and plots inside."""

from __future__ import annotations

import base64
import html
import re

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem;
       padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-size: 13px } img { max-width: 100% }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left;
         vertical-align: top }
.warning { background: #fff3d6; border-left: 4px solid #d99a00; padding: .6rem 1rem }
"""


def inline(text: str) -> str:
    escaped = html.escape(text).replace("&lt;br&gt;", "<br>")
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escaped)


def block(markdown: str) -> str:
    """HTML of what tables.py writes: tables, lists of two levels, paragraphs."""
    out: list[str] = []
    lines = markdown.splitlines()
    at = 0
    while at < len(lines):
        rest = lines[at:]
        is_table = rest[0].startswith("|")
        is_list = rest[0].lstrip().startswith("- ")
        if not is_table and not is_list:
            out.append(f"<p>{inline(rest[0])}</p>" if rest[0].strip() else "")
            at += 1
            continue
        mark = "|" if is_table else "- "
        count = next(
            (i for i, line in enumerate(rest) if not line.lstrip().startswith(mark)), len(rest)
        )
        out.append(_table(rest[:count]) if is_table else _list(rest[:count]))
        at += count
    return "\n".join(out)


def _table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{inline(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{inline(cell)}</td>" for cell in row) + "</tr>\n" for row in rows[2:]
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _list(lines: list[str]) -> str:
    items = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        items.append(f'<li style="margin-left:{indent}em">{inline(line.lstrip()[2:])}</li>')
    return "<ul>" + "\n".join(items) + "</ul>"


def picture(png: bytes, name: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{data}">'


def warning(text: str) -> str:
    return f'<div class="warning">{block(text)}</div>'


def page(title: str, parts: list[str]) -> str:
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )
