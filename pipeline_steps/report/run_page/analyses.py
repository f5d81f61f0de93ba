"""Sections on what lies behind AP: how sure it is, which errors cost it, and what scores mean."""

import logging
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pipeline_steps.analysis.measured import Measured
from pipeline_steps.analysis.scenes import Scene, SceneReader, Shape
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.data.images import UnreadableImageError, read_image
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.evaluation.errors import NEAR_SYNONYM
from pipeline_steps.report.grid import MISSING, Grid, number
from pipeline_steps.report.page import part, pixels_uri, render
from pipeline_steps.report.run_page.parts import Run, absent, table
from pipeline_steps.report.tables import COLUMNS
from pipeline_steps.run.data_files import DatasetPaths

CONFUSIONS, PICTURES = 15, 8  # confusions in the table, and those of them with a picture
LONGEST_EDGE = 400  # pixels of a picture

_ERROR_NAMES = {
    "classification": "wrong category",
    NEAR_SYNONYM: "of these near-synonyms",
    "localisation": "badly placed",
    "both": "wrong and badly placed",
    "duplicate": "found twice",
    "background": "nothing there",
    "missed": "missed",
}


def _last(run: Run, key: str) -> Measured | None:
    """The ensemble, or the last evaluation that has such an analysis."""
    return next((entry for entry in reversed(run.measured) if entry.metrics.get(key)), None)


def how_sure(run: Run) -> Markup:
    """Intervals of all evaluations, and systems beside each other."""
    entries = [entry for entry in run.measured if "bootstrap" in entry.metrics]
    if not entries:
        return absent("No intervals: evaluation.bootstrap is 0, or nothing is evaluated.")
    said = (
        "Another choice of val images would give other figures. Each interval holds 95 % of what resampled sets of "
        "images give. It says nothing of another training with another seed, which often moves AP by as much."
    )
    grid = Grid(
        "95 % intervals",
        ["model", *COLUMNS.values()],
        [[entry.name, *(_range(entry.interval(key)) for key in COLUMNS)] for entry in entries],
        1,
        [],
    )
    return part("paragraphs", [said]) + table(grid) + _comparison(run)


def _range(interval: Mapping[str, float] | None) -> str:
    return MISSING if interval is None else f"{number(interval['low'])} to {number(interval['high'])}"


def _comparison(run: Run) -> Markup:
    try:
        comparison = read_json(run.files.comparison, "comparison of systems")
        first, differences = comparison["first"], comparison["differences"]
        rows = []
        for name, told in differences.items():
            for suffix in ("", "_fixed"):
                cells = [_difference(told[f"{key}{suffix}"]) for key in ("AP", "APr", "APc", "APf")]
                rows.append([name, f"AP{suffix}", *cells])
    except UserError as error:
        return absent(f"Systems are not compared: {error}. python -m pipeline_steps.compare_results does it.")
    except (KeyError, TypeError, AttributeError):
        return absent(f"Systems are not compared: {run.files.comparison} is no comparison of systems.")
    notes = [
        "Paired: both systems are measured on the same resamples of the images, so that what makes an image hard for "
        "both does not blur their difference. Each group is judged for itself; of twenty comparisons of equal systems "
        "one shows a difference by chance."
    ]
    return table(Grid(f"Beside {first}", ["model", "", "all", *GROUPS.values()], rows, 6, notes), heading=True)


def _difference(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return MISSING
    change, low, high = (number(told[key], signed=True) for key in ("difference", "low", "high"))
    return f"{change} ({low} to {high}): {told['verdict']}"


def where_the_ap_goes(run: Run) -> Markup:
    """Costs of errors by group, and the worst confusions."""
    entry = _last(run, "errors")
    if entry is None:
        return absent("No error analysis: evaluation.errors is off, or nothing is evaluated.")
    groups = entry.metrics["errors"]["groups"]
    known = [group for group in ("all", *GROUPS) if groups.get(group)]
    rows = [["AP50", *(number(groups[group]["AP50"]) for group in known), ""]]
    for error, name in _ERROR_NAMES.items():
        if error in groups["all"]["errors"]:
            cells = [number(groups[group]["errors"][error]["cost"], signed=True) for group in known]
            rows.append([name, *cells, number(groups["all"]["errors"][error]["count"])])
    header = ["", *("all" if group == "all" else GROUPS[group] for group in known), "number"]
    notes = [
        f"Of {entry.name}. What AP50 would gain if one kind of error alone were fixed (TIDE); gains do not add up. "
        "Only detections that the annotations can call wrong have errors: those of categories that nobody looked for "
        "in their image have none. Many errors of low scores cost less than few of high ones."
    ]
    if left := groups["all"]["none_left"]:
        notes.append(f"Of {left} categories every object is missed: nothing ranks there, whatever is fixed.")
    costs = table(Grid("What each error costs", header, rows, 1, notes))
    return costs + _confusions(run, entry)


def _confusions(run: Run, entry: Measured) -> Markup:
    worst = entry.metrics["errors"]["confusions"][:CONFUSIONS]
    if not worst:
        return Markup()
    synonym = {True: "yes", False: "no", None: MISSING}
    rows = [
        [
            *(pair["true_name"], pair["predicted_name"], synonym[pair["near_synonym"]]),
            *(number(pair[key]) for key in ("objects", "not_found")),
            *(number(pair[key], digits=2) for key in ("weight", "score")),
        ]
        for pair in worst
    ]
    header = ["annotated as", "called", "near-synonym", "objects", "not found", "weight", "highest score"]
    notes = [
        "Weight: the highest scores of the wrong category on these objects, added up. Not found: objects that no "
        "detection of their own category matches either. Near-synonyms share a parent in WordNet, or in the table that "
        "data.parents names."
    ]
    grid = Grid("What is taken for what", header, rows, 3, notes)
    return table(grid, heading=True) + _pictures(run, entry, worst[:PICTURES])


def _pictures(run: Run, entry: Measured, worst: list[dict[str, Any]]) -> Markup:
    """The example of each confusion, or a word on why there are none."""
    paths = DatasetPaths(run.files.recipe)
    try:
        dataset = read_lvis(paths.lvis_val, "val")
        reader = SceneReader(dataset, run.files.evaluated[entry.name], 0.0)
        pictures = []
        for pair in worst:
            scene = reader.scene(pair["image_id"])
            annotations = dataset.annotations[pair["image_id"]]
            truth = next(s for s, a in zip(scene.truths, annotations) if a.id == pair["annotation_id"])
            called = min(
                (shape for shape in scene.detections if shape.category_id == pair["predicted"]),
                key=lambda shape: abs((shape.rank_score or 0.0) - pair["score"]),
            )
            pictures.append(_picture(scene, truth, called, pair, paths))
    except (UserError, UnreadableImageError) as error:
        logging.warning("confusions are not drawn: %s", error)
        return absent(f"Not drawn: {error}.")
    except (KeyError, StopIteration, ValueError):
        return absent("Not drawn: annotations or detections have changed since the evaluation.")
    return render("confusions.html", pictures=pictures)


def _picture(scene: Scene, truth: Shape, called: Shape, pair: dict[str, Any], paths: DatasetPaths) -> dict[str, Any]:
    """The object with what was said of it, and a margin around both."""
    height, width = scene.image.height, scene.image.width
    corners = list(zip(truth.box, called.box))
    x1, y1, x2, y2 = (*map(min, corners[:2]), *map(max, corners[2:]))
    margin = max(12.0, 0.4 * max(x2 - x1, y2 - y1))
    left, top = int(max(0, x1 - margin)), int(max(0, y1 - margin))
    right, bottom = int(min(width, x2 + margin + 1)), int(min(height, y2 + margin + 1))
    pixels = read_image(paths.image_path(scene.image), height, width)[top:bottom, left:right]
    return {
        "image_id": scene.image.id,
        "uri": pixels_uri(pixels, LONGEST_EDGE),
        "view": (left, top, right - left, bottom - top),
        "object": truth.outline(),
        "called": called.outline(),
        "told": f"{pair['true_name']}, called {pair['predicted_name']}, score {number(pair['score'], digits=2)}",
    }


def calibrated(run: Run) -> Markup:
    """Expected calibration error by group, and the share of right detections by score."""
    entry = _last(run, "calibration")
    if entry is None:
        return absent("No calibration: evaluation.calibration is off, or nothing is evaluated.")
    scores = entry.metrics["calibration"]
    names = {"score": "model's own score", "rank_score": "rank score"}
    kinds = [name for name in names if name in scores]
    columns = [(kind, group) for kind in kinds for group in ("all", *GROUPS)]
    header = ["score", *(f"{names[kind]}, {GROUPS.get(group, group)}" for kind, group in columns)]
    found = [scores[kind].get(group) for kind, group in columns]
    rows = [["ECE", *(number(one["ece"]) if one else MISSING for one in found)]]
    rows.append(["detections", *(number(one["detections"]) if one else MISSING for one in found)])
    starts = sorted({entry["from"] for one in found if one for entry in one["bins"]})
    for start in starts:
        right = [next((e["right"] for e in one["bins"] if e["from"] == start), None) if one else None for one in found]
        rows.append([f"{start:.1f} to {start + 0.1:.1f}", *map(number, right)])
    notes = [
        f"Of {entry.name}. A score is calibrated if of the detections scored around 0.7 seven in ten are right, at "
        "IoU 0.5. ECE: the mean difference of the two over all judged detections, in points; most have low scores, and "
        "these decide it. Re-scoring adds a constant to rare and common categories, so a rank score is no probability; "
        "it may even be above 1, which counts in the last line."
    ]
    return table(Grid("Share of right detections by score, in per cent", header, rows, 1, notes))
