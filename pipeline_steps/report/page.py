"""Self-contained HTML pages: one file, no network, readable in light and dark, on a phone, on a desk and on paper.

All HTML is in ``templates/``, with one style sheet and one script for every page.
"""

import base64
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import note_input, require_file

TEMPLATES = Path(__file__).with_name("templates")

PIXELS_PER_INCH = 120  # size of the figures on a page

_BEGIN, _END = "<!-- content -->", "<!-- end of content -->"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: Any) -> Markup:
    """A template of :data:`TEMPLATES` with its values; text in them is escaped."""
    return Markup(_environment().get_template(template).render(values))


def part(name: str, *values: Any) -> Markup:
    """A macro of ``parts.html`` with its arguments."""
    return getattr(_environment().get_template("parts.html").module, name)(*values)


def html_page(
    title: str,
    content: Markup,
    lead: Iterable[str] = (),
    links: Iterable[tuple[str, str]] = (),
    heading: str = "",
) -> str:
    """A whole page.

    Args:
        links: anchor and name of each section, for the list that stays in sight.
        heading: of the content, which is not part of it: where it is put into another page, that has its own.
    """
    return render(
        "page.html",
        title=title,
        content=content,
        lead=list(lead),
        links=list(links),
        heading=heading,
        begin=Markup(_BEGIN),
        end=Markup(_END),
    )


def page_content(path: str | Path) -> Markup:
    """What :func:`html_page` was given to show, to put it into another page.

    Raises:
        UserError: the file is missing, truncated or no such page.
    """
    text = require_file(path, "page").read_text(encoding="utf-8", errors="replace")
    content, end, _ = text.partition(_BEGIN)[2].partition(_END)
    if not end:
        raise UserError(f"{path} is not a page of this pipeline, or is truncated")
    return Markup(content)


def data_uri(content: bytes, kind: str) -> str:
    """``content`` as a data URI of the MIME type ``kind``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def pixels_uri(pixels: np.ndarray, longest: int) -> str:
    """An image, uint8[H, W, 3] in BGR, as a data URI; larger ones are made smaller, to ``longest`` pixels."""
    shrink = longest / max(pixels.shape[:2])
    if shrink < 1:
        pixels = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return data_uri(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes(), "image/jpeg")


def file_uri(path: str | Path) -> str:
    """An image file as a data URI, by its suffix."""
    path = note_input(path)
    kinds = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}
    return data_uri(path.read_bytes(), kinds[path.suffix])
