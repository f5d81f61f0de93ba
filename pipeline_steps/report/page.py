"""Self-contained HTML pages: one file, no network, readable in light and dark, on a phone and on a desk."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import require_file

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #ffffff; --panel: #f3f5f7; --line: #d5dae0;
  --link: #0a58b8; --good: #1a7f37; --bad: #c4232b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaef; --soft: #9aa5b1; --paper: #14171b; --panel: #1f242a;
  --line: #363d45; --link: #79b8ff; --good: #56d364; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem clamp(0.75rem, 3vw, 2rem) 3rem; max-width: 76rem; background: var(--paper);
  overflow-wrap: break-word; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; } h2 { font-size: 1.25rem; margin: 2.2rem 0 0.3rem; }
p { margin: 0.4rem 0; max-width: 70ch; } a { color: var(--link); } .soft, figcaption { color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1.1rem; margin: 0.8rem 0; }
figure { margin: 1rem 0; padding: 0.8rem; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-size: 0.92rem; margin-top: 0.4rem; max-width: 80ch; } img, svg { max-width: 100%; }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def html_page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML below ``<body>``.
        style: further CSS.
        script: JavaScript at the end of the page.
    """
    tail = f"<script>{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n'
        f"<style>{style}</style>\n"
        f"</head>\n<body>\n{body}\n{tail}</body>\n</html>\n"
    )


def page_parts(path: str | Path) -> tuple[str, str]:
    """Style and body of a page that :func:`html_page` has made, to put it into another one.

    Raises:
        UserError: the file is missing or no such page.
    """
    text = require_file(path, "page").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"<style>[^<]*</style>\n<style>([^<]*)</style>\n</head>\n<body>\n(.*)\n</body>", text, re.DOTALL)
    if found is None:
        raise UserError(f"{path} is no page of this pipeline, or is truncated")
    return found[1], found[2]


def data_uri(content: bytes, kind: str) -> str:
    """``content`` as a data URI of the MIME type ``kind``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def file_uri(path: str | Path) -> str:
    """An image file as a data URI, by its suffix."""
    path = Path(path)
    kinds = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}
    return data_uri(path.read_bytes(), kinds[path.suffix])
