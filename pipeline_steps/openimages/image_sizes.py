"""Image sizes from file headers, without decoding a pixel."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pipeline_steps.common.progress import Progress

_ORIENTATION = 0x0112
_THREADS = 16
"""Opening a file on a network file system is waiting, not computing."""


@dataclass(frozen=True)
class ImageSizes:
    """Result of :func:`read_sizes`."""

    sizes: dict[str, tuple[int, int]]  # (width, height) in pixels by image id, as stored in the file
    turned: list[str]  # ids of images that a viewer turns (EXIF orientation); their boxes may be for either view
    missing: list[str]  # ids of images without a file
    unreadable: list[str]  # ids of images whose header is damaged


def _read_size(path: Path) -> tuple[int, int] | str:
    try:
        with Image.open(path) as image:
            if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
                return "turned"
            return image.size
    except FileNotFoundError:
        return "missing"
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return "unreadable"


def read_sizes(folder: str | Path, image_ids: Iterable[str]) -> ImageSizes:
    """Read the sizes of ``<folder>/<image id>.jpg``, each file once."""
    ids = list(image_ids)
    sizes: dict[str, tuple[int, int]] = {}
    others: dict[str, list[str]] = {"turned": [], "missing": [], "unreadable": []}
    progress = Progress("image sizes", len(ids), "images")
    with ThreadPoolExecutor(_THREADS) as pool:
        for image_id, found in zip(
            ids, pool.map(lambda name: _read_size(Path(folder, f"{name}.jpg")), ids), strict=True
        ):
            if isinstance(found, str):
                others[found].append(image_id)
            else:
                sizes[image_id] = found
            progress.advance()
    return ImageSizes(sizes, others["turned"], others["missing"], others["unreadable"])
