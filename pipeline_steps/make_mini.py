"""Draw the mini world: a small procedural data set in the formats of LVIS, COCO and OpenImages.

    python -m pipeline_steps.make_mini --recipe config/mini.yaml --output datasets/mini

Settings are the recipe's data.mini. The four folders openimages/, coco/, categories/ and lvis/ are made beside the
final ones and put in place when all are complete; then mini_world.json is written, with the settings and a digest of
every folder. A run that finds it, with the same settings and undamaged folders, changes nothing (a new version of the
generator counts as other settings). Anything else below
the output (derived/ for example) is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline_steps import mini_world as mini
from pipeline_steps.common.atomic import atomic_directory, write_json
from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import folder_digest, read_json
from pipeline_steps.mini_world import PARTS, write_world
from pipeline_steps.recipe import Recipe, load_recipe
from pipeline_steps.run.data_files import MINI_WORLD, DatasetPaths

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Command line of this step."""
    parser = step_parser("make_mini", __doc__ or "")
    parser.add_argument("--recipe", required=True, type=Path, help="recipe file; its data.mini is used")
    parser.add_argument("--output", required=True, type=Path, help="folder of the data set (datasets_root)")
    return parser


def file_names(recipe: Recipe) -> dict[str, str]:
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


def generator_digest() -> str:
    """SHA-256 of the generator's source code and the versions of the libraries that its bytes depend on."""
    digest = hashlib.sha256(f"opencv {cv2.__version__} numpy {np.__version__}".encode())
    for path in sorted(Path(mini.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_complete(output: Path, settings: dict[str, Any]) -> bool:
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


def main(arguments: argparse.Namespace) -> None:
    """Draw the world of ``arguments.recipe`` into ``arguments.output``, unless it is there already."""
    recipe = load_recipe(arguments.recipe)
    output: Path = arguments.output
    for path in (output, *output.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"--output {output}: {path} is a file; give a folder (it is made if it does not exist)")
    settings = {
        "generator": generator_digest(),
        "lvis_version": recipe.lvis_version,
        **recipe.data.mini.model_dump(mode="json"),
    }
    if is_complete(output, settings):
        log.info("%s is complete and has the same settings: nothing to do", output)
        return
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # Left in reverse order: the last one entered is put in place first.
        folders = {part: stack.enter_context(atomic_directory(output / part)) for part in reversed(PARTS)}
        summary = write_world(recipe.data.mini, folders, file_names(recipe), recipe.lvis_version)
        (output / MINI_WORLD).unlink(missing_ok=True)
    digests = {part: folder_digest(output / part) for part in PARTS}
    write_json(output / MINI_WORLD, {"settings": settings, "folders": digests}, indent=2)
    log.info("%s: %s", output, summary)


if __name__ == "__main__":
    run_step(build_parser(), main)
