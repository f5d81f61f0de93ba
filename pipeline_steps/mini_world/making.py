"""The mini world of a recipe below its folder: drawn unless it is there already, each part put in place whole."""

from __future__ import annotations

import hashlib
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline_steps.common.atomic import atomic_directory, write_json
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import folder_digest, read_json
from pipeline_steps.mini_world.world import PARTS, write_world
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.data_files import MINI_WORLD, DatasetPaths

log = logging.getLogger(__name__)


def _file_names(recipe: Recipe) -> dict[str, str]:
    """Names of the annotation files inside their folders, as the rest of the pipeline expects them."""
    paths = DatasetPaths(recipe)
    files = {
        "lvis_train": paths.lvis_train,
        "lvis_val": paths.lvis_val,
        "lvis_test": paths.lvis_test_info,
        "coco_train": paths.coco_train,
        "coco_val": paths.coco_val,
        "boxes": paths.openimages_boxes,
        "labels": paths.openimages_labels,
        "classes": paths.openimages_classes,
        "hierarchy": paths.openimages_hierarchy,
        "images": paths.openimages_rotation,
    }
    return {key: path.name for key, path in files.items()}


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
    settings = {
        "generator": _generator_digest(),
        "lvis_version": recipe.lvis_version,
        **recipe.data.mini.model_dump(mode="json"),
    }
    if _is_complete(output, settings):
        log.info("%s is complete and has the same settings: nothing to do", output)
        return
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # Left in reverse order: the last one entered is put in place first.
        folders = {part: stack.enter_context(atomic_directory(output / part)) for part in reversed(PARTS)}
        summary = write_world(recipe.data.mini, folders, _file_names(recipe), recipe.lvis_version)
        (output / MINI_WORLD).unlink(missing_ok=True)
    digests = {part: folder_digest(output / part) for part in PARTS}
    write_json(output / MINI_WORLD, {"settings": settings, "folders": digests}, indent=2)
    log.info("%s: %s", output, summary)
