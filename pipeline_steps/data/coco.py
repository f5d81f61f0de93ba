"""COCO instance annotations: as a training set, and as plain boxes by image for COCO Ignore."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import msgspec

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import require_file
from pipeline_steps.data.categories import CategoryList, with_counts
from pipeline_steps.data.checks.fields import check_annotations, check_categories, check_images
from pipeline_steps.data.checks.findings import Findings, Purpose
from pipeline_steps.data.lvis import LvisDataset, decode_file, group_annotations, read_image_ids
from pipeline_steps.data.records import AnnotationFile
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.data_files import DatasetPaths

log = logging.getLogger(__name__)


class _BoxIndex(msgspec.Struct):
    boxes: dict[int, list[tuple[float, float, float, float]]]


def read_coco(
    path: str | Path, keep_crowds: bool = False, without: Collection[int] = (), purpose: Purpose = "training"
) -> LvisDataset:
    """Read COCO instances as a data set in which every category is judged in every image.

    COCO gives no frequencies: image counts are counted here, and the letters follow from LVIS' limits.

    Args:
        keep_crowds: keep annotations with ``iscrowd``; without, their boxes become the images' ``group_boxes``.
        without: ids of images that are left out; those that the file does not have do not matter.

    Raises:
        UserError: missing or truncated file, one that fails a check on which the purpose insists, no image is left.
    """
    path = Path(path)
    content = decode_file(path, AnnotationFile, "COCO annotations")
    categories = CategoryList(content.categories, str(path))
    findings, ids = Findings(), categories.ids.tolist()
    check_categories(content.categories, False, findings)
    check_images(content.images, ids, False, findings)
    unusable = check_annotations(content.annotations, content.images, ids, False, findings)
    findings.refuse(path, purpose)
    groups = group_annotations(content.annotations, content.images)
    images = [image for image in content.images if image.id not in without]
    if not images:
        raise UserError(f"{path}: no image is left of {len(content.images)}")
    if len(images) < len(content.images):
        log.info("%s: %d images left out, %d left", path, len(content.images) - len(images), len(images))
    groups = {image.id: groups[image.id] for image in images}
    if not keep_crowds:
        for image in images:
            image.group_boxes = tuple(a.bbox for a in groups[image.id] if a.iscrowd and a.id not in unusable)
        groups = {image_id: [a for a in group if not a.iscrowd] for image_id, group in groups.items()}
    present = [[annotation.category_id for annotation in group] for group in groups.values()]
    images_of = Counter(category_id for found in present for category_id in set(found))
    instances_of = Counter(category_id for found in present for category_id in found)
    counted = CategoryList(with_counts(categories.categories, images_of, instances_of), str(path))
    return LvisDataset(path, counted, images, groups, True, findings, unusable)


def boxes_by_image(coco: LvisDataset, image_ids: list[int]) -> dict[str, list[list[float]]]:
    """Non-crowd COCO boxes of the images that both data sets share.

    Args:
        coco: COCO data set read without crowds.
        image_ids: LVIS train image ids; those that COCO does not have get no entry.

    Returns:
        ``{"<image id>": [[x1, y1, x2, y2], ...]}`` in pixels, images in the order of ``image_ids``; boxes that
        training leaves out are left out, and so are images without a box.
    """
    boxes: dict[str, list[list[float]]] = {}
    for image_id in image_ids:
        corners = [
            [x, y, round(x + width, 2), round(y + height, 2)]
            for annotation in coco.annotations.get(image_id, ())
            if annotation.id not in coco.unusable
            for x, y, width, height in [annotation.bbox]
        ]
        if corners:
            boxes[str(image_id)] = corners
    return boxes


def index_boxes(recipe: Recipe) -> dict[str, list[list[float]]]:
    """:func:`boxes_by_image` of the recipe's LVIS train images.

    Raises:
        UserError: a file is missing or damaged; none of the images is in COCO.
    """
    paths = DatasetPaths(recipe)
    image_ids = read_image_ids(paths.lvis_train)
    coco = read_coco(paths.coco_train)
    annotations = sum(map(len, coco.annotations.values()))
    coco.findings.leave_out(paths.coco_train, annotations, recipe.data.max_unusable_annotations)
    unknown = sum(image_id not in coco.annotations for image_id in image_ids)
    if unknown == len(image_ids):
        raise UserError(f"{paths.coco_train} has none of the images of {paths.lvis_train}: use matching files")
    if unknown:
        log.warning("%d of %d LVIS train images are not in %s", unknown, len(image_ids), paths.coco_train)
    boxes = boxes_by_image(coco, image_ids)
    log.info("%d boxes of %d of %d LVIS train images", sum(map(len, boxes.values())), len(boxes), len(image_ids))
    return boxes


def read_coco_boxes(path: str | Path) -> dict[int, list[tuple[float, float, float, float]]]:
    """Read the file that ``index_coco_boxes`` wrote: boxes x1, y1, x2, y2 by LVIS image id."""
    path = require_file(path, "COCO box index", "run: python -m pipeline_steps.index_coco_boxes --help")
    try:
        return msgspec.json.decode(path.read_bytes(), type=_BoxIndex).boxes
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a COCO box index ({error}): make it again with index_coco_boxes") from None
