"""Figures from the ensemble's detections: scores by frequency group, re-scoring against alpha and the cap.

Symbols: n detections in file order; alpha is what is added to scores, one addend for each frequency group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_steps.analysis.scenes import SceneReader
from pipeline_steps.common.errors import UserError
from pipeline_steps.detections.rescoring import alpha_by_category, rank_scores
from pipeline_steps.detections.table import read_table
from pipeline_steps.evaluation.ground_truth import GroundTruth, read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.matching import FALSE, TRUE
from pipeline_steps.evaluation.precision import summarize
from pipeline_steps.evaluation.results import Results, read_results
from pipeline_steps.recipe.testing import RescoringAlpha
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.style import GROUP_COLOURS, GROUP_LINES, GROUP_NAMES, MissingInputError, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""By which the recipe's addends are multiplied."""

_CURVES = {"AP": "all", "APr": "r", "APc": "c", "APf": "f", "AP_fixed": "all"}

_MARKERS = {"all": ".", "r": "^", "c": ".", "f": "."}
"""On the right dashes tell alphas apart, so rare categories also have a marker of their own."""


def _raw(inputs: Inputs) -> tuple[GroundTruth, Results]:
    """Ground truth, and the ensemble's masks with the models' own scores."""
    try:
        truth = read_ground_truth(inputs.paths.lvis_val, "segm")
        results = read_results(inputs.table, "segm")
    except UserError as error:
        raise MissingInputError(str(error)) from None
    return truth, replace(results, scores=read_table(inputs.table, ["score"])["score"].to_numpy().astype(float))


def rescored(truth: GroundTruth, results: Results, alpha: RescoringAlpha, factor: float = 1.0) -> Results:
    """``results`` ranked as the ensemble ranks with ``factor`` times ``alpha``.

    Args:
        truth: gives the frequency of each category.
        results: with the models' own scores.
        alpha: addends of the frequency groups.
        factor: of all addends.
    """
    scaled = RescoringAlpha(**{group: factor * addend for group, addend in alpha.model_dump().items()})
    alphas = alpha_by_category(truth.category_ids, truth.frequencies, scaled)
    known = np.isin(results.category_ids, truth.category_ids)
    scores = results.scores.copy()
    scores[known] = rank_scores(scores[known], results.category_ids[known], alphas)
    return replace(results, scores=scores)


def _figures(truth: GroundTruth, results: Results, cap: int, fixed: int) -> dict[str, Any]:
    evaluation = evaluate_lvis(truth, results, "segm", cap, fixed)
    values = summarize(evaluation.capped, truth.frequencies)
    return {**values, "AP_fixed": summarize(evaluation.fixed, truth.frequencies)["AP"]}


def _caps(results: Results, usual: int) -> list[int]:
    """Caps to try: around the usual one, up to what is kept per image."""
    kept = int(np.unique(results.image_ids, return_counts=True)[1].max())
    tried = {max(1, round(usual * factor)) for factor in (0.1, 0.2, 1 / 3, 0.5, 1, 2)}
    return sorted({cap for cap in tried if cap < kept} | {kept})


def rescoring(inputs: Inputs) -> Figure:
    """Curves: AP against alpha at the usual cap, and against the cap with and without re-scoring."""
    truth, raw = _raw(inputs)
    settings = inputs.recipe.evaluation
    alpha, whose, usual = inputs.recipe.ensemble.alpha, "the recipe's", 1.0
    if not any(alpha.model_dump().values()):
        alpha, whose, usual = RescoringAlpha(), "the paper's", 0.0
    figure, (left, right) = new_figure(2, height=3.7)
    by_factor = [
        _figures(truth, rescored(truth, raw, alpha, factor), settings.max_detections, settings.fixed_per_category)
        for factor in FACTORS
    ]
    for key, group in _CURVES.items():
        style = ":" if key == "AP_fixed" else GROUP_LINES[group]
        values = [np.nan if row[key] is None else row[key] for row in by_factor]
        label = "AP_fixed" if key == "AP_fixed" else f"AP, {GROUP_NAMES[group]}"
        left.plot(FACTORS, values, linestyle=style, marker=_MARKERS[group], color=GROUP_COLOURS[group], label=label)
    left.axvline(usual, color="#8b949e", linewidth=0.8)
    addends = ", ".join(f"{group} {addend:g}" for group, addend in alpha.model_dump().items())
    left.set(
        title=f"at most {settings.max_detections} per image",
        xlabel=f"times {whose} alpha\n({addends})",
        ylabel="AP, per cent",
    )
    caps = _caps(raw, settings.max_detections)
    for factor, style in ((0.0, "--"), (1.0, "-")):
        again = rescored(truth, raw, alpha, factor)
        rows = [_figures(truth, again, cap, settings.fixed_per_category) for cap in caps]
        for key in ("AP", "APr", "APf"):
            group = _CURVES[key]
            values = [np.nan if row[key] is None else row[key] for row in rows]
            right.plot(caps, values, style, marker=_MARKERS[group], color=GROUP_COLOURS[group])
        right.plot([], [], style, color="black", label=f"{whose} alpha" if factor else "no re-scoring")
    right.axvline(settings.max_detections, color="#8b949e", linewidth=0.8)
    right.set(title="against the cap", xlabel="detections per image that count", xscale="log")
    right.set_xticks(caps, [str(cap) for cap in caps])
    right.minorticks_off()
    right.legend()
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5, columnspacing=1.0)
    return figure


def _judged_scores(inputs: Inputs) -> Iterator[tuple[str, str, float]]:
    """Frequency letter, verdict and the model's score of every detection that counts."""
    try:
        reader = SceneReader(inputs.val, inputs.table, min_score=-np.inf)
    except UserError as error:
        raise MissingInputError(str(error)) from None
    for scene in reader:
        for shape in scene.detections:
            if shape.verdict in (TRUE, FALSE) and shape.score is not None:
                yield shape.letter, shape.verdict, shape.score


def score_distributions(inputs: Inputs) -> Figure:
    """Histograms: the models' scores of right and wrong detections, one panel per frequency group."""
    scores: dict[tuple[str, str], list[float]] = {}
    for letter, verdict, score in _judged_scores(inputs):
        scores.setdefault((letter, verdict), []).append(score)
    if not scores:
        raise MissingInputError(f"{inputs.table}: no detection counts in its image")
    figure, axes = new_figure(3, height=3.1)
    edges = np.logspace(-3, 0, 31).tolist()
    for panel, letter in zip(axes, "rcf"):
        right, wrong = (np.array(scores.get((letter, verdict), [])) for verdict in (TRUE, FALSE))
        panel.hist(np.clip(wrong, edges[0], edges[-1]), edges, color="#b8bfc6", label="wrong")
        panel.hist(np.clip(right, edges[0], edges[-1]), edges, color=GROUP_COLOURS[letter], alpha=0.85, label="right")
        if len(right):
            middle = float(np.median(right))
            panel.axvline(middle, color="black", linewidth=1.1, linestyle=":", label="median of right")
        panel.set_title(f"{GROUP_NAMES[letter]}\n{len(right):,} right, {len(wrong):,} wrong")
        panel.set(xlabel="score", xscale="log", yscale="log", ylim=(0.7, None))
    axes[0].set_ylabel("detections")
    axes[-1].legend(loc="upper left", fontsize=8)
    return figure
