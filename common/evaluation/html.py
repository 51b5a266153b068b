"""Pieces of a page that needs nothing but itself."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape

STYLE = (
    "body{font-family:sans-serif;line-height:1.4;max-width:75rem;margin:auto;padding:1rem}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #ccc;padding:.2rem .6rem;text-align:right}"
    "th:first-child,td:first-child{text-align:left}th{background:#f3f3f3}img{max-width:100%}"
    ".warning{background:#fff3cd;border-left:.4rem solid #e0a800;padding:.3rem 1rem;margin:.5rem 0}"
    "figure{margin:1rem 0}figcaption{color:#444}.scroll{overflow-x:auto}"
)
IMAGE_TYPES = {"png": "image/png", "svg": "image/svg+xml"}


def page(title: str, sections: Iterable[str]) -> str:
    """Return a whole page.

    Args:
        title: Title, plain text.
        sections: HTML.

    Returns:
        HTML that refers to nothing outside of itself.
    """
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1>{''.join(sections)}</body></html>\n"
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers have three decimals, and what is None or NaN is a dash."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


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
