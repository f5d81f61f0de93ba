"""Disk that a recipe takes: data, archives while they are unpacked, checkpoints, tables, submission. In bytes,
rounded up.

Sizes of archives are those of ``data.download.sources``, or the most that they can be. Nothing is subtracted for what
is on the disk already.
"""

from dataclasses import dataclass

from pipeline_steps.data.sources.space import BYTES_PER_IMAGE, most_images, unpacked_bytes, used_sources
from pipeline_steps.estimates.sizes import split_images
from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.run.result_files import ResultFiles

MINI_IMAGE = 12_000
"""Bytes of an image of the mini world."""
BOX_ROW, MASK_ROW, SUBMISSION_ROW = 36, 144, 520
"""Bytes of a detection in a table of boxes, in one with masks (216 MB for 1.5 million), and in a results file (771
MB)."""
KEPT_CHECKPOINTS = 3
"""Two, and a third while it is written (``training/checkpoint.py``)."""


@dataclass(frozen=True)
class Disk:
    """Bytes of disk."""

    data: int  # images, annotations and weights, unpacked
    unpacking: int  # archives that are there for a time besides
    checkpoints: int  # of trainings; removed when each ends, counted as if all ran at once
    results: int  # final models, tables of detections, submission and its zip

    @property
    def total(self) -> int:
        """All of it at once."""
        return self.data + self.unpacking + self.checkpoints + self.results


def data_bytes(recipe: Recipe) -> tuple[int, int]:
    """Bytes of the data, and of archives while they are unpacked."""
    if recipe.data.source == "mini":
        mini = recipe.data.mini
        images = mini.train_images + mini.val_images + mini.test_images + mini.openimages_images
        return images * MINI_IMAGE, 0
    files = [source for source in used_sources(recipe) if source.group != "openimages_images"]
    data = sum(unpacked_bytes(source) if source.unpack_into else source.planned_bytes for source in files)
    archives = sum(source.planned_bytes for source in files if source.unpack_into)
    return data + most_images(recipe) * BYTES_PER_IMAGE, archives


def table_bytes(recipe: Recipe) -> int:
    """Bytes of all tables of detections and of the submission, with every image's table full."""
    images = split_images(recipe)
    boxes = sum(images.values()) * recipe.testing.keep_per_image * len(ResultFiles(recipe).predicted) * BOX_ROW
    merged = {split: count * getattr(recipe.ensemble.keep_per_image, split) for split, count in images.items()}
    masks = (images["val"] * len(recipe.models) * recipe.testing.keep_per_image + sum(merged.values())) * MASK_ROW
    submission = images["test"] * recipe.evaluation.max_detections * SUBMISSION_ROW
    return boxes + masks + submission * 4 // 3  # and its zip
