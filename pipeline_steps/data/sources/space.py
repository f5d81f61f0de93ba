"""What is still to be fetched of the sources, and how much room it takes on the disk."""

from __future__ import annotations

from pathlib import Path

from pipeline_steps.data.sources.source import Source, read_sources
from pipeline_steps.recipe import Recipe

TRAIN_IMAGES = 1_743_042
"""Train images with boxes."""
BYTES_PER_IMAGE = 310_000
"""Mean size of a train image: the 16 archives of all of them have 539 GB."""
UNPACKED_RATIO = {"coco_images": 1.02, "coco_annotations": 3.4, "lvis": 4.0}
"""Unpacked size of a group's archives as a multiple of their own: JPEG does not shrink, JSON does."""


def most_images(recipe: Recipe) -> int:
    """Images that the selections of a recipe have at most; the two may share some."""
    most = recipe.data.openimages.max_images if recipe.data.openimages.enabled else 0
    if any("openimages_own_train" in expert.datasets for expert in recipe.experts):
        most += recipe.data.openimages_own.max_images or TRAIN_IMAGES
    return min(most, TRAIN_IMAGES)


def used_sources(recipe: Recipe) -> list[Source]:
    """Sources that a recipe asks for: of its LVIS release, OpenImages where it is enabled, weights that it names."""
    weights = [Path(recipe.path(entry.file)) for entry in recipe.weights]
    return [
        source
        for source in read_sources(recipe.data.download.sources)
        if source.lvis_version in ("", recipe.lvis_version)
        and (source.group != "weights" or Path(recipe.datasets_root, source.file) in weights)
        and (recipe.data.openimages.enabled or not source.group.startswith("openimages"))
    ]


def part_of(target: Path) -> Path:
    """Name of the unfinished file of ``target``."""
    return target.with_name(f".{target.name}.part")


def is_absent(target: Path) -> bool:
    if target.is_symlink():
        return False
    return not target.exists() or (target.is_dir() and not any(target.iterdir()))


def absent_targets(source: Source, root: Path) -> list[Path]:
    """Files and folders of a source that are not there; what is there is not looked into."""
    return [target for target in source.targets(root) if is_absent(target)]


def bytes_to_fetch(source: Source, root: Path) -> int:
    """Bytes that still have to be fetched, at most; 0 where nothing is known of the size, or if the file is there."""
    if (root / source.file).exists():
        return 0
    part = part_of(root / source.file)
    have = part.stat().st_size if part.exists() else 0
    return max(0, source.planned_bytes - have)


def unpacked_bytes(source: Source) -> int:
    """Bytes of what is unpacked of an archive; 0 for a source that is none."""
    return round(source.planned_bytes * UNPACKED_RATIO.get(source.group, 1.0)) if source.unpack_into else 0


def space_needed(missing: list[Source], root: Path) -> int:
    """Bytes of disk that fetching and unpacking ``missing`` takes, with the archives still there."""
    return sum(bytes_to_fetch(source, root) + unpacked_bytes(source) for source in missing)
