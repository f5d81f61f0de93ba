"""Metrics files of a run as the tables and figures need them; what is missing is told, not fatal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.recipe import Recipe

GROUP_COLUMNS = {"AP": "AP", "APr": "AP_r", "APc": "AP_c", "APf": "AP_f"}  # key in metrics files -> column name
PUBLISHED_DATA = "LVIS"  # data of the paper's figures, as data_name calls them: LVIS v0.5
PUBLISHED_CAP = 300  # detections of an image that count in the paper's figures, as on the test server


def data_name(recipe: Recipe) -> str:
    """What the data of a recipe are called beside results."""
    if recipe.data.source == "mini":
        return "mini"
    return PUBLISHED_DATA if recipe.lvis_version == "v0.5" else f"LVIS {recipe.lvis_version}"


def like_published(recipe: Recipe, data: str = PUBLISHED_DATA) -> bool:
    """Whether a recipe's mask AP can stand beside published figures on ``data``: the same data, the same protocol."""
    return data_name(recipe) == data and recipe.evaluation.max_detections == PUBLISHED_CAP


@dataclass(frozen=True)
class Measured:
    """Metrics of one evaluation, or why there are none."""

    name: str  # model name, or ``ensemble``
    metrics: dict[str, Any] = field(default_factory=dict)  # content of metrics.json; empty if missing
    missing: str = ""  # why the metrics are missing
    data: str = PUBLISHED_DATA  # what was evaluated on, from data_name

    def get(self, key: str) -> float | None:
        """A metric in per cent, None if there is none."""
        value = self.metrics.get(key)
        return float(value) if isinstance(value, int | float) else None

    def interval(self, key: str) -> Mapping[str, float] | None:
        """``low``, ``high`` and ``half_width`` of a metric's interval, None if there is none."""
        return self.metrics.get("bootstrap", {}).get("intervals", {}).get(key)

    def half_width(self, key: str) -> float:
        """Half the width of a metric's interval, NaN if there is none."""
        found = self.interval(key)
        return float("nan") if found is None else found["half_width"]

    @property
    def evaluated(self) -> str:
        """What was compared: masks or boxes, under which protocol."""
        if not self.metrics:
            return ""
        shape = {"segm": "masks", "bbox": "boxes"}.get(self.metrics.get("iou_type", ""), "?")
        mini = "mini " if self.data == "mini" else ""
        shared = self.metrics.get("shared_categories")  # an expert's with LVIS
        categories = "" if shared is None else f", {shared} shared categories"
        return f"{shape}, {f'{mini}COCO' if self.metrics.get('format') == 'coco' else self.data} val{categories}"

    @property
    def is_lvis_mask_ap(self) -> bool:
        """Whether these are mask AP by the LVIS protocol, whatever the data and the cap per image."""
        whole = "shared_categories" not in self.metrics
        return whole and self.metrics.get("iou_type") == "segm" and self.metrics.get("format") == "lvis"

    def is_like_published(self, data: str) -> bool:
        """Whether these can stand beside published figures on ``data``: mask AP on the same data under the same cap."""
        return self.is_lvis_mask_ap and self.data == data and self.metrics.get("max_detections") == PUBLISHED_CAP


def read_measured(name: str, path: str | Path, recipe: Recipe) -> Measured:
    """Read one metrics file; a missing, damaged or foreign one becomes an entry that says so."""
    try:
        metrics = read_json(path, "metrics file")
    except UserError as error:
        return Measured(name, missing=str(error))
    if not isinstance(metrics, dict) or "AP" not in metrics:
        return Measured(name, missing=f"{path} is not a metrics file of the evaluate step")
    if metrics.get("recipe") not in (None, recipe.name):
        return Measured(name, missing=f"{path} belongs to recipe {metrics['recipe']!r}, not {recipe.name!r}")
    return Measured(name, metrics, data=data_name(recipe))


def read_all(files: Mapping[str, Path], recipe: Recipe) -> list[Measured]:
    """:func:`read_measured` for each name."""
    return [read_measured(name, path, recipe) for name, path in files.items()]
