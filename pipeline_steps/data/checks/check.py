"""All checks of an LVIS- or COCO-format file or a category table: those of the readers, and those that only look.

Records are decoded once; masks a chunk at a time, so that the memory does not grow with the polygons of a train file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.progress import Progress
from pipeline_steps.data.categories import CategoryList, frequency_letter
from pipeline_steps.data.category_tables import VERDICTS, map_categories, read_category_table
from pipeline_steps.data.checks import catalogue
from pipeline_steps.data.checks.fields import LISTS, check_annotations, check_categories, check_images
from pipeline_steps.data.checks.findings import REFUSED, Check, Findings
from pipeline_steps.data.checks.geometry import codes_of
from pipeline_steps.data.checks.masks import add_findings, chunks, name_of
from pipeline_steps.data.lvis import StructureError, decode_file, stated_id
from pipeline_steps.data.records import Annotation, AnyFile, Category, ImageRecord
from pipeline_steps.recipe.base import LVIS_VERSIONS
from pipeline_steps.recipe.data import Data
from pipeline_steps.run.data_files import find_image

Split = Literal["train", "val", "test"]
Record = TypeVar("Record", Category, ImageRecord, Annotation)
_FOLDERS = ("train2017", "val2017", "test2017")


class _RawFile(msgspec.Struct):
    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw] | None = None


@dataclass
class Checked:
    """A checked file."""

    path: Path
    split: Split | None
    style: str  # ``LVIS v0.5``, ``LVIS v1``, ``OpenImages in LVIS format`` or ``COCO``
    findings: Findings
    categories: dict[int, Category] = field(default_factory=dict)  # records by id
    images: dict[int, ImageRecord] = field(default_factory=dict)  # records by id
    annotation_count: int | None = None  # number of annotations; None if the file has no such list (image information)
    images_of: Counter[int] = field(default_factory=Counter)  # images with an annotation, by category id
    instances_of: Counter[int] = field(default_factory=Counter)  # annotations by category id

    @property
    def is_lvis(self) -> bool:
        """Whether the rules of LVIS hold: frequencies, verified negatives, no crowds."""
        return self.style != "COCO"


def _records(raw: list[msgspec.Raw], kind: type[Record], what: str, findings: Findings) -> list[Record]:
    """The records that have the structure of the format."""
    records = []
    for index, text in enumerate(raw):
        try:
            records.append(msgspec.json.decode(text, type=kind))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            findings.add(catalogue.malformed(what), [f"number {index}, id {stated_id(text)}: {error}"])
    return records


def _read(path: Path, findings: Findings) -> AnyFile:
    try:
        return decode_file(path, AnyFile, "annotation file")
    except StructureError:
        raw = decode_file(path, _RawFile, "annotation file")
        listed = raw.annotations
        return AnyFile(
            images=_records(raw.images, ImageRecord, "image", findings),
            categories=_records(raw.categories, Category, "category", findings),
            annotations=None if listed is None else _records(listed, Annotation, "annotation", findings),
        )


def _style(categories: list[Category], images: list[ImageRecord]) -> str:
    if not any(category.synset or category.frequency for category in categories):
        return "COCO"
    if images and all(image.box_only for image in images):
        return "OpenImages in LVIS format"
    return "LVIS v0.5" if any(image.file_name for image in images) else "LVIS v1"


def _check_names(checked: Checked) -> None:
    findings = checked.findings
    for key in ("name", "synset") if checked.is_lvis else ("name",):
        seen: Counter[str] = Counter()
        for category in checked.categories.values():
            value = getattr(category, key)
            if not value:
                findings.error(f"category without {key}", f"category {category.id}")
            else:
                seen[value] += 1
                if seen[value] == 2:
                    findings.error(f"category {key} is used twice", value)
    for category in checked.categories.values() if checked.is_lvis and checked.split == "train" else ():
        letter, count = category.frequency, category.image_count
        if letter and count is not None and frequency_letter(count) != letter:
            findings.error("frequency does not fit image_count", f"{category.name}: {letter} with {count} images")


def _check_place(findings: Findings, image: ImageRecord, root: Path | None) -> str | None:
    """Check where the file of an image is said to be; returns its path below the data sets' root, if it has one."""
    name = f"image {image.id}"
    try:
        path = find_image(root or Path(), image)
    except UserError:
        findings.add(catalogue.NO_PLACE, [name])
        return None
    if image.coco_url:
        if path.parent.name not in _FOLDERS:
            findings.warning("coco_url outside train2017, val2017 and test2017", f"{name}: {image.coco_url}")
        if path.stem.isdigit() and int(path.stem) != image.id:
            findings.error("coco_url names another image", f"{name}: {image.coco_url}")
        digits = (image.file_name or path.name).rpartition("_")[2].partition(".")[0]
        if digits.isdigit() and int(digits) != image.id:
            findings.error("file_name names another image", f"{name}: {image.file_name}")
    if root is not None and not path.is_file():
        findings.error("image file missing", str(path))
    return str(path)


def _check_masks(checked: Checked, annotations: list[Annotation], unusable: Collection[int]) -> None:
    """Check masks, and whether training is left with anything; ``unusable`` are those whose boxes cannot be used."""
    left, left_out = 0, codes_of(catalogue.MASKS)
    progress = Progress(f"checking {checked.path.name}", len(annotations), "annotations")
    images = [checked.images[annotation.image_id] for annotation in annotations]
    for part, masks in chunks(annotations, images):
        add_findings(masks.codes, annotations[part], catalogue.MASKS, checked.findings)
        usable = (a.id not in unusable and not a.iscrowd for a in annotations[part])
        left += int((~left_out[masks.codes] & np.fromiter(usable, bool, len(masks.codes))).sum())
        progress.advance(len(masks.codes))
    if checked.split in ("val", "test"):
        return
    if not left:
        checked.findings.add(catalogue.NOTHING_USABLE, [checked.path.name])
    excess = checked.findings.excess(len(annotations), Data.model_fields["max_unusable_annotations"].default)
    checked.findings.add(catalogue.TOO_MANY_UNUSABLE, [excess] * bool(excess))


def _check_judgements(checked: Checked, annotations: list[Annotation]) -> None:
    annotated: defaultdict[int, set[int]] = defaultdict(set)
    for annotation in annotations:
        annotated[annotation.image_id].add(annotation.category_id)
        known = checked.images[annotation.image_id].known_category_ids
        if known is not None and annotation.category_id not in known:
            checked.findings.error("annotated category is not in known_category_ids", name_of(annotation))
    for present in annotated.values():
        checked.images_of.update(present)
    checked.instances_of.update(annotation.category_id for annotation in annotations)
    for image_id, image in checked.images.items():
        positive = annotated.get(image_id, set())
        for category in positive & set(image.neg_category_ids):
            checked.findings.error("category annotated and negative in one image", f"image {image_id}: {category}")
        unannotated = set(image.not_exhaustive_category_ids) - positive
        if unannotated and not image.box_only:
            checked.findings.warning(
                "not exhaustive, but not annotated at all", f"image {image_id}: {sorted(unannotated)[0]}"
            )
        for key in LISTS:
            ids = getattr(image, key) or ()
            if len(set(ids)) < len(ids):
                checked.findings.warning(f"{key} repeats a category", f"image {image_id}")


def _check_counts(checked: Checked) -> None:
    for category_id, category in checked.categories.items():
        name = category.name or str(category_id)
        if checked.split == "train" and not checked.images_of[category_id]:
            check = catalogue.NO_TRAIN_IMAGE if checked.is_lvis else Check(catalogue.NO_TRAIN_IMAGE.name)
            checked.findings.add(check, [name])
        if checked.split != "train" or checked.style == "COCO":
            continue
        for key, counted in (("image_count", checked.images_of), ("instance_count", checked.instances_of)):
            if getattr(category, key) not in (None, counted[category_id]):
                stated = f"{name}: states {getattr(category, key)}, has {counted[category_id]}"
                checked.findings.error(f"{key} differs from the annotations", stated)


def guess_split(path: Path) -> Split | None:
    """The split that the file name tells."""
    return next((split for split in ("train", "val", "test") if split in path.stem), None)


def check_file(path: str | Path, split: Split | None = None, root: Path | None = None, examples: int = 3) -> Checked:
    """Check a file.

    Args:
        path: annotation file or image information.
        split: train files must have images of every category and right counts; guessed from the name if not given.
        root: datasets_root; if given, image files must exist below it.
        examples: examples kept of each kind.

    Raises:
        UserError: the file is missing, truncated, or has no lists ``images`` and ``categories``.
    """
    path, findings = Path(path), Findings(examples)
    content = _read(path, findings)
    checked = Checked(path, split or guess_split(path), _style(content.categories, content.images), findings)
    checked.categories = {category.id: category for category in content.categories}
    checked.images = {image.id: image for image in content.images}
    checked.annotation_count = None if content.annotations is None else len(content.annotations)
    if checked.style == "OpenImages in LVIS format":
        checked.split = None  # it needs not show every category, and its counts are those of LVIS
    check_categories(content.categories, checked.is_lvis, findings)
    _check_names(checked)
    with_lists = checked.style.startswith("LVIS") and content.annotations is not None
    check_images(content.images, checked.categories, with_lists, findings)
    files = Counter(filter(None, (_check_place(findings, image, root) for image in content.images)))
    for name in (name for name, count in files.items() if count > 1):
        findings.error("file used by several images", name)
    if content.annotations is None:
        findings.add(catalogue.NO_ANNOTATIONS, [path.name] * (checked.split in ("train", "val")))
        return checked
    unusable = check_annotations(content.annotations, content.images, checked.categories, checked.is_lvis, findings)
    annotations = [
        a for a in content.annotations if a.image_id in checked.images and a.category_id in checked.categories
    ]
    _check_masks(checked, annotations, unusable)
    _check_judgements(checked, annotations)
    _check_counts(checked)
    return checked


def check_table(path: Path, annotation_files: Iterable[Checked], examples: int = 3) -> tuple[str, Findings]:
    """Check a category table. Checked files of LVIS must have the synsets that it names for their release.

    Returns:
        a line that sums the table up; the problems.
    """
    findings = Findings(examples)
    try:
        rows = read_category_table(path)
        verdicts = Counter(row.verdict for row in rows)
        told = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS)
        line = f"{path}: category table: {len(rows)} rows: {told}"
        for checked in annotation_files:
            version = checked.style.removeprefix("LVIS ")
            if version in LVIS_VERSIONS:
                categories = CategoryList(checked.categories.values(), str(checked.path))
                mapping = map_categories(rows, categories, version, ["equal"], ["use"], str(path))
                if any(row.source_id.isdecimal() for row in mapping.rows):
                    mapping.by_number()
    except UserError as error:
        line = f"{path}: category table"
        findings.add(Check("no category table for a recipe", REFUSED), [error])
    return line, findings
