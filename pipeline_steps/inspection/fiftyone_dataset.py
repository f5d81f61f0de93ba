"""A FiftyOne data set of one split: ground truth and any model's predictions, with verdicts, colours and saved views.

Labels carry tags such as ``true@0.5`` (matched at IoU 0.5), ``false@0.75``, ``ignored@0.5`` and ``unjudged@0.5``, and
objects of the ground truth ``missed@0.5:NAME`` for each model that does not find them. Their ``verdict`` is the one at
IoU 0.5; the app colours by it. Verdicts are those of the official evaluator. Wrong detections have TIDE's ``error``,
and what they are ``confused_with`` if it is the category; each error of each model has a view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_steps.analysis.scenes import MISSED, SceneReader
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.progress import Progress
from pipeline_steps.data.lvis import LvisDataset
from pipeline_steps.evaluation.errors import ERRORS
from pipeline_steps.evaluation.matching import FALSE, IGNORED, TRUE, UNJUDGED
from pipeline_steps.inspection.documents import (
    FOUND,
    FOUND_BY_SOME,
    IOU_THRESHOLDS,
    TRUTH,
    UNEXPLAINED,
    field_name,
    image_document,
    pattern_sample,
)
from pipeline_steps.run.data_files import DatasetPaths

if TYPE_CHECKING:
    import fiftyone as fo

HIGH_SCORE = 0.5  # score from which a wrong detection is in the view of confident mistakes

COLOURS = {
    TRUE: "#009e73",
    FOUND: "#009e73",
    FOUND_BY_SOME: "#e69f00",
    FALSE: "#d55e00",
    MISSED: "#d55e00",
    IGNORED: "#999999",
    UNJUDGED: "#56b4e9",
}
"""Colour of each verdict (Okabe and Ito's, which colour-blind people tell apart)."""

OPACITY = 0.3  # of masks: thin enough to see the object below

_BATCH = 64


def _save_views(data: fo.Dataset, models: Sequence[str]) -> None:
    """Views with the fields that they are about; the app lets others be added."""
    from fiftyone import ViewField as F

    for model in models:
        name = field_name(model)
        missed = F("tags").contains([f"{MISSED}@{IOU_THRESHOLDS[0]:g}:{model}"])
        rare = data.filter_labels(TRUTH, (F("frequency") == "rare") & missed)
        data.save_view(
            f"rare misses: {model}",
            rare.select_fields([TRUTH, name, f"{name}_missed"]),
            description="Rare objects that no detection matches at IoU 0.5, with what was predicted instead",
        )
        wrong = F("tags").contains([f"{FALSE}@{IOU_THRESHOLDS[0]:g}"]) & (F("confidence") >= HIGH_SCORE)
        mistakes = data.filter_labels(name, wrong).sort_by(F(f"{name}.detections.confidence").max(), reverse=True)
        data.save_view(
            f"confident mistakes: {model}",
            mistakes.select_fields([name, TRUTH, f"{name}_false"]),
            description=f"Wrong detections with a score of at least {HIGH_SCORE:g}, highest first",
        )
        for error in ERRORS[:-1]:
            found = data.filter_labels(name, F("error") == error)
            data.save_view(
                f"{error} errors: {model}",
                found.sort_by(F(f"{name}.detections.confidence").max(), reverse=True).select_fields([name, TRUTH]),
                description="By TIDE's definition among the detections shown, highest score first",
            )
        data.save_view(
            f"missed errors: {model}",
            data.filter_labels(TRUTH, F("tags").contains([f"{UNEXPLAINED}:{model}"])).select_fields([TRUTH, name]),
            description="Objects that no detection shown matches, nor would if its category or place were fixed",
        )
    data.save_view(
        "not exhaustive",
        data.match(F("not_exhaustive").length() > 0).select_fields([TRUTH, "not_exhaustive"]),
        description="Images with categories of which not every object is annotated",
    )


def _colour_by_verdict(data: fo.Dataset, fields: Sequence[str]) -> None:
    import fiftyone as fo

    values = [{"value": verdict, "color": colour} for verdict, colour in COLOURS.items()]
    data.app_config.color_scheme = fo.ColorScheme(
        color_by="value",
        opacity=OPACITY,
        fields=[{"path": field, "colorByAttribute": "verdict", "valueColors": values} for field in fields],
    )


def build_inspection(
    dataset: LvisDataset,
    paths: DatasetPaths,
    tables: Mapping[str, Path],
    name: str,
    split: str,
    count: int | None = None,
    min_score: float = 0.1,
) -> fo.Dataset:
    """Make the FiftyOne data set; it stays in the database until it is made anew or deleted.

    Args:
        tables: detections table of each model, at least one.
        name: of the FiftyOne data set; one of that name is replaced.
        split: tag of every image.
        count: images at most, the first ones by id; None takes all.
        min_score: detections of a lower score (the model's own) are left out.

    Raises:
        UserError: a table is damaged or of another split, or images are missing on disk.
    """
    import fiftyone as fo
    from fiftyone.core.odm import insert_documents

    fields = [field_name(model) for model in tables]
    if len(set(fields)) < len(fields):
        raise UserError(f"model names must differ in letters and digits: {', '.join(tables)}")
    readers = {model: SceneReader(dataset, table, min_score, IOU_THRESHOLDS) for model, table in tables.items()}
    images = sorted(dataset.images, key=lambda image: image.id)[:count]
    absent = [path for image in images if not (path := paths.image_path(image)).is_file()]
    if absent:
        raise UserError(f"{len(absent)} images of {dataset.path} are missing, first {absent[0]}: run the data stage")
    data = fo.Dataset(name, overwrite=True)
    # FiftyOne makes the schema and the form of its documents from one sample that has everything. The images go into
    # the database in that form, without its objects for every label, which take most of the time.
    data.add_samples([pattern_sample(list(tables))], dynamic=True, progress=False)
    collection = data._sample_collection
    pattern = collection.find_one()
    data.clear()
    progress = Progress("inspection", len(images), "images")
    for begin in range(0, len(images), _BATCH):
        documents = []
        for image in images[begin : begin + _BATCH]:
            scenes = {model: reader.scene(image.id) for model, reader in readers.items()}
            file = str(paths.image_path(image).resolve())
            documents.append(image_document(pattern, dataset, scenes, filepath=file, tags=[split]))
        insert_documents(documents, collection)
        progress.advance(len(documents))
    _save_views(data, list(tables))
    _colour_by_verdict(data, [TRUTH, *fields])
    data.persistent = True
    data.save()
    return data
