"""Pieces of a page that needs nothing but itself."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = (
    "body{font-family:sans-serif;line-height:1.4;max-width:75rem;margin:auto;padding:1rem}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #ccc;padding:.2rem .6rem;text-align:right}"
    "th:first-child,td:first-child{text-align:left}th{background:#f3f3f3}img{max-width:100%}"
    "nav{margin:1rem 0}nav a{margin-right:1rem}h2{margin-top:2.5rem;border-bottom:1px solid #ccc}"
    ".warning{background:#fff3cd;border-left:.4rem solid #e0a800;padding:.3rem 1rem;margin:.5rem 0}"
    "figure{margin:1rem 0}figcaption{color:#444}.scroll{overflow-x:auto}"
)
HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)</h2>')
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
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><nav>{links}</nav>{body}</body></html>\n"
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers have three decimals, what is None or NaN is a dash, and `Strong` values are bold."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join("<tr>" + "".join(map(_data, row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def heading(text: str) -> str:
    """Return a heading that the top of the page links to."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return f'<h2 id="{name}">{escape(text)}</h2>'


def p_text(p_value: float | None) -> str:
    """Return a p-value as it is printed."""
    if p_value is None:
        return "-"
    return f"< {MIN_P:g}" if p_value < MIN_P else f"{p_value:.3f}"


def _data(value: object) -> str:
    if isinstance(value, Strong):
        return f"<td><strong>{escape(cell(value.value))}</strong></td>"
    return f"<td>{escape(cell(value))}</td>"


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
