"""The mini world in the format of LVIS v0.5 (or v1): train, val and test image information.

As in the real files: ids of categories and annotations start at 1; image ids have gaps and are not sorted;
``file_name`` has the 2014 form, and some train2017 images were val2014 images then, so that only ``coco_url`` leads to
the file; v1 has no ``file_name``, and val images in train2017. ``frequency`` is decided by the train split in all three
files, while ``image_count`` and ``instance_count`` of the val file count the val split (as in the published sample of
v0.5 val). The test file has no annotations and no verified labels; its counts repeat those of train. ``area`` counts
rasterised pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline_steps.data.categories import frequency_letter
from pipeline_steps.mini_world.polygons import area_of, box_of, polygons_of
from pipeline_steps.mini_world.randomness import chance
from pipeline_steps.mini_world.scene import DrawnScene
from pipeline_steps.mini_world.vocabulary import MiniVocabulary
from pipeline_steps.recipe.data import MiniWorld

LICENSES = [
    (1, "Attribution-NonCommercial-ShareAlike License", "http://creativecommons.org/licenses/by-nc-sa/2.0/"),
    (2, "Attribution-NonCommercial License", "http://creativecommons.org/licenses/by-nc/2.0/"),
    (3, "Attribution-NonCommercial-NoDerivs License", "http://creativecommons.org/licenses/by-nc-nd/2.0/"),
    (4, "Attribution License", "http://creativecommons.org/licenses/by/2.0/"),
    (5, "Attribution-ShareAlike License", "http://creativecommons.org/licenses/by-sa/2.0/"),
    (6, "Attribution-NoDerivs License", "http://creativecommons.org/licenses/by-nd/2.0/"),
    (7, "No known copyright restrictions", "http://flickr.com/commons/usage/"),
    (8, "United States Government Work", "http://www.usa.gov/copyright.shtml"),
]
_NO_RESTRICTIONS = 7
_ID_RANGE = 999_983  # prime, so that multiples of any number below it scatter without collision
_SPLITS = ("train", "val", "test")


def file_head(description: str) -> dict[str, Any]:
    """The ``info`` and ``licenses`` of a file in COCO's or LVIS' format."""
    info = {
        "description": description,
        "url": "http://www.lvisdataset.org/",
        "version": "1.0",
        "year": 2019,
        "contributor": "procedural mini world",
        "date_created": "2019/09/27",
    }
    return {"info": info, "licenses": [{"id": i, "name": name, "url": url} for i, name, url in LICENSES]}


def image_id(split: str, index: int) -> int:
    """Id of the image number ``index`` of a split: scattered, unique over all splits, below 10^6."""
    number = len(_SPLITS) * index + _SPLITS.index(split)
    if number >= _ID_RANGE:
        raise ValueError(
            f"image {index} of {split}: the mini world has ids for {_ID_RANGE // len(_SPLITS)} images a split"
        )
    return 1 + (number * 271_829 + 31_415) % _ID_RANGE


def image_folder(split: str, index: int, version: str) -> str:
    """Folder of the image number ``index`` of a split: most val images of LVIS v1 are images of COCO's train2017."""
    return "train2017" if version == "v1" and split == "val" and index % 4 else f"{split}2017"


def base_record(split: str, index: int, size: int, version: str) -> dict[str, Any]:
    """What LVIS and COCO say alike about an image (without ``file_name``)."""
    number = image_id(split, index)
    return {
        "id": number,
        "width": size,
        "height": size,
        "license": _NO_RESTRICTIONS,
        "flickr_url": f"http://farm{number % 9 + 1}.staticflickr.com/mini/{number:010d}_z.jpg",
        "coco_url": f"http://images.cocodataset.org/{image_folder(split, index, version)}/{number:012d}.jpg",
        "date_captured": f"2013-11-{14 + number % 12} {number % 24:02d}:{number // 24 % 60:02d}:{number // 7 % 60:02d}",
    }


@dataclass(frozen=True)
class Labels:
    """LVIS labels of one picture."""

    annotated: list[int]  # positions in ``scene.objects`` of the annotated objects
    negative: list[int]  # 0-based categories verified to be absent, sorted
    not_exhaustive: list[int]  # 0-based annotated categories of which some objects are not annotated, sorted


def federate(
    scene: DrawnScene, vocabulary: MiniVocabulary, settings: MiniWorld, split: str, rng: np.random.Generator
) -> Labels:
    """Choose what LVIS says about ``scene``: it annotates some categories and verifies the absence of some others.

    A category is annotated with probability ``annotated_fraction``, and always if the picture was made for it.
    Categories with a cluster, and some others with several objects, are annotated in part and listed as not exhaustive.
    Only absent categories become negatives, those of a shape that is shown in another hue (siblings) more often.
    """
    absent, sibling = settings.verified_negative_fraction, settings.sibling_negative_fraction
    if split == "train":
        absent, sibling = settings.train_negative_fraction, settings.train_sibling_negative_fraction
    objects = scene.objects
    annotated: list[int] = []
    not_exhaustive: list[int] = []
    for key in sorted(scene.present):
        own = [k for k, item in enumerate(objects) if item.wish.key == key]
        certain = any(objects[k].wish.certain for k in own)
        if not (chance(rng, settings.annotated_fraction) or certain):
            continue
        clustered = any(objects[k].wish.group for k in own)
        if len(own) > 1 and (clustered or chance(rng, settings.not_exhaustive_fraction)):
            # The certain object stays; of the rest, at least one is left out.
            own.sort(key=lambda k: not objects[k].wish.certain)
            own = own[: max(1, len(own) // 2 if clustered else len(own) - 1)]
            not_exhaustive.append(key)
        annotated += own
    present = scene.present
    shapes = {vocabulary.categories[key].shape for key in present}
    negative = [
        category.key
        for category in vocabulary.categories
        if category.key not in present and chance(rng, sibling if category.shape in shapes else absent)
    ]
    return Labels(sorted(annotated), negative, not_exhaustive)


class LvisSplit:
    """Collects one LVIS split."""

    def __init__(self, split: str, settings: MiniWorld, vocabulary: MiniVocabulary, version: str) -> None:
        self.split, self.settings, self.vocabulary, self.version = split, settings, vocabulary, version
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def _record(self, index: int) -> dict[str, Any]:
        record = base_record(self.split, index, self.settings.image_size, self.version)
        if self.version == "v0.5":
            # Nearly a third of train2017 were val2014 images.
            former = "val" if self.split == "val" or (self.split == "train" and index % 10 in (3, 6, 8)) else self.split
            record["file_name"] = f"COCO_{former}2014_{record['id']:012d}.jpg"
        return record

    def add(self, index: int, scene: DrawnScene, labels: Labels | None) -> None:
        """Add image number ``index``; without labels (test) only its record."""
        record = self._record(index)
        self.images.append(record)
        if labels is None:
            return
        ids = [category.lvis_id for category in self.vocabulary.categories]
        record["neg_category_ids"] = [ids[key] for key in labels.negative]
        record["not_exhaustive_category_ids"] = [ids[key] for key in labels.not_exhaustive]
        size = self.settings.image_size
        for position in labels.annotated:
            item = scene.objects[position]
            assert item.wish.key is not None  # only objects of LVIS categories are annotated
            polygons = polygons_of(item.visible)
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": record["id"],
                    "category_id": ids[item.wish.key],
                    "segmentation": polygons,
                    "bbox": box_of(polygons),
                    "area": area_of(polygons, size, size),
                }
            )

    def counts(self) -> tuple[list[int], list[int]]:
        """Images with an annotation, and annotations, of each category by key."""
        count = len(self.vocabulary.categories)
        images: list[set[int]] = [set() for _ in range(count)]
        instances = [0] * count
        for annotation in self.annotations:
            key = annotation["category_id"] - 1
            images[key].add(annotation["image_id"])
            instances[key] += 1
        return [len(of_category) for of_category in images], instances

    def letters(self) -> list[str]:
        """r, c or f of each category by key, if this is the train split."""
        limits = self.settings.rare_max_images, self.settings.common_max_images
        return [frequency_letter(count, *limits) for count in self.counts()[0]]

    def content(self, train: LvisSplit) -> dict[str, Any]:
        """The file's content; frequencies come from ``train``."""
        letters = train.letters()
        images, instances = train.counts() if self.split == "test" else self.counts()
        categories = [
            {
                "id": category.lvis_id,
                "name": category.name,
                "synset": category.synset,
                "synonyms": category.synonyms,
                "def": category.definition,
                "frequency": letters[category.key],
                "image_count": images[category.key],
                "instance_count": instances[category.key],
            }
            for category in self.vocabulary.categories
        ]
        content = {**file_head(f"LVIS {self.version} {self.split}, mini world"), "images": self.images}
        if self.split != "test":
            content["annotations"] = self.annotations
        return {**content, "categories": categories}
