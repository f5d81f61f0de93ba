"""Figures of a run: drawn from what is there, named where something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline_steps.common.cli import call_step
from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.results import read_results
from pipeline_steps.plot import build_parser, main
from pipeline_steps.recipe import load_recipe
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.report.figures.index import FIGURES
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.figures.rescoring import rescored, rescoring
from pipeline_steps.report.figures.style import MissingInputError
from tests.report.finished_run import write_finished_run

NAMES = set(CAPTIONS)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every input of the figures."""
    folder = tmp_path_factory.mktemp("run")
    write_finished_run(folder)
    return folder


def plot(folder: Path, output: Path, *options: str) -> int:
    arguments = ["--recipe", str(folder / "recipe.yaml"), "--output", str(output)]
    return call_step(build_parser(), main, [*arguments, *options])


def every_input(folder: Path) -> list[str]:
    ensemble = folder / "results/evaluation/ensemble"
    files = {
        "--metrics": ensemble / "metrics.json",
        "--categories": ensemble / "categories.csv",
        "--training": folder / "results/finetune/basic/metrics.jsonl",
    }
    options = [text for option, path in files.items() for text in (option, f"ensemble={path}")]
    return [*options, "--detections", str(folder / "results/ensemble/val/detections.parquet")]


def reasons(folder: Path) -> dict[str, str]:
    return json.loads((folder / "figures.json").read_text())


def test_every_figure_is_drawn(run_folder: Path, tmp_path: Path) -> None:
    assert plot(run_folder, tmp_path / "figures", *every_input(run_folder)) == 0
    files = {path.name for path in (tmp_path / "figures").iterdir()}
    assert files == {"figures.json"} | {f"{name}.{suffix}" for name in NAMES for suffix in ("svg", "png")}
    assert reasons(tmp_path / "figures") == dict.fromkeys(CAPTIONS, "")


def test_the_same_inputs_give_the_same_bytes(run_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        plot(run_folder, tmp_path / name, *every_input(run_folder)[:2])
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_every_figure_has_a_title_and_a_caption_that_says_what_to_see() -> None:
    assert list(FIGURES) == list(CAPTIONS)
    assert all(caption.title and len(caption.text) > 60 for caption in CAPTIONS.values())


MISSING = {
    "metrics": {"ap_by_group", "precision_recall"},
    "categories": {"ap_by_category"},
    "trainings": {"training"},
    "detections": {"rescoring", "scores"},
}


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_tells_of_its_missing_input(run_folder: Path, tmp_path: Path, figure: str) -> None:
    needs = next((name for name, figures in MISSING.items() if figure in figures), None)
    recipe = load_recipe(run_folder / "recipe.yaml")
    gone = tmp_path / "gone"
    if needs is None:
        recipe = recipe.model_copy(update={"datasets_root": str(gone)})
    for files in ({}, {"detections": gone, **{name: {"a": gone} for name in ("metrics", "categories", "trainings")}}):
        with pytest.raises(MissingInputError) as raised:
            FIGURES[figure](Inputs(recipe=recipe, **files))
        assert str(raised.value)


def test_missing_inputs_cost_only_their_figures_and_are_named(run_folder: Path, tmp_path: Path) -> None:
    options = every_input(run_folder)[:4]  # metrics and categories
    assert plot(run_folder, tmp_path / "figures", *options) == 0
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert drawn == NAMES - MISSING["trainings"] - MISSING["detections"]
    assert {name for name, reason in reasons(tmp_path / "figures").items() if reason} == NAMES - drawn


def test_without_data_and_inputs_every_figure_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"extends: mini.yaml\nname: tiny\ndatasets_root: {tmp_path}/nowhere\n")
    assert plot(tmp_path, tmp_path / "figures") == 0
    assert all(reasons(tmp_path / "figures").values())
    assert "lvis_v0.5_train.json" in reasons(tmp_path / "figures")["long_tail"]


def test_metrics_of_another_recipe_are_not_drawn(run_folder: Path, tmp_path: Path) -> None:
    metrics = json.loads((run_folder / "results/evaluation/ensemble/metrics.json").read_text()) | {"recipe": "other"}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    plot(run_folder, tmp_path / "figures", "--metrics", f"ensemble={tmp_path / 'metrics.json'}")
    assert not (tmp_path / "figures/ap_by_group.svg").exists()
    assert "'other'" in reasons(tmp_path / "figures")["ap_by_group"]


def test_a_name_given_twice_is_refused(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plot(run_folder, tmp_path / "figures", "--training", "a=x", "a=y") == 2
    assert "given twice" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_rescored_adds_alpha_by_frequency_and_keeps_the_order_within_a_category(run_folder: Path) -> None:
    truth = read_ground_truth(run_folder / "datasets/lvis/lvis_v0.5_val.json", "segm")
    results = read_results(run_folder / "results/ensemble/val/detections.parquet", "segm")
    new = rescored(truth, results, 0.2)
    letter = dict(zip(truth.category_ids.tolist(), truth.frequencies.tolist()))
    added = [{"r": 0.2, "c": 0.1, "f": 0.0}[letter[category_id]] for category_id in results.category_ids.tolist()]
    assert np.array_equal(new.scores, results.scores + added)
    fixed = [evaluate_lvis(truth, r, "segm", 6, 20).fixed.precision for r in (results, new)]
    assert np.array_equal(*fixed)


def test_rescoring_figure_shows_the_evaluated_figures(run_folder: Path) -> None:
    recipe = load_recipe(run_folder / "recipe.yaml")
    figure = rescoring(Inputs(recipe=recipe, detections=run_folder / "results/ensemble/val/detections.parquet"))
    left = figure.axes[0]
    curves = {line.get_label(): line.get_ydata() for line in left.get_lines()}
    metrics = json.loads((run_folder / "results/evaluation/ensemble/metrics.json").read_text())
    at = list(left.get_lines()[0].get_xdata()).index(recipe.ensemble.alpha.rare)
    # The made-up table was ranked with the report's alphas: the figure's point there is what evaluate says.
    assert curves["AP, all"][at] == pytest.approx(metrics["AP"], abs=1e-9)
    assert curves["AP, rare"][at] == pytest.approx(metrics["APr"], abs=1e-9)
    assert len(set(curves["AP_fixed"])) == 1
