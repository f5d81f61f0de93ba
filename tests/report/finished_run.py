"""A small run with every file that its report is made from, without a training: a world and made-up results."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline_steps import judge_detections, measure_ensemble_gain, sweep_rescoring
from pipeline_steps.common.cli import call_step
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.data.lvis import read_categories
from pipeline_steps.evaluation.analyses import Analyses
from pipeline_steps.evaluation.comparison import compare_systems
from pipeline_steps.evaluation.metrics import lvis_metrics
from pipeline_steps.recipe import load_recipe
from pipeline_steps.report.missing import missing_page
from pipeline_steps.run.result_files import ResultFiles
from tests.report.fabricated import fabricate
from tests.report.tiny_world import write_tiny_world

ANALYSES = Analyses(pool=True, bootstrap=20, errors=True, calibration=True)

CAP = 6
"""Detections per image that count: low enough to bind."""


def made_up_samples(categories: list[dict]) -> dict[str, object]:
    """What the count_samples step writes."""
    counts = {"negatives_from_objects": 90, "negatives_from_background": 200}
    rows = []
    for category in categories:
        tail = category["frequency"] != "f"
        row = {"category_id": category["id"], "name": category["name"], "group": GROUPS[category["frequency"]]}
        row |= {"train_images": category["image_count"], "positives": category["id"] % 3, **counts}
        rows.append(row | {"negatives_from_objects_equalized": 30 if tail else 90})
    numbers = {"images": 4, "proposals": 300, "background_in_lvis": 200, "background_on_coco": 20}
    return {"recipe": "tiny", "model": "basic", **numbers, "categories": rows}


def member_boxes(folder: Path) -> dict[str, Path]:
    """Boxes on val of the ensemble's members."""
    return {name: folder / f"results/predictions/val/{name}/boxes.parquet" for name in ("basic", "bottleneck")}


def analyse(folder: Path) -> None:
    """What the steps between the detections and the figures write."""
    recipe = ["--recipe", str(folder / "recipe.yaml")]
    boxes = [f"{name}={path}" for name, path in member_boxes(folder).items()]
    detections = ["--detections", str(folder / "results/ensemble/val/detections.parquet")]
    for step, name, options in (
        (measure_ensemble_gain, "ensemble_gain", ["--boxes", *boxes]),
        (sweep_rescoring, "rescoring", detections),
        (judge_detections, "scores", detections),
    ):
        output = ["--output", str(folder / f"results/analysis/{name}.json")]
        assert call_step(step.parser, step.main, [*recipe, *options, *output]) == 0


def write_finished_run(folder: Path) -> ResultFiles:
    """Write ``datasets/``, ``recipe.yaml`` and ``results/`` below ``folder``."""
    members = [{"name": "basic"}, {"name": "bottleneck"}]
    path = write_tiny_world(folder, evaluation={"max_detections": CAP}, ensemble={"members": members})
    truth = folder / "datasets/lvis/lvis_v0.5_val.json"
    train = folder / "datasets/lvis/lvis_v0.5_train.json"
    content = json.loads(truth.read_text())
    for category in content["categories"]:  # as in real files, val counts other images than train
        category["image_count"] = 10 * category["image_count"] + 3
    train.write_text(json.dumps(content))
    (folder / "datasets/derived").mkdir()
    ids = [category["id"] for category in json.loads(truth.read_text())["categories"]]
    lines = ["category_id,name,images_after", *(f"{category_id},x,{50 + k}" for k, category_id in enumerate(ids))]
    (folder / "datasets/derived/openimages_summary.csv").write_text("\n".join(lines))
    files = ResultFiles(load_recipe(path), folder / "results")
    detections = files.ensemble("val")
    detections.parent.mkdir(parents=True)
    fabricate(truth, detections, recipe="tiny")
    metrics, categories = lvis_metrics(
        truth, files.ensemble("val"), "segm", CAP, 10000, "compiled", read_categories(train), analyses=ANALYSES
    )
    for name in files.recipe.evaluations:
        file = files.metrics.of(name=name)
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(metrics))
        categories.to_csv(file.with_name("categories.csv"), index=False)
    systems = dict.fromkeys(("basic", "ensemble"), detections)
    files.comparison.write_text(json.dumps(compare_systems(truth, systems, "segm", CAP, samples=20)))
    for seed, boxes in enumerate(member_boxes(folder).values()):
        boxes.parent.mkdir(parents=True)
        fabricate(truth, boxes, recipe="tiny", seed=seed, masks=False)
    analyse(folder)
    files.samples.parent.mkdir()
    files.samples.write_text(json.dumps(made_up_samples(json.loads(truth.read_text())["categories"])))
    files.missing_annotations.write_text(missing_page("Missing annotations", ["1 of 2 proposals."], []))
    curve = [{"iteration": k, "images": 8 * k, "loss_cls": 3 / k, "loss_mask": 1 / k} for k in range(1, 6)]
    for name in files.trained:
        files.model(name).parent.mkdir(parents=True)
        files.model(name).touch()
        # the last line was cut off
        text = "\n".join(map(json.dumps, curve)) + '\n{"iteration": 6, "ima'
        files.beside_model(name, "metrics.jsonl").write_text(text)
    rules = {"make_mini": "data", "finetune_lvis": "train", "predict_boxes": "predict", "write_report": "report"}
    edges = [["make_mini", "finetune_lvis"], ["finetune_lvis", "predict_boxes"], ["predict_boxes", "write_report"]]
    graph = {"rules": {name: {"jobs": 2, "stage": stage} for name, stage in rules.items()}, "edges": edges}
    files.rule_graph.write_text(json.dumps(graph))
    return files
