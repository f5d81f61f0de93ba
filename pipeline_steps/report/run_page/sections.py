"""The page of a run: the figures that matter, what is missing, then sections, each from the files that it needs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import nan

import pandas as pd
from markupsafe import Markup

from pipeline_steps.analysis.measured import GROUP_COLUMNS, Measured, like_published
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.recipe.schema import ENSEMBLE
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.grid import number, with_spread
from pipeline_steps.report.page import html_page, part
from pipeline_steps.report.run_page.analyses import calibrated, how_sure, where_the_ap_goes
from pipeline_steps.report.run_page.parts import Run, absent, embedded_page, sortable_table, table
from pipeline_steps.report.run_page.rule_graph import draw_graph, read_graph, rule_seconds
from pipeline_steps.report.run_page.state import trainings_grid
from pipeline_steps.report.tables import comparison_grid, details_grid, summary_grid
from pipeline_steps.run.provenance.manifest import manifest_path

_HEADLINES = {
    "AP": "Mask AP",
    "APr": "Mask AP of rare categories",
    "AP_fixed": "Mask AP_fixed, without a cap per image",
}


def _results(run: Run) -> Markup:
    details = table(details_grid(run.measured), heading=True)
    return table(summary_grid(run.measured, run.files.recipe)) + details + run.plot("ap_by_group")


def _comparisons(run: Run) -> Markup:
    """The paper's tables that the recipe reproduces in part or whole."""
    recipe = run.files.recipe
    parts, said = [], set(summary_grid(run.measured, recipe).notes)
    for name, mapping in sorted(recipe.report.tables.items()):
        if any(mapping.values()):
            grid = comparison_grid(name, [*run.measured, *run.variants], recipe)
            grid = replace(grid, notes=[note for note in grid.notes if note not in said])
            parts.append(table(grid, heading=True))
    if not parts and like_published(recipe):
        return absent("This recipe reproduces no row of the paper's tables (report.tables names none).")
    return Markup("").join(parts)


def _ablations(run: Run) -> Markup:
    path = run.files.ablations_page
    return embedded_page(path, "compare_settings") if path.is_file() else Markup()


def category_frame(run: Run) -> pd.DataFrame:
    """One row per category: name, group, train images, objects on val, AP and AP_fixed of the ensemble, AP of others.

    Raises:
        UserError: there are no per-category results.
    """
    tables = Inputs.of(run.files).category_results()
    last = ENSEMBLE if ENSEMBLE in tables else list(tables)[-1]
    known = tables[last].set_index("category_id")
    frame = pd.DataFrame({"category": known["name"], "group": known["frequency"].map(GROUPS)}, index=known.index)
    for column, source in (("train images", "train_images"), ("objects on val", "annotations")):
        if source in known:
            frame[column] = known[source].astype("Int64")
    for column in ("AP", "AP_fixed"):
        frame[f"{column} {last}"] = known[column].astype(float)
    for name, categories in tables.items():
        if name != last:
            frame[f"AP {name}"] = categories.set_index("category_id")["AP"].astype(float)
    return frame.reset_index(drop=True)


def _categories(run: Run) -> Markup:
    try:
        frame = category_frame(run)
    except UserError as error:
        return absent(f"Not shown: {error}.")
    hint = (
        "A click on a column sorts by it, a second click the other way round. Categories without objects on val have "
        "no AP."
    )
    return part("paragraphs", [hint]) + sortable_table(frame, 2, "categories") + run.plot("ap_by_category")


def _ensemble(run: Run) -> Markup:
    columns = {"members": "members", **GROUP_COLUMNS, "AP_fixed": "AP_fixed"}
    return run.plot("ensemble_gain") + run.plotted("ensemble_gain", columns) + run.plot("rescoring")


def _long_tail(run: Run) -> Markup:
    recipe = run.files.recipe
    without = Markup() if recipe.data.openimages.enabled else absent("This recipe uses no OpenImages images.")
    return without + run.plot("long_tail")


def _workflow(run: Run) -> Markup:
    try:
        graph = read_graph(
            read_json(run.files.rule_graph, "list of rules", "a run of the workflow writes it", note=False)
        )
    except UserError as error:
        return absent(f"Not drawn: {error}.")
    except (AttributeError, KeyError, TypeError, ValueError):
        return absent(f"Not drawn: {run.files.rule_graph} is not a list of rules.")
    if not graph:
        return absent(f"Not drawn: {run.files.rule_graph} names no rules.")
    caption = (
        "What is made from what, top to bottom; edges that a longer way implies are left out. Number of jobs, and the "
        "time of all jobs of a rule one after the other."
    )
    return draw_graph(graph, {name: rule_seconds(run.files.benchmarks, name) for name in graph}, caption)


def _origin(run: Run) -> Markup:
    """Recipe, code and hardware, from the manifest of the last evaluation that has one."""
    recipe = run.files.recipe
    lines = [
        f"Recipe {recipe.name}, LVIS {recipe.lvis_version}, seed {recipe.seed}; all its values: recipe.yaml in "
        f"{run.files.root}."
    ]
    for name in reversed(recipe.evaluations):
        try:
            manifest = read_json(manifest_path(run.files.metrics.of(name=name)), "manifest", note=False)
            code, hardware, packages = manifest["code"], manifest["hardware"], manifest["packages"]
            devices = ", ".join(map(str, hardware["gpus"])) or "no GPU"
            changed = ", with changes that are not committed" if code.get("changed") else ""
            lines += [
                f"Evaluated {manifest['times']['ended']} by code {code.get('commit') or code.get('digest')}{changed}.",
                f"On {hardware['processors']} x {hardware['processor']}, {hardware['memory_gb']} GB, {devices}; Python "
                f"{packages['python']}, torch {packages.get('torch', 'not installed')}.",
            ]
            break
        except (UserError, KeyError, TypeError):
            continue
    lines.append("Every result has a manifest beside it (NAME.manifest.json) with its command, inputs and digests.")
    return part("notes", lines)


SECTIONS: dict[str, tuple[str, Callable[[Run], Markup]]] = {
    "results": ("Results", _results),
    "report": ("Tables of the paper", _comparisons),
    "sure": ("How sure", how_sure),
    "errors": ("Where the AP goes", where_the_ap_goes),
    "calibration": ("Calibration", calibrated),
    "ablations": ("Settings compared over seeds", _ablations),
    "pictures": ("Good and bad detections", lambda run: embedded_page(run.files.gallery, "draw_predictions")),
    "categories": ("By category", _categories),
    "scores": ("Scores, precision and recall", lambda run: run.plot("scores", "precision_recall")),
    "ensemble": ("Ensemble and re-scoring", _ensemble),
    "equalization": ("What the equalization loss changes", lambda run: run.plot("samples") + run.plotted("samples")),
    "missing-annotations": (
        "Missing annotations",
        lambda run: embedded_page(run.files.missing_annotations, "count_samples"),
    ),
    "data": ("Long tail", _long_tail),
    "training": ("Training", lambda run: table(trainings_grid(run.files, run.states)) + run.plot("training")),
    "workflow": ("Workflow", _workflow),
    "origin": ("Where this comes from", _origin),
}
"""The page from top to bottom: for each section its title, and what makes its content, which is empty if the recipe has
no such thing."""


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
    for key, name in _HEADLINES.items():
        told = f"{result.name}: {result.evaluated}" if result else "no model is evaluated"
        ours, theirs = (entry.get(key) if entry else None for entry in (result, best))
        if best and best is not result and ours is not None and theirs is not None:
            told += f"; {number(ours - theirs, signed=True)} over {best.name}, the best single model"
        spread = result.half_width(key) if result and key in GROUP_COLUMNS else nan  # as in the table of results
        rows.append((name, with_spread(ours, spread), told))
    return rows


def _problems(run: Run) -> list[str]:
    """What of the recipe is not there, in the order in which it is made."""
    problems = [state.problem for state in run.states if state.problem]
    problems += [f"{entry.name}: not evaluated. {entry.missing}" for entry in run.measured if entry.missing]
    return problems


def run_page(run: Run) -> str:
    """The page of a run as HTML, one file that needs no network."""
    recipe = run.files.recipe
    shown = [(anchor, title, content) for anchor, (title, make) in SECTIONS.items() if (content := make(run))]
    if problems := _problems(run):
        listed = Markup("").join(part("absent", problem) for problem in problems)
        shown.insert(0, ("missing", "Missing in this run", listed))
    lead = []
    if recipe.data.source == "mini":
        lead.append("Data: the embedded mini world, not LVIS. Its figures compare models with each other only.")
    content = part("headline", headline(run.measured)) + Markup("").join(part("section", *one) for one in shown)
    links = [(anchor, title) for anchor, title, _ in shown]
    return html_page(f"Recipe {recipe.name}: report", content, lead, links)
