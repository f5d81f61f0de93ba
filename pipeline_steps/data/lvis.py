"""Reading LVIS-format JSON (v0.5, v1, and the derived OpenImages file) into one light structure.

Symbols: C number of categories; S_P(i) categories annotated in image i; S_N(i) categories verified to be absent from
image i (``neg_category_ids``); judged = S_P united with S_N; *id* and *position* as in
:mod:`pipeline_steps.data.categories`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import incomplete_json, read_json, require_file, without_garbage_collection
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.checks import catalogue
from pipeline_steps.data.checks.fields import check_annotations, check_categories, check_images
from pipeline_steps.data.checks.findings import Findings, Purpose
from pipeline_steps.data.records import (
    Annotation,
    AnnotationFile,
    Category,
    CategoryFile,
    ImageFile,
    ImageIdFile,
    ImageRecord,
)

Kind = Literal["train", "val", "test_info", "openimages"]
FileType = TypeVar("FileType")


@dataclass(frozen=True)
class LvisDataset:
    """A checked LVIS- or COCO-format data set."""

    path: Path  # the file it was read from
    categories: CategoryList  # its categories, sorted by id
    images: list[ImageRecord]  # all images, in file order
    # annotations by image id, in file order; images without any have an empty list
    annotations: dict[int, list[Annotation]] = field(repr=False)
    exhaustive: bool = False  # true for COCO: every category is judged in every image
    # what is wrong with the file short of a refusal; masks are checked where they are read
    findings: Findings = field(default_factory=Findings, repr=False)
    # ids of annotations whose boxes cannot be learned from
    unusable: frozenset[int] = field(default=frozenset(), repr=False)

    @cached_property
    def image_by_id(self) -> dict[int, ImageRecord]:
        """Images by id."""
        return {image.id: image for image in self.images}

    @property
    def category_ids(self) -> list[int]:
        """Sorted category ids; position k of this list is contiguous index k."""
        return self.categories.ids.tolist()

    def annotated_ids(self, image: ImageRecord) -> list[int]:
        """S_P: sorted category ids annotated in ``image``."""
        return sorted({annotation.category_id for annotation in self.annotations[image.id]})

    def judged(self, image: ImageRecord) -> np.ndarray:
        """bool[C]: S_P united with S_N of ``image`` (paper, equation 4), by position; all True for COCO."""
        if self.exhaustive:
            return np.ones(len(self.categories), dtype=bool)
        return self.categories.mask([*self.annotated_ids(image), *image.neg_category_ids])

    def known(self, image: ImageRecord) -> np.ndarray:
        """bool[C]: categories of which ``image`` says anything, by position; False means no loss at all."""
        if image.judged_only:
            return self.judged(image)
        if image.known_category_ids is None:
            return np.ones(len(self.categories), dtype=bool)
        return self.categories.mask(image.known_category_ids)

    @cached_property
    def image_counts(self) -> np.ndarray:
        """int64[C]: images with an annotation of each category, counted in this file."""
        counts = np.zeros(len(self.categories), dtype=np.int64)
        for image in self.images:
            counts[self.categories.positions(self.annotated_ids(image))] += 1
        return counts

    @cached_property
    def instance_counts(self) -> np.ndarray:
        """int64[C]: annotations of each category, counted in this file."""
        of_image = (annotation.category_id for group in self.annotations.values() for annotation in group)
        return np.bincount(self.categories.positions(of_image), minlength=len(self.categories))


def _not_a_number(content: bytes, problem: str) -> str:
    """Where ``NaN`` or ``Infinity`` stands, which JSON does not have; empty if the problem is another one."""
    place = re.search(r"\(byte (\d+)\)", problem)
    at = int(place[1]) if place else 0
    found = re.match(rb"NaN|Infinity", content[at : at + 8])
    if not found:
        return ""
    return f"{found[0].decode()} at byte {at}, after {content[max(0, at - 80) : at].decode(errors='replace')!r}"


class StructureError(UserError):
    """JSON, but not the structure of the format."""


class _StatedId(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"missing")


def stated_id(record: msgspec.Raw) -> str:
    """The id of a damaged record as it stands in the file."""
    try:
        return bytes(msgspec.json.decode(record, type=_StatedId).id).decode()[:40]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "missing"


def _named(content: bytes, problem: str) -> str:
    """A complaint of msgspec about a record with the record's own id beside its position."""
    place = re.search(r"`\$\.(\w+)\[(\d+)\]", problem)
    if not place:
        hint = " (image information of a test split has none)" * ("required field `annotations`" in problem)
        return problem + hint
    listed = msgspec.json.decode(content, type=dict[str, msgspec.Raw])[place[1]]
    record = msgspec.json.decode(listed, type=list[msgspec.Raw])[int(place[2])]
    return f"{place[1]}, id {stated_id(record)}: {problem}"


def decode_file(path: str | Path, file_type: type[FileType], what: str) -> FileType:
    """Decode a JSON file into typed records.

    Raises:
        UserError: missing, truncated, or of another structure; the message names file and place.
    """
    path = require_file(path, what, "check datasets_root, or run the data stage of the workflow")
    content = path.read_bytes()
    try:
        with without_garbage_collection():
            return msgspec.json.decode(content, type=file_type)
    except msgspec.ValidationError as error:
        raise StructureError(f"{what} {path} is not in LVIS/COCO format: {_named(content, str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if number := _not_a_number(content, str(error)):
            raise UserError(f"{what} {path}: {number}: correct the number or remove its annotation") from None
        raise incomplete_json(f"{what} {path}", content, error) from None


def read_categories(path: str | Path) -> CategoryList:
    """The categories of an LVIS- or COCO-format file, without decoding the rest."""
    return CategoryList(decode_file(path, CategoryFile, "annotation file").categories, str(path))


def read_category_list(path: str) -> CategoryList:
    """Categories of an annotation file, or of a file that is a plain list of categories."""
    content = read_json(path, "category list")
    try:
        listed = content["categories"] if isinstance(content, dict) else content
        return CategoryList(msgspec.convert(listed, list[Category]), path)
    except (KeyError, msgspec.ValidationError) as error:
        raise UserError(f"{path} has no valid list 'categories': {error}") from None


def read_image_ids(path: str | Path) -> list[int]:
    """Image ids of an LVIS- or COCO-format file in file order, without decoding the rest."""
    return [image.id for image in decode_file(path, ImageIdFile, "annotation file").images]


def group_annotations(annotations: list[Annotation], images: list[ImageRecord]) -> dict[int, list[Annotation]]:
    """Annotations by image id, for all ``images``."""
    groups: dict[int, list[Annotation]] = {image.id: [] for image in images}
    for annotation in annotations:
        groups[annotation.image_id].append(annotation)
    return groups


def read_lvis(path: str | Path, kind: Kind = "train") -> LvisDataset:
    """Read and check an LVIS-format file.

    Args:
        path: JSON file of LVIS v0.5 or v1, or the derived OpenImages file.
        kind: ``train`` requires at least one annotated image for every category (one without any would count as rare
            and could never be learned); ``val`` does not; ``test_info`` reads images and categories only;
            ``openimages`` is a training file that needs not cover every category.

    Raises:
        UserError: missing or truncated file, or one that fails a check on which the purpose insists.
    """
    path = Path(path)
    purpose: Purpose = "evaluation" if kind == "val" else "training"
    annotated = kind != "test_info"
    if annotated:
        content: ImageFile = decode_file(path, AnnotationFile, "LVIS annotations")
    else:
        content = decode_file(path, ImageFile, "LVIS image information")
    annotations = content.annotations if isinstance(content, AnnotationFile) else []
    categories = CategoryList(content.categories, str(path))
    findings, ids = Findings(), categories.ids.tolist()
    check_categories(content.categories, annotated, findings)
    check_images(content.images, ids, kind in ("train", "val"), findings)
    unusable = check_annotations(annotations, content.images, ids, True, findings)
    findings.refuse(path, purpose)
    groups = group_annotations(annotations, content.images)
    dataset = LvisDataset(path, categories, content.images, groups, findings=findings, unusable=unusable)
    if kind == "train":
        empty = [categories.names[position] for position in np.flatnonzero(dataset.image_counts == 0)]
        if empty:
            raise UserError(
                f"{path}: {catalogue.NO_TRAIN_IMAGE.name}: {len(empty)} of {len(categories)}: {listing(empty)}; "
                "they cannot be learned: add images of them or remove them from 'categories'"
            )
    return dataset
