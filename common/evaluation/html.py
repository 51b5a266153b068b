"""Pieces of a page that needs nothing but itself."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

STYLE = (
    "body{font-family:sans-serif;line-height:1.4;max-width:75rem;margin:auto;padding:1rem;overflow-wrap:anywhere}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #ccc;padding:.2rem .6rem;text-align:right}"
    "th:first-child,td:first-child{text-align:left}th{background:#f3f3f3}img{max-width:100%;height:auto}"
    "th{overflow-wrap:break-word}td{white-space:nowrap}td.long{white-space:normal;overflow-wrap:anywhere;min-width:16rem;text-align:left}"
    ".caption{color:#444;margin:1rem 0 -.7rem}"
    "th button{font:inherit;font-weight:bold;background:none;border:0;padding:0;cursor:pointer;text-align:inherit}"
    "th button::after{content:' \\2195';color:#767676}"
    "th[aria-sort=ascending] button::after{content:' \\2191';color:#000}"
    "th[aria-sort=descending] button::after{content:' \\2193';color:#000}"
    "nav{margin:1rem 0}nav a{margin-right:1rem}h2{margin-top:2.5rem;border-bottom:1px solid #ccc}"
    ".warning{background:#fff3cd;border-left:.4rem solid #e0a800;padding:.3rem 1rem;margin:.5rem 0}"
    "figure{margin:1rem 0}figcaption{color:#444}.scroll{overflow-x:auto}"
    ".panels{display:grid;gap:.3rem;margin:1rem 0;grid-template-columns:repeat(var(--columns),minmax(0,1fr))}"
    ".panels{max-width:calc(var(--columns)*20rem)}.panels img{width:100%}"
    ".panels figure{margin:0;text-align:center;font-size:.85rem}"
    "@media(max-width:40rem){.panels{grid-template-columns:repeat(var(--narrow),minmax(0,1fr))}}"
    ".charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(19rem,100%),1fr))}"
    ".charts{gap:1rem}.charts figure{margin:0}.charts img{width:100%}"
    ".legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1rem}"
    ".legend span{display:inline-block;width:.9em;height:.9em;margin-right:.4em;border:1px solid #888}"
    "details{margin:1rem 0}summary{cursor:pointer}pre{overflow-x:auto;background:#f3f3f3;padding:.6rem}"
    "dl{display:grid;grid-template-columns:minmax(6rem,max-content) minmax(0,1fr);gap:.2rem 1rem}"
    "dt{color:#444}dd{margin:0}"
    "@media print{nav{display:none}.scroll{overflow:visible}figure,tr{break-inside:avoid}th button::after{content:''}}"
)
# Rows by the text of a column, numbers as numbers, what is missing last in both directions.
SORTING = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const entry = (row) => row.cells[head.cellIndex].textContent;
    const rows = Array.from(body.rows);
    const numeric = rows.every((row) => entry(row) === "-" || entry(row).trim() !== "" && !isNaN(entry(row)));
    const missing = (row) => entry(row) === "-";
    const compare = (a, b) => numeric ? Number(a) - Number(b) : a.localeCompare(b);
    rows.sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : compare(entry(a), entry(b)) * (down ? -1 : 1)));
    body.append(...rows);
  });
}
"""
HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)</h2>')
# Characters of a cell from which on it is broken into lines.
LONG = 40
# Smaller p-values are written as below it.
MIN_P = 0.001
IMAGE_TYPES = {"png": "image/png", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class Strong:
    """A value of a table that stands out.

    Attributes:
        value: The value.
    """

    value: object


def page(title: str, sections: Iterable[str]) -> str:
    """Return a whole page.

    Args:
        title: Title, plain text.
        sections: HTML.

    Returns:
        HTML that refers to nothing outside of itself, with links to its headings at the top.
    """
    body = "".join(sections)
    links = "".join(f'<a href="#{name}">{text}</a>' for name, text in HEADING.findall(body))
    script = f"<script>{SORTING}</script>" if "<th aria-sort" in body else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1><nav>{links}</nav>{body}{script}</body></html>\n"
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], sortable: bool = False, caption: str = "") -> str:
    """Return a table; numbers have three decimals, what is None or NaN is a dash, and `Strong` values are bold.

    Args:
        headings: Titles of the columns.
        rows: Values, a sequence for each row.
        sortable: Whether a click, or a key, on a heading sorts the rows.
        caption: What the table shows, plain text.

    Returns:
        HTML; a table that is wider than the page scrolls inside its box.
    """
    rule = '<th aria-sort="none"><button type="button">{}</button></th>' if sortable else "<th>{}</th>"
    head = "".join(rule.format(escape(text)) for text in headings)
    body = "".join("<tr>" + "".join(map(_data, row)) + "</tr>" for row in rows)
    title = f'<p class="caption">{escape(caption)}</p>' if caption else ""
    name = escape(caption or "table")
    return (
        f'{title}<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def heading(text: str) -> str:
    """Return a heading that the top of the page links to."""
    name = re.sub(r"\W+", "-", text.lower()).strip("-")
    return f'<h2 id="{name}">{escape(text)}</h2>'


def p_text(p_value: float | None) -> str:
    """Return a p-value as it is printed."""
    if p_value is None:
        return "-"
    return f"< {MIN_P:g}" if p_value < MIN_P else f"{p_value:.3f}"


def _data(value: object) -> str:
    if isinstance(value, Strong):
        return f"<td><strong>{escape(cell(value.value))}</strong></td>"
    text = cell(value)
    return f'<td class="long">{escape(text)}</td>' if len(text) > LONG else f"<td>{escape(text)}</td>"


def cell(value: object) -> str:
    """Return the text of a cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def listing(items: Iterable[str]) -> str:
    """Return a bullet list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def warning(text: str) -> str:
    """Return a plain text that stands out."""
    return f'<p class="warning">{escape(text)}</p>'


def facts(items: Mapping[str, object]) -> str:
    """Return a list of names and values; numbers as in a table."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(cell(v))}</dd>" for k, v in items.items()) + "</dl>"


def details(summary: str, content: str) -> str:
    """Return HTML that shows only its summary, plain text, until it is opened."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def panels(items: Iterable[tuple[bytes, str]], columns: int, narrow: int | None = None) -> str:
    """Return a grid of small pictures, each with its caption.

    Args:
        items: PNG and caption.
        columns: Pictures in a row.
        narrow: The same on a narrow screen; by default as many.
    """
    pictures = "".join(figure(image, "png", caption) for image, caption in items)
    return f'<div class="panels" style="--columns:{columns};--narrow:{narrow or columns}">{pictures}</div>'


def charts(items: Iterable[tuple[bytes, str]]) -> str:
    """Return charts side by side where there is room.

    Args:
        items: SVG and caption.
    """
    return '<div class="charts">' + "".join(figure(image, "svg", caption) for image, caption in items) + "</div>"


def legend(colors: Mapping[str, str]) -> str:
    """Return what colors mean.

    Args:
        colors: By meaning a color as CSS writes it.
    """
    entries = (f'<li><span style="background:{c}"></span>{escape(name)}</li>' for name, c in colors.items())
    return f'<ul class="legend">{"".join(entries)}</ul>'


def figure(image: bytes, kind: str, caption: str) -> str:
    """Return a picture with its content inside the page.

    Args:
        image: Content of the file.
        kind: `png` or `svg`.
        caption: What it shows, plain text.

    Returns:
        HTML.
    """
    data = base64.b64encode(image).decode("ascii")
    source, text = f"data:{IMAGE_TYPES[kind]};base64,{data}", escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
