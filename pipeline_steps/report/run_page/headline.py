"""The three figures that matter: AP of the result, of its rare categories, and without a cap per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline_steps.analysis.measured import Measured
from pipeline_steps.recipe.schema import ENSEMBLE
from pipeline_steps.report.grid import MISSING, number

_FIGURES = {
    "AP": "AP",
    "APr": "AP of rare categories",
    "AP_fixed": "AP_fixed, without a cap per image",
}


@dataclass(frozen=True)
class Headline:
    """One figure."""

    name: str
    value: str
    told: str
    """What it is compared with."""


def headline(measured: Sequence[Measured]) -> list[Headline]:
    """Figures of the ensemble, or of the best model if it is missing, beside the best single model.

    Only mask AP counts, so experts are left out.
    """
    entries = [entry for entry in measured if entry.is_lvis_mask_ap and entry.get("AP") is not None]
    models = [entry for entry in entries if entry.name != ENSEMBLE]
    best = max(models, key=lambda entry: entry.get("AP") or 0.0, default=None)
    result = next((entry for entry in entries if entry.name == ENSEMBLE), best)
    if result is None:
        return [Headline(f"Mask {name}", MISSING, "no model is evaluated") for name in _FIGURES.values()]
    return [_headline(key, name, result, best) for key, name in _FIGURES.items()]


def _headline(key: str, name: str, result: Measured, best: Measured | None) -> Headline:
    told = f"{result.name}: {result.evaluated}"
    ours, theirs = result.get(key), best.get(key) if best is not None else None
    if best is not None and best is not result and ours is not None and theirs is not None:
        told += f"; {number(ours - theirs, signed=True)} over {best.name}, the best single model"
    return Headline(f"Mask {name}", number(ours), told)
