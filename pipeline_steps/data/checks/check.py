"""All checks of one LVIS- or COCO-format file.

Records are decoded one at a time, so that the memory does not grow with the polygons of a train file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.progress import Progress
from pipeline_steps.data.category_list import GROUPS, frequency_letter
from pipeline_steps.data.checks.findings import Findings
from pipeline_steps.data.checks.shapes import box_problem, mask_problem, numbers
from pipeline_steps.data.lvis import decode_file
from pipeline_steps.data.paths import find_image

Split = Literal["train", "val", "test"]
_FOLDERS = ("train2017", "val2017", "test2017")


class _File(msgspec.Struct):
    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw] | None = None


@dataclass
class Checked:
    """A checked file.

    Attributes:
        style: ``LVIS v0.5``, ``LVIS v1``, ``OpenImages in LVIS format`` or ``COCO``.
        categories: records by id.
        images: records by id.
        annotation_count: number of annotations; None if the file has no such list (image information).
        images_of: images with an annotation, by category id.
        instances_of: annotations by category id.
    """

    path: Path
    split: Split | None
    style: str
    findings: Findings
    categories: dict[int, dict[str, Any]] = field(default_factory=dict)
    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    annotation_count: int | None = None
    images_of: Counter[int] = field(default_factory=Counter)
    instances_of: Counter[int] = field(default_factory=Counter)

    @property
    def is_lvis(self) -> bool:
        """Whether the rules of LVIS hold: frequencies, verified negatives, no crowds."""
        return self.style != "COCO"


def _records(raw: list[msgspec.Raw], what: str, findings: Findings) -> list[dict[str, Any]]:
    """Decode and keep the records that have an integer id that occurs once."""
    records, seen = [], set()
    for index, text in enumerate(raw):
        record = msgspec.json.decode(text)
        if not isinstance(record, dict) or type(record.get("id")) is not int:
            findings.error(f"{what} without an integer id", f"number {index}")
        elif record["id"] in seen:
            findings.error(f"{what} id occurs twice", str(record["id"]))
        else:
            seen.add(record["id"])
            records.append(record)
    return records


def _style(categories: list[dict[str, Any]], images: list[dict[str, Any]]) -> str:
    if not any("synset" in category or "frequency" in category for category in categories):
        return "COCO"
    if images and all(image.get("box_only") for image in images):
        return "OpenImages in LVIS format"
    return "LVIS v0.5" if any(image.get("file_name") for image in images) else "LVIS v1"


def _check_categories(checked: Checked, records: list[dict[str, Any]]) -> None:
    findings = checked.findings
    for key in ("name", "synset") if checked.is_lvis else ("name",):
        seen: Counter[str] = Counter()
        for category in records:
            value = category.get(key)
            if not isinstance(value, str) or not value:
                findings.error(f"category without {key}", f"category {category['id']}")
            else:
                seen[value] += 1
                if seen[value] == 2:
                    findings.error(f"category {key} occurs twice", value)
    for category in records if checked.is_lvis else []:
        name = f"{category.get('name', category['id'])}"
        letter, count = category.get("frequency"), category.get("image_count")
        if letter is not None and letter not in GROUPS:
            findings.error("frequency is not r, c or f", f"{name}: {letter!r}")
        elif letter is None and count is None:
            findings.error("category without frequency and image_count", name)
        elif letter is None:
            findings.warning("category without frequency (its image_count decides)", name)
        elif checked.split == "train" and type(count) is int and frequency_letter(count) != letter:
            findings.error("frequency does not fit image_count", f"{name}: {letter} with {count} images")


def _check_image(checked: Checked, image: dict[str, Any], root: Path | None) -> str | None:
    """Check an image record; returns its path below the data sets' root, if it has one."""
    findings, name = checked.findings, f"image {image['id']}"
    sizes = [image.get("width"), image.get("height")]
    if any(type(size) is not int or size < 1 for size in sizes):
        findings.error("image without positive integer width and height", name)
        image["width"] = image["height"] = float("inf")
    if checked.is_lvis:
        for key in ("neg_category_ids", "not_exhaustive_category_ids", "known_category_ids"):
            ids = image.get(key)
            if ids is None:
                if key == "neg_category_ids" and checked.annotation_count is not None:
                    findings.error(f"image without {key}", name)
            elif not numbers(ids):
                findings.error(f"{key} is no list of numbers", name)
                image[key] = None
            else:
                if len(set(ids)) < len(ids):
                    findings.warning(f"{key} repeats a category", name)
                for category in set(ids) - checked.categories.keys():
                    findings.error(f"{key} names an unknown category", f"{name}: {category}")
    for key in ("ignore_boxes", "group_boxes"):
        for box in image.get(key) or ():
            if problem := box_problem(box, image["width"], image["height"]):
                findings.error(f"{key}: {problem}", f"{name}: {box}")
    try:
        path = find_image(root or Path(), image)
    except UserError:
        findings.error("image whose file cannot be found from coco_url and file_name", name)
        return None
    if image.get("coco_url"):
        if path.parent.name not in _FOLDERS:
            findings.warning("coco_url outside train2017, val2017 and test2017", f"{name}: {image['coco_url']}")
        if path.stem.isdigit() and int(path.stem) != image["id"]:
            findings.error("coco_url names another image", f"{name}: {image['coco_url']}")
        digits = str(image.get("file_name") or path.name).rpartition("_")[2].partition(".")[0]
        if digits.isdigit() and int(digits) != image["id"]:
            findings.error("file_name names another image", f"{name}: {image['file_name']}")
    if root is not None and not path.is_file():
        findings.error("image file missing", str(path))
    return str(path)


def _check_annotation(checked: Checked, annotation: dict[str, Any]) -> None:
    findings, name = checked.findings, f"annotation {annotation['id']}"
    if annotation["id"] < 1:
        findings.error("annotation id below 1 (evaluators take 0 for no match)", name)
    image = checked.images.get(annotation.get("image_id"))  # type: ignore[arg-type]
    category = annotation.get("category_id")
    if image is None:
        findings.error("annotation of an unknown image", f"{name}: {annotation.get('image_id')}")
    if category not in checked.categories:
        findings.error("annotation of an unknown category", f"{name}: {category}")
    if image is None or category not in checked.categories:
        return
    checked.instances_of[category] += 1
    known = image.get("known_category_ids")
    if known is not None and category not in known:
        findings.error("annotated category is not in known_category_ids", f"{name}: {category}")
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1) or (crowd and checked.is_lvis):
        findings.error("iscrowd in LVIS, or neither 0 nor 1", f"{name}: {crowd!r}")
    area = annotation.get("area")
    if not numbers([area]) or area < 0:
        findings.error("area is no positive number", f"{name}: {area!r}")
    elif area == 0:
        findings.warning("area is 0", name)
    box = annotation.get("bbox")
    problem = box_problem(box, image["width"], image["height"])
    mask = annotation.get("segmentation")
    if problem:
        findings.error(problem, f"{name}: {box}")
    elif image.get("box_only"):
        if mask is not None:
            findings.error("segmentation on a box_only image", name)
    elif mask is None:
        findings.warning("annotation without segmentation (it trains and evaluates boxes only)", name)
    else:
        problem = mask_problem(mask, box, image["width"], image["height"])
        if problem in ("polygon outside its image", "polygon does not fill its box"):
            findings.warning(problem, name)
        elif problem:
            findings.error(problem, name)


def _check_judgements(checked: Checked, annotated: dict[int, set[int]]) -> None:
    for image_id, image in checked.images.items():
        positive = annotated.get(image_id, set())
        for category in positive & set(image.get("neg_category_ids") or ()):
            checked.findings.error("category annotated and negative in one image", f"image {image_id}: {category}")
        unannotated = set(image.get("not_exhaustive_category_ids") or ()) - positive
        if unannotated and not image.get("box_only"):
            checked.findings.warning(
                "not exhaustive, but not annotated at all", f"image {image_id}: {sorted(unannotated)[0]}"
            )


def _check_counts(checked: Checked) -> None:
    for category_id, category in checked.categories.items():
        name = str(category.get("name", category_id))
        if checked.split == "train" and not checked.images_of[category_id]:
            checked.findings.error("category without any train image", name)
        if checked.split != "train" or checked.style == "COCO":
            continue
        for key, counted in (("image_count", checked.images_of), ("instance_count", checked.instances_of)):
            if category.get(key) not in (None, counted[category_id]):
                stated = f"{name}: states {category[key]}, has {counted[category_id]}"
                checked.findings.error(f"{key} differs from the annotations", stated)


def guess_split(path: Path) -> Split | None:
    """The split that the file name tells."""
    return next((split for split in ("train", "val", "test") if split in path.stem), None)  # type: ignore[return-value]


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
    content = decode_file(path, _File, "annotation file")
    categories = _records(content.categories, "category", findings)
    images = _records(content.images, "image", findings)
    checked = Checked(path, split or guess_split(path), _style(categories, images), findings)
    checked.categories = {category["id"]: category for category in categories}
    checked.images = {image["id"]: image for image in images}
    checked.annotation_count = None if content.annotations is None else len(content.annotations)
    if checked.style == "OpenImages in LVIS format":
        checked.split = None  # it needs not show every category, and its counts are those of LVIS
    _check_categories(checked, categories)
    files: Counter[str] = Counter(filter(None, (_check_image(checked, image, root) for image in images)))
    for name in (name for name, count in files.items() if count > 1):
        findings.error("file of several images", name)
    if content.annotations is None:
        return checked
    annotated: defaultdict[int, set[int]] = defaultdict(set)
    progress = Progress(f"checking {path.name}", len(content.annotations), "annotations")
    seen: set[int] = set()
    for text in content.annotations:
        for annotation in _records([text], "annotation", findings):
            if annotation["id"] in seen:
                findings.error("annotation id occurs twice", str(annotation["id"]))
            seen.add(annotation["id"])
            _check_annotation(checked, annotation)
            annotated[annotation.get("image_id", -1)].add(annotation.get("category_id", -1))
        progress.advance()
    for present in annotated.values():
        checked.images_of.update(present & checked.categories.keys())
    _check_judgements(checked, annotated)
    _check_counts(checked)
    return checked
