"""The mini world of a recipe: plans, draws and labels every picture, writes all files, each part put in place whole."""

from __future__ import annotations

import hashlib
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline_steps.common.atomic import atomic_directory, write_json
from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import folder_digest, read_json
from pipeline_steps.common.progress import Progress
from pipeline_steps.mini_world.coco_format import CocoSplit
from pipeline_steps.mini_world.lvis_format import Labels, LvisSplit, federate, image_folder, image_id
from pipeline_steps.mini_world.openimages_format import (
    Annotator,
    ImageLabels,
    OpenImagesFiles,
    draw_rotation,
    image_name,
    write_category_tables,
)
from pipeline_steps.mini_world.plan import plan_openimages, plan_split
from pipeline_steps.mini_world.randomness import stream
from pipeline_steps.mini_world.scene import DrawnScene, draw_scene
from pipeline_steps.mini_world.vocabulary import MiniVocabulary, build_vocabulary
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.data import MiniWorld
from pipeline_steps.run.data_files import MINI_WORLD, DatasetPaths

log = logging.getLogger(__name__)

PARTS = ("openimages", "coco", "categories", "lvis")
"""Folders of a world, in the order in which they are put in place: what names the others comes last."""


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of an RGB image, colour at full resolution (hue is what tells categories apart).

    The bytes depend on the libjpeg-turbo inside OpenCV, whose version the lock file fixes.
    """
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, *full_colour]
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
        return federate(scene, self.vocabulary, self.settings, split, rng)

    def openimages_labels(self, index: int, scene: DrawnScene) -> ImageLabels:
        """OpenImages labels of an OpenImages picture."""
        return self._annotator.label(scene, stream(self.settings.seed, "labels", "openimages", index))


def write_world(recipe: Recipe, folders: dict[str, Path]) -> str:
    """Draw the world of a recipe and write all its files into existing empty folders, one for each of ``PARTS``.

    Returns:
        Its figures, for the log.

    Raises:
        UserError: a category ended up without an annotated train image.
    """
    settings, version, paths = recipe.data.mini, recipe.lvis_version, DatasetPaths(recipe)
    world = World(settings)
    images = sum(map(world.count, ("train", "val", "test", "openimages")))
    progress = Progress("drawing the mini world", images, "images")
    lvis = {split: LvisSplit(split, settings, world.vocabulary, version) for split in ("train", "val", "test")}
    coco = {f"{name}2017": CocoSplit(name, settings.image_size, world.vocabulary, version) for name in ("train", "val")}
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
    for path, instances in zip((paths.coco_train, paths.coco_val), coco.values(), strict=True):
        write_json(folders["coco"] / "annotations" / path.name, instances.content())
    _require_all_categories(lvis["train"])
    for path, collected in zip((paths.lvis_train, paths.lvis_val, paths.lvis_test_info), lvis.values(), strict=True):
        write_json(folders["lvis"] / path.name, collected.content(lvis["train"]))

    openimages = OpenImagesFiles(world.vocabulary)
    _write_openimages(world, openimages, folders["openimages"] / "train", progress)
    openimages.write(folders["openimages"], paths)
    write_category_tables(world.vocabulary, folders["categories"])
    letters = lvis["train"].letters()
    return (
        f"{' / '.join(f'{letters.count(letter)} {letter}' for letter in 'rcf')} categories; "
        f"{len(lvis['train'].annotations)} train and {len(lvis['val'].annotations)} val annotations "
        f"(at least {min(lvis['val'].counts()[1])} val instances of each category); "
        f"{len(openimages.boxes)} OpenImages boxes"
    )


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


def _generator_digest() -> str:
    """SHA-256 of the generator's source code and the versions of the libraries that its bytes depend on."""
    digest = hashlib.sha256(f"opencv {cv2.__version__} numpy {np.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_complete(output: Path, settings: dict[str, Any]) -> bool:
    """Whether ``output`` holds the world of these settings, undamaged."""
    manifest = output / MINI_WORLD
    if not manifest.is_file():
        return False
    try:
        found = read_json(manifest)
    except UserError:
        return False
    if not isinstance(found, dict) or found.get("settings") != settings:
        return False
    return found.get("folders") == {part: folder_digest(output / part) for part in PARTS}


def make_mini(recipe: Recipe, output: Path) -> None:
    """Draw the world of the recipe into ``output``, unless it is there already, undamaged and with its settings.

    Raises:
        UserError: ``output`` is no folder; a category ended up without an annotated train image.
    """
    for path in (output, *output.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"--output {output}: {path} is a file; give a folder (it is made if it does not exist)")
    about = {"generator": _generator_digest(), "lvis_version": recipe.lvis_version}
    settings = about | recipe.data.mini.model_dump(mode="json")
    if _is_complete(output, settings):
        log.info("%s is complete and has the same settings: nothing to do", output)
        return
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # Left in reverse order: the last one entered is put in place first.
        folders = {part: stack.enter_context(atomic_directory(output / part)) for part in reversed(PARTS)}
        summary = write_world(recipe, folders)
        (output / MINI_WORLD).unlink(missing_ok=True)
    digests = {part: folder_digest(output / part) for part in PARTS}
    write_json(output / MINI_WORLD, {"settings": settings, "folders": digests}, indent=2)
    log.info("%s: %s", output, summary)
