"""Metrics files of a run as the tables and figures need them; what is missing is told, not fatal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json

GROUPS = {"AP": "AP", "APr": "AP_r", "APc": "AP_c", "APf": "AP_f"}
"""Key in metrics files -> column name."""


@dataclass(frozen=True)
class Measured:
    """Metrics of one evaluation, or why there are none."""

    name: str
    """Model name, or ``ensemble``."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Content of metrics.json; empty if missing."""
    missing: str = ""
    """Why the metrics are missing."""

    def get(self, key: str) -> float | None:
        """A metric in per cent, None if there is none."""
        value = self.metrics.get(key)
        return float(value) if isinstance(value, int | float) else None

    @property
    def evaluated(self) -> str:
        """What was compared: masks or boxes, under which protocol."""
        if not self.metrics:
            return ""
        shape = {"segm": "masks", "bbox": "boxes"}.get(self.metrics.get("iou_type", ""), "?")
        return f"{shape}, {'COCO' if self.metrics.get('format') == 'coco' else 'LVIS'} val"

    @property
    def is_lvis_mask_ap(self) -> bool:
        """Whether these are figures like the report's: mask AP by the LVIS protocol."""
        return self.metrics.get("iou_type") == "segm" and self.metrics.get("format") == "lvis"


def read_measured(name: str, path: str | Path, recipe_name: str) -> Measured:
    """Read one metrics file; a missing, damaged or foreign one becomes an entry that says so."""
    try:
        metrics = read_json(path, "metrics file")
    except UserError as error:
        return Measured(name, missing=str(error))
    if not isinstance(metrics, dict) or "AP" not in metrics:
        return Measured(name, missing=f"{path} is no metrics file of the evaluate step")
    if metrics.get("recipe") not in (None, recipe_name):
        return Measured(name, missing=f"{path} belongs to recipe {metrics['recipe']!r}, not {recipe_name!r}")
    return Measured(name, metrics)


def read_all(named_paths: Iterable[tuple[str, str | Path]], recipe_name: str) -> list[Measured]:
    """:func:`read_measured` for each NAME=FILE pair.

    Raises:
        UserError: a name is given twice.
    """
    pairs = list(named_paths)
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--metrics: the name {name!r} is given twice")
    return [read_measured(name, path, recipe_name) for name, path in pairs]
