"""Which files a step reads and writes, from its command line and its recipe."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline_steps.data.expert_categories import expert_tables
from pipeline_steps.data.paths import DatasetPaths
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.detectors import detector_files

OUTPUT_OPTIONS = ("output", "list_only", "summary", "per_category", "csv", "zip", "picture", "page")
"""Options that name files which a step writes; the first gives the manifest its name."""

BESIDE = "beside"
"""Attribute of a parsed command line with further files that a step has left beside its output, to be recorded too."""


def written_files(arguments: argparse.Namespace) -> list[Path]:
    """Outputs on a command line that exist now; the main one first."""
    values = (getattr(arguments, name, None) for name in OUTPUT_OPTIONS)
    return [Path(value) for value in values if value and Path(value).exists()]


def _paths(value: Any) -> Iterator[Path]:
    """Paths in the value of an option: FILE, NAME=FILE, or a list of them."""
    if isinstance(value, str | Path):
        yield Path(value)
    elif isinstance(value, tuple) and len(value) == 2:
        yield from _paths(value[1])
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item)


def read_files(step: str, arguments: argparse.Namespace, recipe: Recipe | None) -> list[Path]:
    """Inputs on a command line, and those that the step finds through its recipe; only files that exist.

    Images are not among them: they are covered by the annotations that name them.
    """
    named = [
        path
        for option, value in vars(arguments).items()
        if option not in (*OUTPUT_OPTIONS, BESIDE, "recipe")
        for path in _paths(value)
    ]
    found = [*named, *(_recipe_files(step, arguments, recipe) if recipe else [])]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def _recipe_files(step: str, arguments: argparse.Namespace, recipe: Recipe) -> list[Path]:
    data = DatasetPaths(recipe)
    match step:
        case "train":
            return _training_files(recipe, arguments.model, data)
        case "predict_boxes":
            return [data.annotations(arguments.split), *map(Path, detector_files(recipe, arguments.model))]
        case "predict_masks":
            models = [path for name, _ in arguments.weights for path in detector_files(recipe, name)]
            return [data.annotations(arguments.split), *map(Path, models)]
        case "rescore_ensemble":
            return [data.coco_table, data.openimages_table, data.openimages_classes]
        case "evaluate":
            return expert_tables(recipe, arguments.expert) if arguments.expert else []
        case "index_coco_boxes":
            return [data.lvis_train, data.coco_train]
        case "select_openimages":
            tables = [data.openimages_boxes, data.openimages_labels, data.openimages_classes]
            tables += [data.openimages_hierarchy, data.openimages_rotation]
            if arguments.dataset == "openimages_own_train":
                return tables
            return [data.lvis_train, *tables, data.openimages_table]
        case "count_samples":
            return _training_files(recipe, arguments.model, data)
        case "convert_weights":
            return [Path(recipe.path(recipe.weights_entry(arguments.name).file))]
        case "draw_predictions":
            return [data.annotations(arguments.split)]
        case "plot" | "write_report":
            return [data.lvis_train, data.lvis_val, data.openimages_summary]
        case "compare_settings":
            return [data.lvis_train, data.lvis_val]
    return []


def _training_files(recipe: Recipe, name: str, data: DatasetPaths) -> list[Path]:
    model = recipe.model(name)
    files = [data.training_set(dataset) for dataset in model.datasets]
    if "coco_train" in model.datasets:  # less the images that LVIS tests on
        files += [data.lvis_val, data.lvis_test_info]
    if recipe.training_of(model).coco_ignore.enabled:
        files.append(data.coco_boxes_train)
    return [*files, *map(Path, detector_files(recipe, name))]
