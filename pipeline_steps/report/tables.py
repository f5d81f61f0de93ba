"""The summary of a run, and the paper's tables with our figures beside theirs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline_steps.analysis.measured import GROUP_COLUMNS, PUBLISHED_CAP, Measured, like_published
from pipeline_steps.analysis.published import check_rows, published_table
from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.schema import ENSEMBLE
from pipeline_steps.recipe.training import Model
from pipeline_steps.report.grid import MISSING, Grid, number, with_spread

FIXED = {f"{key}_fixed": f"{column}_fixed" for key, column in GROUP_COLUMNS.items()}
COLUMNS = {**GROUP_COLUMNS, **FIXED}  # key in metrics files -> column of the tables

DETAILS = {"AP50": "AP50", "AP75": "AP75", "APs": "AP_s", "APm": "AP_m", "APl": "AP_l"}
"""The same for AP at one IoU and by size of the object (COCO's: below 32 x 32 pixels, up to 96 x 96, above)."""


def _notes(measured: Sequence[Measured], recipe: Recipe) -> list[str]:
    notes = []
    full = [entry for entry in measured if entry.metrics.get("format") == "lvis"]
    if full:
        caps, fixed, kept = (
            " or ".join(map(number, sorted({entry.metrics[key] for entry in full})))
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
    rows, figures = [], [*COLUMNS.values(), *DETAILS.values()]
    for entry in measured:
        row: dict[str, object] = {"model": entry.name, "evaluated": entry.evaluated}
        row |= {column: entry.get(key) for key, column in {**COLUMNS, **DETAILS}.items()}
        rows.append({**row, "detections_per_image": entry.get("detections_per_image")})
    frame = pd.DataFrame(rows, columns=["model", "evaluated", *figures, "detections_per_image"])
    return frame.astype(dict.fromkeys(figures, float) | {"detections_per_image": "Int64"})


def summary_grid(measured: Sequence[Measured], recipe: Recipe) -> Grid:
    """The summary table as it is shown."""
    rows = [
        [
            entry.name,
            entry.evaluated or MISSING,
            *(with_spread(entry.get(key), entry.half_width(key)) for key in GROUP_COLUMNS),
            *(number(entry.get(key)) for key in FIXED),
            MISSING if (kept := entry.get("detections_per_image")) is None else f"{kept:.0f}",
        ]
        for entry in measured
    ]
    header = ["model", "evaluated", *COLUMNS.values(), "kept per image"]
    samples = {entry.metrics["bootstrap"]["samples"] for entry in measured if "bootstrap" in entry.metrics}
    spread = [f"±: half the 95 % interval, from {number(count)} resamples of the val images." for count in samples]
    return Grid(f"Recipe {recipe.name}: results on val", header, rows, 2, [*spread, *_notes(measured, recipe)])


def details_grid(measured: Sequence[Measured]) -> Grid:
    """AP at one IoU and by size of the object, as it is shown."""
    rows = [[e.name, e.evaluated or MISSING, *(number(e.get(key)) for key in DETAILS)] for e in measured]
    notes = ["AP_s, AP_m and AP_l: objects below 32 x 32 pixels, up to 96 x 96, and above, as COCO counts."]
    return Grid("By overlap and by size", ["model", "evaluated", *DETAILS.values()], rows, 2, notes)


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
    """Seeds of the trainings of ``names``, each once, with a blank between them."""
    return " ".join(map(str, dict.fromkeys(recipe.seed_of(model) for model in _models(recipe, names))))


def comparison_frame(name: str, measured: Sequence[Measured], recipe: Recipe) -> pd.DataFrame:
    """A published table with ours beside it: one row per published row, in its order.

    Only mask AP counts as a figure, as in the paper. Columns: ``row``, ``setting``; for each of AP, AP_r, AP_c, AP_f
    the published figure (``_report``), the mean over our runs (``_ours``), their standard deviation (``_sd``, with at
    least two runs) and the difference of the mean from the paper (``_difference``); our AP_fixed columns; ``runs``
    (evaluations with figures), ``seeds`` and ``images_seen`` of each training, and ``models``.

    On other data, or under another cap, the paper's figures say nothing of ours: there are no columns ``_report`` and
    ``_difference`` then, and only the rows that the recipe names.

    Raises:
        UserError: no such table, ``report.tables`` names rows that it does not have, or the table would be empty.
    """
    table = published_table(name)
    mapping = recipe.report.tables.get(name, {})
    check_rows(name, mapping)
    beside = like_published(recipe, table.data)
    usable = {e.name: e for e in measured if (e.is_like_published(table.data) if beside else e.is_lvis_mask_ap)}
    rows = []
    for key, published in table.rows.items():
        names = mapping.get(key, [])
        if not names and not beside:
            continue
        found = [usable[one] for one in names if one in usable]
        row: dict[str, object] = {"row": key, "setting": published.label}
        for metric, column in COLUMNS.items():
            values = [value for entry in found if (value := entry.get(metric)) is not None]
            mean = float(np.mean(values)) if values else np.nan
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
            if metric in GROUP_COLUMNS:
                theirs = getattr(published, metric)
                row |= {f"{column}_report": theirs} if beside else {}
                row |= {f"{column}_ours": mean, f"{column}_sd": spread}
                row |= {f"{column}_difference": mean - theirs} if beside else {}
            else:
                row |= {column: mean, f"{column}_sd": spread}
        trained = [entry.name for entry in found]
        about = {"runs": len(found), "seeds": _seeds(recipe, trained), "images_seen": _images_seen(recipe, trained)}
        rows.append({**row, **about, "models": " ".join(names)})
    if not rows:
        raise UserError(f"report.tables.{name} names no evaluations: there is nothing to put into the table")
    return pd.DataFrame(rows).astype({"images_seen": "Int64"})


def _seed_label(seeds: str) -> str:
    """Seeds as they are shown: a bare 0 would read as none."""
    numbers = seeds.split()
    return f"{'seed' if len(numbers) == 1 else 'seeds'} {', '.join(numbers)}" if numbers else MISSING


def comparison_grid(name: str, measured: Sequence[Measured], recipe: Recipe) -> Grid:
    """The comparison as it is shown: the published line, ours and the difference below each other; or ours alone."""
    frame = comparison_frame(name, measured, recipe)
    table = published_table(name)
    beside, of_report = like_published(recipe, table.data), table.source == "report"
    rows, absent = [], []
    for row in frame.to_dict("records"):
        blanks = [""] * len(FIXED)
        if beside:
            theirs = (number(row[f"{c}_report"]) for c in GROUP_COLUMNS.values())
            rows.append([row["setting"], table.source, *theirs, *blanks, "", ""])
        label = "" if beside else row["setting"]
        if not row["runs"]:
            rows.append([label, "ours: missing" if beside else "missing", *[MISSING] * len(COLUMNS), "", ""])
            absent.append(row["row"])
            continue
        ours = [with_spread(row[f"{c}_ours"], row[f"{c}_sd"]) for c in GROUP_COLUMNS.values()]
        ours += [with_spread(row[c], row[f"{c}_sd"]) for c in FIXED.values()]
        rows.append([label, "ours" if beside else "", *ours, _seed_label(row["seeds"]), number(row["images_seen"])])
        if beside:
            differences = [number(row[f"{c}_difference"], signed=True) for c in GROUP_COLUMNS.values()]
            rows.append(["", "difference", *differences, *blanks, "", ""])
    header = ["setting", "", *COLUMNS.values(), "trained with", "images seen"]
    notes = [
        f"Recipe {recipe.name}. AP is mask AP in per cent; ± is the standard deviation over trainings with different "
        "seeds."
    ]
    if not beside:
        figures = "The paper's figures are of LVIS v0.5" if of_report else f"The published figures are of {table.data}"
        notes.append(f"{figures} val with at most {PUBLISHED_CAP} detections per image: they are not set beside these.")
    if absent:
        notes.append(
            f"Missing here: {', '.join(absent)} (a recipe names the evaluations of a row in report.tables.{name})."
        )
    used = {one for names in recipe.report.tables.get(name, {}).values() for one in names}
    notes += _notes([entry for entry in measured if entry.name in used], recipe)
    called = f"{name.replace('table', 'table ')} of the paper" if of_report else "published results"
    title = f"{called.capitalize()}: {table.caption}"
    if not beside:
        title = f"Settings of {called}, on the data of this recipe"
    return Grid(title, header, rows, 2, notes)
