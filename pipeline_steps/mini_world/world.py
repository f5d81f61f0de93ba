"""The whole mini world: plans, draws and labels every picture, and writes all files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline_steps.common.atomic import write_json
from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.progress import Progress
from pipeline_steps.mini_world.coco_format import CocoSplit
from pipeline_steps.mini_world.federation import Labels, Rates, federate
from pipeline_steps.mini_world.lvis_format import LvisSplit, image_folder, image_id
from pipeline_steps.mini_world.openimages_format import (
    OpenImagesFiles,
    draw_rotation,
    image_name,
    write_category_tables,
)
from pipeline_steps.mini_world.openimages_labels import Annotator, ImageLabels
from pipeline_steps.mini_world.plan import plan_openimages, plan_split
from pipeline_steps.mini_world.randomness import stream
from pipeline_steps.mini_world.scene import DrawnScene, draw_scene
from pipeline_steps.mini_world.vocabulary import MiniVocabulary, build_vocabulary
from pipeline_steps.recipe.data import MiniWorld

PARTS = ("openimages", "coco", "categories", "lvis")
"""Folders of a world, in the order in which they are put in place: what names the others comes last."""


@dataclass(frozen=True)
class Summary:
    """Figures of a finished world. ``letters``: number of rare, common and frequent categories."""

    letters: dict[str, int]
    train_annotations: int
    val_annotations: int
    least_val_instances: int
    openimages_boxes: int

    def __str__(self) -> str:
        letters = " / ".join(f"{self.letters[letter]} {letter}" for letter in "rcf")
        return (
            f"{letters} categories; {self.train_annotations} train and {self.val_annotations} val annotations "
            f"(at least {self.least_val_instances} val instances of each category); "
            f"{self.openimages_boxes} OpenImages boxes"
        )


def split_rates(settings: MiniWorld, split: str) -> Rates:
    """Probabilities of the federated labels of a split."""
    train = split == "train"
    return Rates(
        annotated=settings.annotated_fraction,
        not_exhaustive=settings.not_exhaustive_fraction,
        negative=settings.train_negative_fraction if train else settings.verified_negative_fraction,
        sibling_negative=settings.train_sibling_negative_fraction if train else settings.sibling_negative_fraction,
    )


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of an RGB image, colour at full resolution (hue is what tells categories apart).

    The bytes depend on the libjpeg-turbo inside OpenCV, whose version the lock file fixes.
    """
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, content = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG image")
    return content.tobytes()


class World:
    """Draws and labels the pictures of a world; every picture by itself, from random streams of its own."""

    def __init__(self, settings: MiniWorld) -> None:
        self.settings = settings
        self.vocabulary: MiniVocabulary = build_vocabulary(settings)
        self._annotator = Annotator(self.vocabulary, settings.image_size)
        self._plans = {split: plan_split(settings, self.vocabulary, split) for split in ("train", "val", "test")}
        self._plans["openimages"] = plan_openimages(settings, self.vocabulary)

    def count(self, split: str) -> int:
        """Number of images of train, val, test or openimages."""
        return len(self._plans[split])

    def scene(self, split: str, index: int) -> DrawnScene:
        """Picture number ``index`` of a split."""
        settings = self.settings
        rng = stream(settings.seed, "scene", split, index)
        sizes = settings.smallest_object, settings.largest_object
        return draw_scene(rng, self._plans[split][index], settings.image_size, settings.hue_jitter, sizes)

    def federated_labels(self, split: str, index: int, scene: DrawnScene) -> Labels:
        """LVIS labels of a train or val picture."""
        rng = stream(self.settings.seed, "labels", split, index)
        return federate(scene, self.vocabulary, split_rates(self.settings, split), rng)

    def openimages_labels(self, index: int, scene: DrawnScene) -> ImageLabels:
        """OpenImages labels of an OpenImages picture."""
        return self._annotator.label(scene, stream(self.settings.seed, "labels", "openimages", index))


def write_world(settings: MiniWorld, folders: dict[str, Path], names: dict[str, str], version: str) -> Summary:
    """Draw a world and write all its files.

    Args:
        settings: the world's settings.
        folders: existing empty folders for each of ``PARTS``.
        names: file names, see :mod:`pipeline_steps.mini_world.making`.
        version: LVIS version whose format is written.

    Raises:
        UserError: a category ended up without an annotated train image.
    """
    world = World(settings)
    progress = Progress(
        "drawing the mini world", sum(map(world.count, ("train", "val", "test", "openimages"))), "images"
    )
    lvis = {split: LvisSplit(split, settings, world.vocabulary, version) for split in ("train", "val", "test")}
    coco = {
        f"{split}2017": CocoSplit(split, settings.image_size, world.vocabulary, version) for split in ("train", "val")
    }
    for split, collected in lvis.items():
        (folders["coco"] / f"{split}2017").mkdir()
        for index in range(world.count(split)):
            scene = world.scene(split, index)
            content = encode_jpeg(scene.image, settings.jpeg_quality)
            folder = image_folder(split, index, version)
            (folders["coco"] / folder / f"{image_id(split, index):012d}.jpg").write_bytes(content)
            collected.add(index, scene, None if split == "test" else world.federated_labels(split, index, scene))
            if split != "test":
                coco[folder].add(split, index, scene)
            progress.advance()
    for instances in coco.values():
        write_json(folders["coco"] / "annotations" / names[f"coco_{instances.split}"], instances.content())
    _require_all_categories(lvis["train"])
    for split, collected in lvis.items():
        write_json(folders["lvis"] / names[f"lvis_{split}"], collected.content(lvis["train"]))

    openimages = OpenImagesFiles(world.vocabulary)
    _write_openimages(world, openimages, folders["openimages"] / "train", progress)
    openimages.write(folders["openimages"], names)
    write_category_tables(world.vocabulary, folders["categories"])
    return _summary(lvis, len(openimages.boxes))


def _write_openimages(world: World, files: OpenImagesFiles, folder: Path, progress: Progress) -> None:
    folder.mkdir()
    settings = world.settings
    for index in range(world.count("openimages")):
        scene = world.scene("openimages", index)
        labels = world.openimages_labels(index, scene)
        rotation = draw_rotation(settings.seed, index)
        quarters = (rotation or 0) // 90
        # Stored lying on its side; boxes hold for the file as it is stored.
        jpeg = encode_jpeg(np.rot90(scene.image, -quarters), settings.jpeg_quality)
        labels = ImageLabels([box.turned(quarters) for box in labels.boxes], labels.verified)
        name = image_name(settings.seed, index)
        (folder / f"{name}.jpg").write_bytes(jpeg)
        files.add(name, labels, jpeg, rotation)
        progress.advance()


def _require_all_categories(train: LvisSplit) -> None:
    missing = [
        category.name
        for category, count in zip(train.vocabulary.categories, train.counts()[0], strict=True)
        if not count
    ]
    if missing:
        raise UserError(
            f"no train image of the mini world has an annotation of {len(missing)} categories: {listing(missing)}; "
            "raise data.mini.train_images or lower data.mini.shapes or data.mini.hues"
        )


def _summary(lvis: dict[str, LvisSplit], boxes: int) -> Summary:
    letters = lvis["train"].letters()
    return Summary(
        {letter: letters.count(letter) for letter in "rcf"},
        len(lvis["train"].annotations),
        len(lvis["val"].annotations),
        min(lvis["val"].counts()[1]),
        boxes,
    )
