"""Manifests of the smallest recipe name exactly the files that their steps have opened."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.run.opened_files import opened_files
from tests.workflow.checkout import Checkout

pytestmark = pytest.mark.slow

STEPS = {
    *("index_coco_boxes", "select_openimages", "train", "count_samples", "predict_boxes", "gather_shards"),
    *("rescore_ensemble", "predict_masks", "evaluate", "write_submission"),
    *("compare_results", "measure_ensemble_gain", "sweep_rescoring", "judge_detections"),
    *("tabulate", "draw_predictions", "plot", "write_report"),
}
SEVERAL = {"train": ["basic_coco", "basic", "coco_expert", "openimages_expert"], "evaluate": ["basic", "coco_expert"]}
"""Steps of which the inputs depend on the model: the models to look at."""

NO_INPUTS = r".*\.(jpg|png|tsv|manifest\.json)|.*/rule_graph\.json"
"""Images, which annotations name, and what tells about runs."""


@pytest.fixture(scope="module")
def finished(smoke: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished smallest recipe, of which results may be made again."""
    return smoke.copy(tmp_path_factory.mktemp("manifests") / "checkout").folder


def manifests(folder: Path) -> list[dict[str, Any]]:
    """One manifest of each step of the run, or one for each of its models in ``SEVERAL``."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.manifest.json")):
        manifest = json.loads(path.read_text())
        step, model = manifest["step"], path.parent.name
        if model in SEVERAL.get(step, [model]):
            found.setdefault((step, model if step in SEVERAL else ""), manifest)
    return list(found.values())


def run_again(manifest: dict[str, Any], folder: Path) -> set[str]:
    """Run the step of a manifest without writing a manifest; returns what it opened, relative to ``folder``."""
    step = importlib.import_module(f"pipeline_steps.{manifest['step']}")
    arguments = step.parser.parse_args(manifest["command"][3:])
    if manifest["step"] == "train":  # a finished training reads nothing
        shutil.rmtree(arguments.output.parent)
    with opened_files(folder) as opened:
        step.main(arguments)
    names = {str(path.relative_to(folder)) for path in opened} - {str(vars(arguments).get("recipe"))}
    return {name for name in names if not re.fullmatch(NO_INPUTS, name)}


def test_every_manifest_names_exactly_the_files_that_its_step_opens(finished, monkeypatch):
    monkeypatch.chdir(finished)
    found = manifests(finished)
    assert {manifest["step"] for manifest in found} == STEPS
    for manifest in found:
        opened = run_again(manifest, finished)
        assert opened - set(manifest["outputs"]) == set(manifest["inputs"]), manifest["command"]
