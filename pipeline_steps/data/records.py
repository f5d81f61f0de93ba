"""Images, annotations and categories of LVIS- and COCO-format files as light typed records.

Polygons stay as the file's own JSON text until they are asked for: a train file holds about 10^8 coordinates, which
as Python numbers would take several gigabytes and be copied into every loader process.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

MAX_ID = 2**53
"""Evaluators keep ids as float64, which tells whole numbers apart up to here only."""
MAX_EDGE = 65535
"""Pixels: the most that JPEG can store; the product of two such edges fits the run lengths of COCO."""

Id = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
Edge = Annotated[int, msgspec.Meta(ge=1, le=MAX_EDGE)]


class _Absent(tuple[int, ...]):
    """An empty list that the file does not have."""


ABSENT = _Absent()
"""Value of a list of category ids whose key is absent; compare with ``is``."""


class Category(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One category. ``frequency`` is r, c or f, decided by the image count of the *train* split."""

    id: Id
    name: str
    synset: str = ""
    frequency: str | None = None
    image_count: int | None = None
    instance_count: int | None = None
    synonyms: tuple[str, ...] = ()
    definition: str = msgspec.field(default="", name="def")
    supercategory: str = ""
    freebase_id: str = ""  # OpenImages: MID of the class


class ImageRecord(msgspec.Struct):
    """One image. All category ids are the data set's own ids (LVIS: 1-based), never positions."""

    id: Id
    width: Edge
    height: Edge
    file_name: str = ""  # LVIS v0.5: the 2014 form, which is not the name on disk; absent in v1
    coco_url: str = ""  # its last two parts are folder and name on disk, e.g. ``train2017/000000000001.jpg``
    neg_category_ids: tuple[int, ...] = ABSENT  # categories verified to be absent (S_N)
    not_exhaustive_category_ids: tuple[int, ...] = ABSENT
    """Categories that are present but of which not every instance is annotated."""
    box_only: bool = False  # true for OpenImages: no masks, so no mask loss on this image
    known_category_ids: tuple[int, ...] | None = None
    """Categories that the annotators of this image had a name for; None: all."""
    judged_only: bool = False
    """Nothing is known of categories that are neither annotated nor verified to be absent (OpenImages' own classes)."""
    ignore_boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Objects x, y, w, h that must not be learned as background, though they are no annotation."""
    group_boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Regions x, y, w, h with many objects, in which background must not be learned (group-of boxes, crowds)."""


class Rle(msgspec.Struct, gc=False):
    """A mask as run lengths: ``size`` is height, width; ``counts`` is COCO's compressed text, or the plain numbers."""

    size: tuple[int, int]
    counts: str | list[int]


Segmentation = list[list[float]] | Rle | None
"""Polygons x1 y1 x2 y2 ..., an RLE, or nothing."""


class Annotation(msgspec.Struct, gc=False):
    """One object: ``bbox`` is x, y, width, height in pixels. Masks are read by ``checks.masks.read_masks``."""

    id: Id
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: Annotated[float, msgspec.Meta(ge=0)] = -1.0  # pixels²; negative if the file has none
    iscrowd: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    ignore: bool | int = 0
    segmentation: msgspec.Raw = msgspec.Raw()

    @property
    def has_mask(self) -> bool:
        """Whether the file gives a segmentation."""
        return bytes(self.segmentation) not in (b"", b"null", b"[]")


class ImageFile(msgspec.Struct):
    """A file without its annotations; keys that are not named here are skipped without being decoded."""

    images: list[ImageRecord]
    categories: list[Category]


class AnnotationFile(ImageFile):
    """The whole file."""

    annotations: list[Annotation]


class AnyFile(ImageFile):
    """The same file, with or without annotations."""

    annotations: list[Annotation] | None = None


class CategoryFile(msgspec.Struct):
    """The same file, categories only."""

    categories: list[Category]


class ImageId(msgspec.Struct, gc=False):
    """An image of which only the id matters."""

    id: int


class ImageIdFile(msgspec.Struct):
    """The same file, image ids only."""

    images: list[ImageId]
