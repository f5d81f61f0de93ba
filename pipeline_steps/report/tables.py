"""The summary of a run, and the report's tables with our figures beside theirs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.training import Model
from pipeline_steps.report.markdown import MISSING, Grid, figure
from pipeline_steps.report.measured import GROUPS, Measured
from pipeline_steps.report.published import TABLES, PublishedTable

FIXED = {f"{key}_fixed": f"{column}_fixed" for key, column in GROUPS.items()}
COLUMNS = {**GROUPS, **FIXED}
"""Key in metrics files -> column of the tables."""

ENSEMBLE = "ensemble"
"""Name of the ensemble's evaluation."""


def _notes(measured: Sequence[Measured], recipe: Recipe) -> list[str]:
    notes = []
    full = [entry for entry in measured if entry.metrics.get("format") == "lvis"]
    if full:
        caps, fixed, kept = (
            " or ".join(f"{number:,}" for number in sorted({entry.metrics[key] for entry in full}))
            for key in ("max_detections", "fixed_per_category", "detections_per_image")
        )
        notes.append(
            f"AP: at most {caps} detections per image count, and categories compete for these places. AP_fixed: no cap "
            f"per image, at most {fixed} per category over the data set, of the up to {kept} that are kept per image."
        )
    if any(entry.metrics.get("format") == "coco" for entry in measured):
        notes.append("Rows evaluated on COCO cannot be compared with the others: other categories, another protocol.")
    if recipe.data.source == "mini":
        notes.append("Data: the embedded mini world, not LVIS; the figures compare models with each other only.")
    return notes + [f"{entry.name}: missing. {entry.missing}" for entry in measured if entry.missing]


def summary_frame(measured: Sequence[Measured]) -> pd.DataFrame:
    """One row per evaluation; figures in per cent, NaN where missing."""
    rows = []
    for entry in measured:
        row: dict[str, object] = {"model": entry.name, "evaluated": entry.evaluated}
        row |= {column: entry.get(key) for key, column in COLUMNS.items()}
        rows.append({**row, "detections_per_image": entry.get("detections_per_image")})
    frame = pd.DataFrame(rows, columns=["model", "evaluated", *COLUMNS.values(), "detections_per_image"])
    return frame.astype(dict.fromkeys(COLUMNS.values(), float) | {"detections_per_image": "Int64"})


def summary_grid(measured: Sequence[Measured], recipe: Recipe) -> Grid:
    """The summary table as it is shown."""
    rows = [
        [
            entry.name,
            entry.evaluated or MISSING,
            *(figure(entry.get(key)) for key in COLUMNS),
            MISSING if (kept := entry.get("detections_per_image")) is None else f"{kept:.0f}",
        ]
        for entry in measured
    ]
    header = ["model", "evaluated", *COLUMNS.values(), "kept per image"]
    return Grid(f"Recipe {recipe.name}: results on val", header, rows, 2, _notes(measured, recipe))


def _check_mapping(name: str, mapping: dict[str, list[str]], table: PublishedTable) -> None:
    for row in mapping:
        if row not in table.rows:
            near = difflib.get_close_matches(row, table.rows, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"rows: {', '.join(table.rows)}"
            raise UserError(f"report.tables.{name}: no row {row!r}; {hint}")


def published_table(name: str) -> PublishedTable:
    """The report's table ``name``.

    Raises:
        UserError: there is none.
    """
    if name not in TABLES:
        raise UserError(f"no table {name!r} in the report; tables: {', '.join(TABLES)}")
    return TABLES[name]


def _models(recipe: Recipe, names: Sequence[str]) -> list[Model]:
    """The models of evaluations; of the ensemble and of variants their members that are trained on LVIS."""
    lvis = {model.name: model for model in recipe.models}
    merged = {ENSEMBLE: recipe, **{name: recipe.variant(name) for name in recipe.variants}}
    members = {name: [member.name for member in own.ensemble.members] for name, own in merged.items()}
    wanted = [one for name in names for one in members.get(name, [name])]
    return [lvis[name] for name in wanted if name in lvis]


def _images_seen(recipe: Recipe, names: Sequence[str]) -> int | None:
    """Images that each training of ``names`` sees by the recipe; None if they differ or there are none."""
    seen = {recipe.training_of(model).schedule.images for model in _models(recipe, names)}
    return seen.pop() if len(seen) == 1 else None


def _seeds(recipe: Recipe, names: Sequence[str]) -> str:
    """Seeds of the trainings of ``names``, each once."""
    return " ".join(map(str, dict.fromkeys(recipe.seed_of(model) for model in _models(recipe, names))))


def comparison_frame(name: str, measured: Sequence[Measured], recipe: Recipe) -> pd.DataFrame:
    """A table of the report with ours beside it: one row per published row, in the report's order.

    Only mask AP on LVIS counts as a figure, as in the report. Columns: ``row``, ``setting``; for each of AP, AP_r,
    AP_c, AP_f the report's figure (``_report``), the mean over our runs (``_ours``), their standard deviation
    (``_sd``, with at least two runs) and the difference of the mean from the report (``_difference``); our AP_fixed
    columns; ``runs`` (evaluations with figures), ``seeds`` and ``images_seen`` of each training, and ``models``.

    Raises:
        UserError: no such table, or ``report.tables`` names rows that it does not have.
    """
    table = published_table(name)
    mapping = recipe.report.tables.get(name, {})
    _check_mapping(name, mapping, table)
    by_name = {entry.name: entry for entry in measured}
    rows = []
    for key, published in table.rows.items():
        names = mapping.get(key, [])
        found = [by_name[one] for one in names if one in by_name and by_name[one].is_lvis_mask_ap]
        row: dict[str, object] = {"row": key, "setting": published.label}
        for metric, column in COLUMNS.items():
            values = [value for entry in found if (value := entry.get(metric)) is not None]
            mean = float(np.mean(values)) if values else np.nan
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
            if metric in GROUPS:
                theirs = getattr(published, metric)
                row |= {f"{column}_report": theirs, f"{column}_ours": mean, f"{column}_sd": spread}
                row[f"{column}_difference"] = mean - theirs
            else:
                row |= {column: mean, f"{column}_sd": spread}
        trained = [entry.name for entry in found]
        about = {"runs": len(found), "seeds": _seeds(recipe, trained), "images_seen": _images_seen(recipe, trained)}
        rows.append({**row, **about, "models": " ".join(names)})
    return pd.DataFrame(rows).astype({"images_seen": "Int64"})


def _with_spread(mean: float, spread: float) -> str:
    return figure(mean) if np.isnan(spread) else f"{mean:.1f} ± {spread:.1f}"


def comparison_grid(name: str, measured: Sequence[Measured], recipe: Recipe) -> Grid:
    """The comparison as it is shown: the report's line, ours and the difference below each other."""
    frame = comparison_frame(name, measured, recipe)
    rows, absent = [], []
    for row in frame.to_dict("records"):
        blanks = [""] * len(FIXED)
        rows.append([row["setting"], "report", *(figure(row[f"{c}_report"]) for c in GROUPS.values()), *blanks, "", ""])
        if not row["runs"]:
            rows.append(["", "ours: missing", *[MISSING] * len(COLUMNS), "", ""])
            absent.append(row["row"])
            continue
        ours = [_with_spread(row[f"{c}_ours"], row[f"{c}_sd"]) for c in GROUPS.values()]
        ours += [_with_spread(row[c], row[f"{c}_sd"]) for c in FIXED.values()]
        seen = MISSING if pd.isna(row["images_seen"]) else f"{row['images_seen']:,}"
        rows.append(["", "ours", *ours, row["seeds"], seen])
        differences = [figure(row[f"{c}_difference"], signed=True) for c in GROUPS.values()]
        rows.append(["", "difference", *differences, *blanks, "", ""])
    header = ["setting", "", *COLUMNS.values(), "seeds", "images seen"]
    notes = [
        f"Recipe {recipe.name}. AP is mask AP in per cent; seeds are those of the trainings, and ± is the standard "
        "deviation over them."
    ]
    if absent:
        notes.append(
            f"Missing here: {', '.join(absent)} (a recipe names the evaluations of a row in report.tables.{name})."
        )
    used = {one for names in recipe.report.tables.get(name, {}).values() for one in names}
    notes += _notes([entry for entry in measured if entry.name in used], recipe)
    title = f"{name.replace('table', 'Table ')} of the report: {published_table(name).caption}"
    return Grid(title, header, rows, 2, notes)
