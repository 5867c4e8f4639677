"""Writes one HTML page that needs no other file: tables and embedded plots."""

from __future__ import annotations

import base64
import html
import re

# Colours and fonts are those of docs/stylesheets/site.css.
STYLE = """
:root { color-scheme: light dark; --fg: #24292f; --soft: #57606a; --bg: #ffffff; --line: #d8dee4;
        --head: #f3f5f9; --link: #2b4c9b; --warn: #fff3d6; --edge: #b4530a }
@media (prefers-color-scheme: dark) {
  :root { --fg: #d5dae3; --soft: #9aa4b2; --bg: #15181e; --line: #333a45; --head: #1e232b;
          --link: #9db7f5; --warn: #3a2c14; --edge: #f0a35e } }
body { font: 16px/1.6 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
       margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: var(--fg);
       background: var(--bg) }
h1, h2, h3 { line-height: 1.25 } h1 { font-size: 1.9rem; font-weight: 600 }
h2 { font-size: 1.4rem; margin-top: 2.6rem; padding-bottom: .3rem; color: var(--link);
     border-bottom: 1px solid var(--line) } h3 { font-size: 1.1rem; margin-top: 1.8rem }
p, li { overflow-wrap: anywhere } p { color: var(--soft) }
.table { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; font-size: 13px; width: 100%;
        font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .7rem; text-align: left;
         vertical-align: top } tr:last-child td { border-bottom: 0 }
th { background: var(--head); white-space: nowrap }
li { margin-bottom: .2rem; font-size: 14px }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
img { max-width: 100%; background: #ffffff; border-radius: 6px } /* plots are drawn on white */
.warning { background: var(--warn); border-left: 4px solid var(--edge); border-radius: 4px;
           padding: .6rem 1rem } .warning p { color: inherit }
"""


def inline(text: str) -> str:
    escaped = html.escape(text).replace("&lt;br&gt;", "<br>")
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escaped)


def block(markdown: str) -> str:
    """The Markdown of tables.py as HTML: tables, lists of two levels, paragraphs."""
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
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="table">{table}</div>'


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
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )
