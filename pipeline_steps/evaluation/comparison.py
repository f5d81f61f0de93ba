"""Systems compared on the same resampled images: differences of AP with intervals, and a verdict for each group."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.common.errors import UserError
from pipeline_steps.evaluation.bootstrap import GROUPS, LEVEL, interval, measured, resample, verdict
from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.matched import MatchedDetections
from pipeline_steps.evaluation.results import Results, read_results

DIFFERENT_IMAGES = 0.1
"""Share of the images with detections that only one of two systems may have; more, and they are of other images."""


def _require_same_images(systems: Mapping[str, Results]) -> None:
    images = {name: np.unique(results.image_ids) for name, results in systems.items()}
    for (first, one), (second, other) in combinations(images.items(), 2):
        alone = len(np.setxor1d(one, other))
        if alone > DIFFERENT_IMAGES * len(np.union1d(one, other)):
            raise UserError(
                f"{systems[first].path} has detections on {len(one)} images and {systems[second].path} on "
                f"{len(other)}, {alone} of them in one file only: {first} and {second} were not tested on the same "
                "images; give annotations and detections of the images that both have"
            )


def compare_systems(
    annotations: Path,
    detections: Mapping[str, Path],
    iou_type: str,
    max_detections: int = 300,
    fixed_per_category: int = 10000,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare every system with the first one.

    Args:
        detections: table or results file of each system.

    Returns:
        ``systems``: AP and AP_fixed of each, by group; ``differences``: of each other system to the first, with
        interval and verdict. In per cent; None where a group has no objects.

    Raises:
        UserError: as for an evaluation; systems that were tested on different images.
    """
    truth = read_ground_truth(annotations, iou_type)
    systems = {name: read_results(path, iou_type) for name, path in detections.items()}
    _require_same_images(systems)
    tables: dict[tuple[str, str], MatchedDetections] = {}
    for name, results in systems.items():
        found = evaluate_lvis(truth, results, iou_type, max_detections, fixed_per_category).tables
        tables |= {(name, suffix): table for suffix, table in zip(("", "_fixed"), found)}
    values = resample(tables, truth.frequencies, samples, seed)
    whole = {key: measured(table, truth.frequencies) for key, table in tables.items()}
    first, *others = systems
    comparison: dict[str, Any] = {"samples": samples, "seed": seed, "level": LEVEL, "first": first}
    comparison["systems"] = {name: {} for name in systems}
    comparison["differences"] = {name: {} for name in others}
    for suffix in ("", "_fixed"):
        for k, group in enumerate(GROUPS):
            for name in systems:
                value = whole[name, suffix][k]
                comparison["systems"][name][group + suffix] = None if np.isnan(value) else round(value, 4)
            for name in others:
                change = whole[name, suffix][k] - whole[first, suffix][k]
                spread = interval(values[name, suffix][:, k] - values[first, suffix][:, k], change)
                told = (
                    None if spread is None else {"difference": round(change, 4), **spread, "verdict": verdict(spread)}
                )
                comparison["differences"][name][group + suffix] = told
    return comparison


def comparison_text(comparison: Mapping[str, Any]) -> str:
    """A line for each group and system, as the step prints it."""
    lines = []
    for name, differences in comparison["differences"].items():
        lines.append(f"{name} beside {comparison['first']}, {comparison['samples']} resamples of the images:")
        for key, told in differences.items():
            before, after = (comparison["systems"][system][key] for system in (comparison["first"], name))
            if told is None:
                lines.append(f"  {key:<10}      -  no objects")
                continue
            lines.append(
                f"  {key:<10} {before:6.2f} -> {after:6.2f}  {told['difference']:+6.2f} "
                f"[{told['low']:+.2f}, {told['high']:+.2f}]  {told['verdict']}"
            )
    return "\n".join(lines)
