"""The one place that knows how files are named below ``datasets_root``; the same for real data and mini world."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.load import CONFIG_FOLDER

_LVIS_FILES = {
    "v0.5": ("lvis_v0.5_train.json", "lvis_v0.5_val.json", "lvis_v0.5_image_info_test.json"),
    "v1": ("lvis_v1_train.json", "lvis_v1_val.json", "lvis_v1_image_info_test_dev.json"),
}

MINI_WORLD = "mini_world.json"
"""File below ``datasets_root`` with settings and digests of a mini world."""


class ImageName(Protocol):
    """What an image record says about its file (:class:`pipeline_steps.data.records.ImageRecord`)."""

    id: int
    coco_url: str
    file_name: str


def find_image(root: str | Path, image: ImageName | Mapping[str, Any]) -> Path:
    """Path of an image record of LVIS, COCO or the derived OpenImages file.

    LVIS and COCO images lie under ``coco/`` by the last two parts of ``coco_url``: the ``file_name`` of LVIS v0.5 has
    the 2014 form, v1 has none, and v1 val has images in train2017. OpenImages records give ``file_name`` relative to
    ``root``.

    Raises:
        UserError: the record has neither a usable ``coco_url`` nor a ``file_name`` with a folder.
    """
    if isinstance(image, Mapping):
        url, name, image_id = image.get("coco_url") or "", image.get("file_name") or "", image.get("id")
    else:
        url, name, image_id = image.coco_url, image.file_name, image.id
    if url:
        parts = PurePosixPath(urlsplit(url).path).parts[-2:]
        if len(parts) == 2 and parts[0] not in ("/", "..") and parts[1] != "..":
            return Path(root, "coco", *parts)
    relative = PurePosixPath(name)
    if len(relative.parts) > 1 and not relative.is_absolute() and ".." not in relative.parts:
        return Path(root, relative)
    raise UserError(
        f"image {image_id}: coco_url {url!r} and file_name {name!r} do not say where the file is; expected a "
        "coco_url that ends in <folder>/<name>, or a file_name below datasets_root such as openimages/train/<id>.jpg"
    )


def is_writable(folder: Path) -> bool:
    """Whether files can be made in ``folder``, which may have to be made itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _made_root(recipe: Recipe, root: Path) -> Path:
    """Folder of what is made from the data: as the recipe says, else below ``datasets_root`` unless that is read-only.

    A choice once made stays: what is there already is used, so that a change of permissions makes nothing run again.
    """
    if recipe.data.derived_root:
        return Path(recipe.path(recipe.data.derived_root))
    own = Path("results", recipe.name, "data")
    if own.is_dir():
        return own
    made = any((root / name).is_dir() for name in ("manifests", "derived", "derived_v1"))
    return root if made or is_writable(root) else own


class DatasetPaths:
    """Names of all files of the data stage for one recipe.

    Attributes:
        root: ``datasets_root``: what is downloaded or put there; may be read-only.
        made_root: where ``derived`` files and ``manifests`` of checks are, see ``data.derived_root``.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.root = Path(recipe.datasets_root)
        train, val, test = _LVIS_FILES[recipe.lvis_version]
        self.lvis_train = self.root / "lvis" / train
        self.lvis_val = self.root / "lvis" / val
        self.lvis_test_info = self.root / "lvis" / test
        self.coco_root = self.root / "coco"
        self.coco_train = self.coco_root / "annotations" / "instances_train2017.json"
        self.coco_val = self.coco_root / "annotations" / "instances_val2017.json"
        self.made_root = _made_root(recipe, self.root)
        self.manifests = self.made_root / "manifests"
        # Both LVIS releases can share a root: what is made from one is not overwritten by the other.
        derived = self.made_root / ("derived" if recipe.lvis_version == "v0.5" else f"derived_{recipe.lvis_version}")
        self.coco_boxes_train = derived / "coco_boxes_train.json"
        self.openimages_root = self.root / "openimages"
        self.openimages_images = self.openimages_root / "train"
        self.openimages_boxes = self.openimages_root / "oidv6-train-annotations-bbox.csv"
        self.openimages_labels = self.openimages_root / "train-annotations-human-imagelabels-boxable.csv"
        self.openimages_classes = self.openimages_root / "class-descriptions-boxable.csv"
        self.openimages_hierarchy = self.openimages_root / "bbox_labels_600_hierarchy.json"
        self.openimages_rotation = self.openimages_root / "train-images-boxable-with-rotation.csv"
        self.openimages_ids = derived / "openimages_ids.txt"
        self.mini_world = self.root / MINI_WORLD
        self.coco_images_manifest = self.manifests / "coco_images.json"
        self.openimages_train = derived / "openimages_lvis.json"
        self.openimages_summary = derived / "openimages_summary.csv"
        # OpenImages in its own classes is the same for every LVIS release.
        self.openimages_own_ids = self.made_root / "derived" / "openimages_own_ids.txt"
        self.openimages_own_train = self.made_root / "derived" / "openimages_own.json"
        self.openimages_own_summary = self.made_root / "derived" / "openimages_own_summary.csv"
        self.coco_table = self._table(recipe, recipe.data.coco_to_lvis)
        self.openimages_table = self._table(recipe, recipe.data.openimages_to_lvis)

    @staticmethod
    def _table(recipe: Recipe, text: str) -> Path:
        """A category table; tables of config/ are found from any working folder."""
        path = Path(recipe.path(text))
        beside_config = CONFIG_FOLDER.parent / path
        return beside_config if not path.exists() and beside_config.exists() else path

    def manifest(self, file: Path) -> Path:
        """Manifest of the check of a data file (or list of images) that is below ``root`` or ``made_root``."""
        root = self.root if file.is_relative_to(self.root) else self.made_root
        return self.manifests / f"{file.relative_to(root)}.json"

    def annotations(self, split: Literal["train", "val", "test"]) -> Path:
        """LVIS annotations (train, val) or image information (test) of a split."""
        return {"train": self.lvis_train, "val": self.lvis_val, "test": self.lvis_test_info}[split]

    def training_set(self, name: str) -> Path:
        """Annotation file of a training set named as in the recipe's ``datasets``."""
        return {
            "lvis_train": self.lvis_train,
            "coco_train": self.coco_train,
            "openimages_train": self.openimages_train,
            "openimages_own_train": self.openimages_own_train,
        }[name]

    def image_path(self, image: ImageName | Mapping[str, Any]) -> Path:
        """Where the file of an image record lies, see :func:`find_image`."""
        return find_image(self.root, image)
