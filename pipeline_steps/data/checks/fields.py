"""Checks of ids, references and fields of typed records, for all annotations at once.

Symbols: n annotations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline_steps.data.categories import GROUPS
from pipeline_steps.data.checks import catalogue
from pipeline_steps.data.checks.findings import Check, Findings
from pipeline_steps.data.checks.geometry import check_boxes, codes_of
from pipeline_steps.data.checks.masks import add_findings, name_of
from pipeline_steps.data.records import ABSENT, Annotation, Category, ImageRecord

LISTS = ("neg_category_ids", "not_exhaustive_category_ids", "known_category_ids")
"""Lists of category ids in image records."""


def _repeated(ids: Iterable[int]) -> list[int]:
    return sorted(value for value, count in Counter(ids).items() if count > 1)


def check_categories(categories: Sequence[Category], lvis: bool, findings: Findings) -> None:
    """Ids and, in LVIS, what decides the frequency group."""
    findings.add(catalogue.REPEATED_CATEGORY, _repeated(category.id for category in categories))
    for category in categories if lvis else ():
        if category.frequency is not None:
            wrong = [f"{category.name}: {category.frequency!r}"] * (category.frequency not in GROUPS)
            findings.add(catalogue.UNKNOWN_LETTER, wrong)
        elif category.image_count is None:
            findings.add(catalogue.NO_LETTER_NOR_COUNT, [category.name])
        else:
            findings.add(catalogue.LETTER_FROM_COUNT, [category.name])
            findings.add(catalogue.NO_LETTER, [category.name])


def check_images(images: Sequence[ImageRecord], categories: Iterable[int], lvis: bool, findings: Findings) -> None:
    """Ids, lists of categories, regions. ``categories`` are the ids that exist."""
    if not images:
        findings.add(catalogue.NO_IMAGES, ["images"])
    findings.add(catalogue.REPEATED_IMAGE, _repeated(image.id for image in images))
    known = set(categories)
    shared: dict[tuple[int, ...], tuple[int, ...]] = {}
    for image in images:
        if image.known_category_ids is not None:  # the same long list on thousands of images: keep it once
            image.known_category_ids = shared.setdefault(image.known_category_ids, image.known_category_ids)
    for key in LISTS:
        listed = {getattr(image, key) or () for image in images}
        if not known.issuperset(value for values in listed for value in values):
            for image in images:
                unknown = sorted(set(getattr(image, key) or ()) - known)
                findings.add(catalogue.unknown_in(key), (f"image {image.id}: {value}" for value in unknown))
    for key in ("ignore_boxes", "group_boxes"):
        regions = [(image, box) for image in images for box in getattr(image, key)]
        sizes = np.array([(image.height, image.width) for image, _ in regions]).reshape(-1, 2)
        codes = check_boxes(np.array([box for _, box in regions], np.float64).reshape(-1, 4), sizes)
        for row in np.flatnonzero(codes).tolist():
            image, box = regions[row]
            check = catalogue.BOXES[codes[row]]
            assert check is not None
            findings.error(f"{key}: {check.name}", f"image {image.id}: {list(box)}")
    if lvis:
        for key in LISTS[:2]:
            findings.add(catalogue.lacking(key), (f"image {i.id}" for i in images if getattr(i, key) is ABSENT))


def _add(check: Check, failed: Iterable[Annotation], findings: Findings, key: str = "") -> None:
    findings.add(check, (name_of(a) + (f": {getattr(a, key)!r}" if key else "") for a in failed))


def check_annotations(
    annotations: Sequence[Annotation],
    images: Sequence[ImageRecord],
    categories: Iterable[int],
    lvis: bool,
    findings: Findings,
) -> frozenset[int]:
    """Ids, references, flags, areas and boxes of n annotations.

    Returns:
        Ids of the annotations that training leaves out because of their boxes.
    """
    sizes_of = {image.id: (image.height, image.width) for image in images}
    known = set(categories)
    ids = [annotation.id for annotation in annotations]
    if len(set(ids)) < len(ids):
        findings.add(catalogue.REPEATED_ANNOTATION, _repeated(ids))
    _add(catalogue.ANNOTATION_ID_0, (a for a in annotations if a.id == 0), findings)
    lost = [a for a in annotations if a.image_id not in sizes_of or a.category_id not in known]
    if lost:
        _add(catalogue.UNKNOWN_IMAGE, (a for a in lost if a.image_id not in sizes_of), findings)
        strangers = [a for a in lost if a.category_id not in known]
        _add(catalogue.UNKNOWN_CATEGORY, strangers, findings, "category_id")
        annotations = [a for a in annotations if a.image_id in sizes_of]
    if lvis:
        _add(catalogue.CROWD_IN_LVIS, (a for a in annotations if a.iscrowd), findings)
        _add(catalogue.IGNORE_IN_LVIS, (a for a in annotations if a.ignore), findings)
    areas = np.array([annotation.area for annotation in annotations], np.float64)
    boxes = np.array([annotation.bbox for annotation in annotations], np.float64).reshape(-1, 4)
    sizes = np.array([sizes_of[annotation.image_id] for annotation in annotations], np.float64).reshape(-1, 2)
    codes = check_boxes(boxes, sizes)
    add_findings(codes, annotations, catalogue.BOXES, findings)
    too_large = areas > 2 * (np.abs(boxes[:, 2]) + 2) * (np.abs(boxes[:, 3]) + 2)
    for check, failed in (
        (catalogue.NO_AREA, areas < 0),
        (catalogue.AREA_0, areas == 0),
        (catalogue.AREA_TOO_LARGE, too_large),
    ):
        _add(check, (annotations[row] for row in np.flatnonzero(failed).tolist()), findings, "area")
    left_out = np.flatnonzero(codes_of(catalogue.BOXES)[codes]).tolist()
    return frozenset(annotations[row].id for row in left_out)
