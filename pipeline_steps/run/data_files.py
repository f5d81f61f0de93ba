"""The one place that knows how files are named below ``datasets_root``; the same for real data and mini world."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.load import shipped_or_own
from pipeline_steps.run.result_files import results_folder

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
    own = results_folder(recipe) / "data"
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
        self.recipe = recipe
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
        self.openimages_images_manifest = self.manifest(self.openimages_ids.with_suffix(""))
        self.openimages_train = derived / "openimages_lvis.json"
        self.openimages_summary = derived / "openimages_summary.csv"
        # OpenImages in its own classes is the same for every LVIS release.
        self.openimages_own_ids = self.made_root / "derived" / "openimages_own_ids.txt"
        self.openimages_own_images_manifest = self.manifest(self.openimages_own_ids.with_suffix(""))
        self.openimages_own_train = self.made_root / "derived" / "openimages_own.json"
        self.openimages_own_summary = self.made_root / "derived" / "openimages_own_summary.csv"
        self.coco_table = shipped_or_own(recipe.path(recipe.data.coco_to_lvis))
        self.openimages_table = shipped_or_own(recipe.path(recipe.data.openimages_to_lvis))
        self.parents = shipped_or_own(recipe.path(recipe.data.parents))

    def manifest(self, file: Path) -> Path:
        """Manifest of the check of a data file (or list of images) that is below ``root`` or ``made_root``."""
        root = self.root if file.is_relative_to(self.root) else self.made_root
        return self.manifests / f"{file.relative_to(root)}.json"

    def annotations(self, split: Literal["train", "val", "test"]) -> Path:
        """LVIS annotations (train, val) or image information (test) of a split."""
        return {"train": self.lvis_train, "val": self.lvis_val, "test": self.lvis_test_info}[split]

    def training_set(self, name: str) -> Path:
        """Annotation file of a training set named as in the recipe's ``datasets``."""
        sets = ("lvis_train", "coco_train", "openimages_train", "openimages_own_train")
        return {each: getattr(self, each) for each in sets}[name]

    def image_path(self, image: ImageName | Mapping[str, Any]) -> Path:
        """Where the file of an image record lies, see :func:`find_image`."""
        return find_image(self.root, image)

    # What jobs read. What a user has put below datasets_root, and what an earlier run has downloaded, is no rule's
    # output: it is checked, and never replaced. Manifests say what was found; the mini world needs none.

    @property
    def downloaded(self) -> bool:
        """Whether data come from elsewhere; else they are drawn."""
        return self.recipe.data.source == "download"

    def checked(self, *files: Path) -> list[Path]:
        """Data files, and the manifests of their checks."""
        return [*files, *self.noted(*map(self.manifest, files))]

    def noted(self, *manifests: Path) -> list[Path]:
        """Manifests, where there are any."""
        return list(manifests) if self.downloaded else []

    @property
    def openimages_tables(self) -> list[Path]:
        """What OpenImages publishes and its selections read."""
        tables = [self.openimages_boxes, self.openimages_labels, self.openimages_classes, self.openimages_hierarchy]
        return [*tables, *([self.openimages_rotation] if self.recipe.data.openimages.skip_rotated else [])]

    @property
    def category_tables(self) -> list[Path]:
        """What members' categories are matched with; some experts' category ids are the places of classes in a list."""
        mapped = set(self.recipe.expert_vocabularies.values()) - {"coco"}
        return [self.coco_table, self.openimages_table, *([self.openimages_classes] if mapped else [])]

    def for_training_on(self, name: str) -> list[Path]:
        """Files of a training set, and the manifests of its images."""
        if name == "openimages_train":
            return [self.openimages_train, *self.checked(self.lvis_train)]  # LVIS numbers its categories
        if name == "openimages_own_train":
            return [self.openimages_own_train]
        # COCO is trained on less what LVIS tests on.
        tested = [self.lvis_val, self.lvis_test_info] if name == "coco_train" else []
        return [*self.checked(self.training_set(name), *tested), *self.noted(self.coco_images_manifest)]

    def for_training(self, name: str) -> list[Path]:
        """Files that the training of the model ``name`` reads."""
        model = self.recipe.model(name)
        files = [file for dataset in model.datasets for file in self.for_training_on(dataset)]
        if self.recipe.training_of(model).coco_ignore.enabled and "lvis_train" in model.datasets:
            files.append(self.coco_boxes_train)
        return list(dict.fromkeys(files))

    def for_testing(self, split: Literal["val", "test"]) -> list[Path]:
        """Files that the testing of a split reads."""
        return [*self.checked(self.annotations(split)), *self.noted(self.coco_images_manifest)]

    def everything(self) -> list[Path]:
        """What the target ``data`` makes."""
        recipe = self.recipe
        used = {name for model in recipe.trained for name in model.datasets}
        sets = ["lvis_train", "coco_train"]
        sets += ["openimages_train"] if recipe.data.openimages.enabled else []
        sets += ["openimages_own_train"] if "openimages_own_train" in used else []
        return [
            *(file for name in sets for file in self.for_training_on(name)),
            self.coco_boxes_train,
            *(self.checked(self.coco_val) if "coco" in recipe.expert_vocabularies.values() else []),
            *self.for_testing("val"),
            *self.for_testing("test"),
        ]
