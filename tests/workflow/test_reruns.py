"""Which jobs run again after which change, exactly; and the commands for one stage again.

Counts are those of the smallest recipe: two models, two experts, two shards of two splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.checkout import Checkout

pytestmark = pytest.mark.slow

TABLES = {"tabulate_summary": 1, "plot_figures": 1, "write_report": 1}
EVALUATION = {"evaluate_lvis": 5, **TABLES}
ENSEMBLE_MASKS = {"predict_masks": 4, "gather_masks": 2, "evaluate_lvis": 1, **TABLES, "draw_predictions": 1}
ENSEMBLE_MASKS |= {"write_submission": 1, "compare_results": 1, "sweep_rescoring": 1, "judge_detections": 1}
ENSEMBLE = {"rescore_ensemble": 2, "measure_ensemble_gain": 1, **ENSEMBLE_MASKS}
ALL_MASKS = {**ENSEMBLE_MASKS, "predict_masks": 8, "gather_masks": 4, "evaluate_lvis": 3}
INFERENCE = {"predict_boxes": 16, "gather_boxes": 8, **ENSEMBLE, **ALL_MASKS, "evaluate_lvis": 5}
ONE_EXPERT = {"train_expert": 1, "predict_boxes": 4, "gather_boxes": 2, **ENSEMBLE, "evaluate_lvis": 2}
DATA = {"make_mini": 1, "index_coco_boxes": 1, "select_openimages": 1, "select_openimages_own": 1}
EVERYTHING = {
    "count_samples": 1,
    "make_mini": 1,
    "index_coco_boxes": 1,
    "select_openimages": 1,
    "select_openimages_own": 1,
    "pretrain_coco": 2,
    "finetune_lvis": 2,
    "train_expert": 2,
    **INFERENCE,
}


def planned(smoke: Checkout, *arguments: str) -> dict[str, int]:
    return dict(smoke.planned("--configfile", "config/smoke.yaml", *arguments))


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        ("data={mini: {seed: 1}}", EVERYTHING),
        (
            "data={openimages: {max_images: 12}}",
            {"select_openimages": 1, "finetune_lvis": 2, "count_samples": 1}
            | {**INFERENCE, "predict_boxes": 8, "gather_boxes": 4, "evaluate_lvis": 3},
        ),
        (
            "data={openimages_own: {max_images: 12}}",
            {**ONE_EXPERT, "select_openimages_own": 1},
        ),
        (
            "training={repeat_factor_threshold: 0.01}",
            {
                "finetune_lvis": 2,
                "train_expert": 1,
                "count_samples": 1,
                **INFERENCE,
                "predict_boxes": 12,
                "gather_boxes": 6,
            }
            | {"evaluate_lvis": 4},
        ),
        ("testing={proposals: 50}", INFERENCE),
        ("testing={mask_scales: [80]}", ALL_MASKS),
        ("testing={keep_per_image: 50}", INFERENCE),
        (
            "ensemble={keep_per_image: {val: 50}}",
            {**ENSEMBLE, "rescore_ensemble": 1, "predict_masks": 2, "gather_masks": 1, "write_submission": 0},
        ),
        ("ensemble={alpha: {rare: 0.3}}", ENSEMBLE),
        ("ensemble={fusion: soft_nms}", ENSEMBLE),
        (
            "evaluation={max_detections: 20}",
            {
                **EVALUATION,
                "compare_results": 1,
                "measure_ensemble_gain": 1,
                "sweep_rescoring": 1,
                "write_submission": 1,
            },
        ),
        ("report={gallery_images: 2}", {"draw_predictions": 1, "write_report": 1}),
        ("report={sample_images: 8}", {"count_samples": 1, "plot_figures": 1, "write_report": 1}),
        ("compute={threads: 2, memory_gb: 3, training_hours: 1, inference_hours: 1, longest_hours: 2}", {}),
        ("compute={training_gpus: 2, training_nodes: 2, inference_gpus: 1}", {}),
        ("training={log_images: 4, checkpoint_images: 8, loader_workers: 1}", {}),
    ],
)
def test_changed_value_reruns_exactly_what_depends_on_it(smoke, change, jobs):
    assert planned(smoke, "--config", change, "--", "all") == {rule: count for rule, count in jobs.items() if count}


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    """Add a line to a file for the length of the block."""
    before = path.read_text()
    path.write_text(f"{before}\n{text}\n")
    try:
        yield
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("file", "jobs"),
    [
        ("pipeline_steps/train.py", {}),
        ("pipeline_steps/modeling/losses.py", {}),
        ("pipeline_steps/inference/postprocess.py", {}),
        ("pipeline_steps/detections/fusion.py", {}),
        ("pipeline_steps/evaluation/metrics.py", EVALUATION),
        ("pipeline_steps/detections/submission.py", {"write_submission": 1}),
        ("pipeline_steps/report/tables.py", {"tabulate_summary": 1, "write_report": 1}),
        ("pipeline_steps/report/figures/training.py", {"plot_figures": 1, "write_report": 1}),
        ("pipeline_steps/analysis/rescoring.py", {"sweep_rescoring": 1, "plot_figures": 1, "write_report": 1}),
        ("pipeline_steps/report/gallery.py", {"draw_predictions": 1, "write_report": 1}),
        ("config/smoke.yaml", {}),
        ("config/mini.yaml", {}),
        ("workflow/rules/train.smk", {}),
        ("workflow/profiles/slurm/config.yaml", {}),
    ],
)
def test_changed_code_reruns_cheap_stages_only_and_comments_elsewhere_nothing(smoke, file, jobs):
    with changed(smoke.folder / file, "# a comment"):
        assert planned(smoke, "--", "all") == jobs


def overlay(smoke: Checkout, **values: object) -> tuple[str, ...]:
    """Command line for the smallest recipe with these top-level values in place of its own."""
    path = smoke.folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(values))
    return ("--configfile", "config/smoke.yaml", path.name, "--", "all")


def values(smoke: Checkout) -> dict[str, Any]:
    """All values of the smallest recipe."""
    return yaml.safe_load((smoke.folder / "results/smoke/recipe.yaml").read_text())


def test_changed_expert_reruns_that_expert_and_the_ensemble_but_no_other_model(smoke):
    experts = values(smoke)["experts"]
    experts[0]["seed"] = 5
    assert dict(smoke.planned(*overlay(smoke, experts=experts))) == ONE_EXPERT


def test_added_member_trains_and_tests_only_the_new_one(smoke):
    recipe = values(smoke)
    recipe["models"].append({**recipe["models"][0], "name": "third", "seed": 3})
    recipe["ensemble"]["members"].append({"name": "third"})
    mask_models = {**recipe["testing"], "mask_models": ["basic", "bottleneck"]}
    arguments = overlay(smoke, models=recipe["models"], ensemble=recipe["ensemble"], testing=mask_models)
    assert dict(smoke.planned(*arguments)) == {
        **ENSEMBLE,
        "finetune_lvis": 1,
        "predict_boxes": 4,
        "gather_boxes": 2,
        "predict_masks": 6,
        "gather_masks": 3,
        "evaluate_lvis": 2,
    }


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        # this stage again, and nothing else
        (("-R", "rescore_ensemble", "--until", "rescore_ensemble", "--", "all"), {"rescore_ensemble": 2}),
        # this stage again and everything below it
        # (what members gain together is measured from their boxes, above the merged table)
        (("-R", "rescore_ensemble", "--", "all"), {"rescore_ensemble": 2, **ENSEMBLE_MASKS}),
        (("-R", "predict_boxes", "--", "all"), INFERENCE),
        # this stage again, and only what the submission needs of what is below it
        (
            ("-R", "rescore_ensemble", "--", "submission"),
            {"rescore_ensemble": 1, "predict_masks": 2, "gather_masks": 1, "write_submission": 1},
        ),
        # one job of a stage again, and everything below it
        (
            ("-R", "results/smoke/finetune/basic/model.pth", "--", "all"),
            {
                "finetune_lvis": 1,
                "count_samples": 1,
                **ENSEMBLE,
                "predict_boxes": 4,
                "gather_boxes": 2,
                "predict_masks": 6,
            }
            | {"gather_masks": 3, "evaluate_lvis": 2},
        ),
        # only up to here
        (("-F", "--", "data"), DATA),
        (("-F", "--until", "pretrain_coco", "--", "all"), {"make_mini": 1, "pretrain_coco": 2}),
        # the submission only: nothing of the evaluation
        (("--", "submission"), {}),
    ],
)
def test_documented_commands_run_exactly_the_stages_that_they_promise(smoke, arguments, jobs):
    assert planned(smoke, *arguments) == jobs
