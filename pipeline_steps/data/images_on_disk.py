"""Images by the thousands: their numbers and sizes against what was noted when they came or were drawn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline_steps.common.files import folder_digest, read_json
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.data_files import DatasetPaths


def count_folder(folder: Path) -> dict[str, int]:
    """Number of files directly in a folder, hidden ones left out, and their bytes."""
    if not folder.is_dir():
        return {"files": 0, "bytes": 0}
    with os.scandir(folder) as entries:
        sizes = [entry.stat().st_size for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    return {"files": len(sizes), "bytes": sum(sizes)}


def count_files(files: Iterable[Path]) -> dict[str, int]:
    """Number of those files that exist, and their bytes."""
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _difference(found: Mapping[str, int], noted: Mapping[str, int], remedy: str) -> str:
    if all(found[key] == noted[key] for key in ("files", "bytes")):
        return ""
    counts = f"{found['files']} images of {found['bytes']} bytes instead of {noted['files']} of {noted['bytes']}"
    return f"{counts}: {remedy}"


def image_problems(recipe: Recipe, start: str) -> dict[Path, str]:
    """Folders of images that are not as they were, and what to do; what has not come yet is not looked at.

    Of downloaded images, the number and the sum of the sizes are compared; the small mini world is read. ``start`` is
    how the workflow is started.
    """
    paths = DatasetPaths(recipe)
    problems: dict[Path, str] = {}
    if recipe.data.source == "mini":
        folders = read_json(paths.mini_world)["folders"] if paths.mini_world.is_file() else {}
        for part, digest in folders.items():
            if folder_digest(paths.root / part) != digest:
                problems[paths.root / part] = f"has changed since it was drawn: {start} -R make_mini -- all"
        return problems
    if paths.coco_images_manifest.is_file():
        for name, noted in read_json(paths.coco_images_manifest)["folders"].items():
            remedy = f"put them back, or delete the folder and {paths.coco_images_manifest}, then {start} -- data"
            problems[paths.root / name] = _difference(count_folder(paths.root / name), noted, remedy)
    for ids in (paths.openimages_ids, paths.openimages_own_ids):
        manifest = paths.manifest(ids.with_suffix(""))
        noted = read_json(manifest) if manifest.is_file() and ids.is_file() else {}
        if "bytes" in noted:  # not in those of earlier versions
            names = (Path(line).name for line in ids.read_text(encoding="utf-8").split())
            files = [paths.openimages_images / f"{name}.jpg" for name in names if name not in noted["failed"]]
            noted = {"files": noted["images"] - len(noted["failed"]), "bytes": noted["bytes"]}
            remedy = f"put them back, or delete {manifest}, then {start} -- data"
            if difference := _difference(count_files(files), noted, remedy):
                problems[paths.openimages_images] = f"of those in {ids.name}, {difference}"
    return {folder: problem for folder, problem in problems.items() if problem}
