"""A small run with every file that its report is made from, without a training: a world and made-up results."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline_steps.evaluation.metrics import lvis_metrics
from pipeline_steps.recipe import load_recipe
from pipeline_steps.report.run_page.files import RunFiles
from tests.report.fabricated import fabricate
from tests.report.tiny_world import write_tiny_world

CAP = 6
"""Detections per image that count: low enough to bind."""


def write_finished_run(folder: Path) -> RunFiles:
    """Write ``datasets/``, ``recipe.yaml`` and ``results/`` below ``folder``."""
    path = write_tiny_world(folder, evaluation={"max_detections": CAP})
    truth = folder / "datasets/lvis/lvis_v0.5_val.json"
    (folder / "datasets/lvis/lvis_v0.5_train.json").write_bytes(truth.read_bytes())
    (folder / "datasets/derived").mkdir()
    ids = [category["id"] for category in json.loads(truth.read_text())["categories"]]
    lines = ["category_id,name,images_after", *(f"{category_id},x,{50 + k}" for k, category_id in enumerate(ids))]
    (folder / "datasets/derived/openimages_summary.csv").write_text("\n".join(lines))
    files = RunFiles(load_recipe(path), folder / "results")
    files.detections.parent.mkdir(parents=True)
    fabricate(truth, files.detections, recipe="tiny")
    metrics, categories = lvis_metrics(truth, files.detections, "segm", CAP, 10000, "hotcoco")
    for name, file in files.metrics.items():
        file.parent.mkdir(parents=True)
        own = {"iou_type": "bbox"} if name in ("coco_expert", "openimages_expert") else {}
        file.write_text(json.dumps(metrics | own))
        categories.to_csv(file.with_name("categories.csv"), index=False)
    curve = [{"iteration": k, "images": 8 * k, "loss_cls": 3 / k, "loss_mask": 1 / k} for k in range(1, 6)]
    for model in files.trained:
        files.training(model.name).mkdir(parents=True)
        (files.training(model.name) / "model.pth").touch()
        # the last line was cut off
        text = "\n".join(map(json.dumps, curve)) + '\n{"iteration": 6, "ima'
        (files.training(model.name) / "metrics.jsonl").write_text(text)
    rules = {"make_mini": "data", "finetune_lvis": "train", "predict_boxes": "predict", "write_report": "report"}
    edges = [["make_mini", "finetune_lvis"], ["finetune_lvis", "predict_boxes"], ["predict_boxes", "write_report"]]
    graph = {"rules": {name: {"jobs": 2, "stage": stage} for name, stage in rules.items()}, "edges": edges}
    files.rule_graph.write_text(json.dumps(graph))
    return files
