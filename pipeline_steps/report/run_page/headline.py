"""The three numbers that matter: AP of the result, of its rare categories, and without a cap per image."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from pipeline_steps.analysis.measured import GROUP_COLUMNS, Measured
from pipeline_steps.recipe.schema import ENSEMBLE
from pipeline_steps.report.grid import number, with_spread

_NAMES = {"AP": "Mask AP", "APr": "Mask AP of rare categories", "AP_fixed": "Mask AP_fixed, without a cap per image"}


def headline(measured: Sequence[Measured]) -> list[tuple[str, str, str]]:
    """Numbers of the ensemble, or of the best model if it is missing, beside the best single model.

    Only mask AP counts, so experts are left out.

    Returns:
        Name, number, and what it is compared with.
    """
    entries = [entry for entry in measured if entry.is_lvis_mask_ap and entry.get("AP") is not None]
    models = [entry for entry in entries if entry.name != ENSEMBLE]
    best = max(models, key=lambda entry: entry.get("AP") or 0.0, default=None)
    result = next((entry for entry in entries if entry.name == ENSEMBLE), best)
    rows = []
    for key, name in _NAMES.items():
        told = f"{result.name}: {result.evaluated}" if result else "no model is evaluated"
        ours, theirs = (entry.get(key) if entry else None for entry in (result, best))
        if best and best is not result and ours is not None and theirs is not None:
            told += f"; {number(ours - theirs, signed=True)} over {best.name}, the best single model"
        spread = result.half_width(key) if result and key in GROUP_COLUMNS else nan  # as in the table of results
        rows.append((name, with_spread(ours, spread), told))
    return rows
