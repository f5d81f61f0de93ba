"""Images, annotations and categories of LVIS- and COCO-format files as light typed records.

Polygons stay as the file's own JSON text until they are asked for: a train file holds about 10^8 coordinates, which
as Python numbers would take several gigabytes and be copied into every loader process.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Category(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One category. ``frequency`` is r, c or f, decided by the image count of the *train* split."""

    id: int
    name: str
    synset: str = ""
    frequency: str | None = None
    image_count: int | None = None
    instance_count: int | None = None
    synonyms: tuple[str, ...] = ()
    definition: str = msgspec.field(default="", name="def")
    supercategory: str = ""
    freebase_id: str = ""
    """OpenImages: MID of the class."""


class ImageRecord(msgspec.Struct):
    """One image. All category ids are the data set's own ids (LVIS: 1-based), never positions."""

    id: int
    width: int
    height: int
    file_name: str = ""
    """LVIS v0.5: the 2014 form, which is not the name on disk; absent in v1."""
    coco_url: str = ""
    """Its last two parts are folder and name on disk, e.g. ``train2017/000000000001.jpg``."""
    neg_category_ids: tuple[int, ...] = ()
    """Categories verified to be absent (S_N)."""
    not_exhaustive_category_ids: tuple[int, ...] = ()
    """Categories that are present but of which not every instance is annotated."""
    box_only: bool = False
    """True for OpenImages: no masks, so no mask loss on this image."""
    known_category_ids: tuple[int, ...] | None = None
    """Categories that the annotators of this image had a name for; None: all."""
    judged_only: bool = False
    """Nothing is known of categories that are neither annotated nor verified to be absent (OpenImages' own classes)."""
    ignore_boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Objects x, y, w, h that must not be learned as background, though they are no annotation."""
    group_boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Regions x, y, w, h with many objects, in which background must not be learned (group-of boxes, crowds)."""


class Annotation(msgspec.Struct, gc=False):
    """One object: ``bbox`` is x, y, width, height in pixels."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float = 0.0
    iscrowd: int = 0
    segmentation: msgspec.Raw = msgspec.Raw()

    @property
    def has_mask(self) -> bool:
        """Whether the file gives a segmentation."""
        return bytes(self.segmentation) not in (b"", b"null", b"[]")

    def mask(self) -> list[list[float]] | dict[str, Any] | None:
        """The segmentation: polygons [x1, y1, x2, y2, ...], or an RLE dict (``counts``, ``size``), or None."""
        return msgspec.json.decode(self.segmentation) if self.has_mask else None


class AnnotationFile(msgspec.Struct):
    """A whole file; keys that are not named here are skipped without being decoded."""

    images: list[ImageRecord]
    categories: list[Category]
    annotations: list[Annotation]


class ImageFile(msgspec.Struct):
    """The same file without its annotations."""

    images: list[ImageRecord]
    categories: list[Category]


class CategoryFile(msgspec.Struct):
    """The same file, categories only."""

    categories: list[Category]


class ImageId(msgspec.Struct, gc=False):
    """An image of which only the id matters."""

    id: int


class ImageIdFile(msgspec.Struct):
    """The same file, image ids only."""

    images: list[ImageId]
