"""Figures of a run: drawn from what is there, named where something is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_steps import measure_ensemble_gain, rescore_ensemble
from pipeline_steps.analysis.files import read_analysis, write_analysis
from pipeline_steps.analysis.rescoring import rescored, sweep_rescoring
from pipeline_steps.analysis.samples.table import group_frame, sample_frame
from pipeline_steps.analysis.scenes import SceneReader
from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.detections.rescoring import alpha_by_category, rank_scores
from pipeline_steps.detections.table import TableWriter, iter_images
from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.metrics import lvis_metrics
from pipeline_steps.evaluation.results import read_results
from pipeline_steps.plot import main, parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.testing import RescoringAlpha
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.report.figures.ensemble import rescoring
from pipeline_steps.report.figures.index import FIGURES
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.run.result_files import ResultFiles
from tests.report.fabricated import fabricate
from tests.report.finished_run import CAP, member_boxes, write_finished_run

NAMES = set(CAPTIONS)
MEMBERS = ("basic", "bottleneck")
TABLES = {"ensemble_gain.csv", "samples.csv"}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every input of the figures."""
    folder = tmp_path_factory.mktemp("run")
    write_finished_run(folder)
    return folder


def plot(folder: Path, output: Path, *options: str) -> int:
    arguments = ["--recipe", str(folder / "recipe.yaml"), "--output", str(output)]
    return call_step(parser, main, [*arguments, *options])


def every_input(folder: Path) -> list[str]:
    ensemble = folder / "results/evaluation/ensemble"
    files = {
        "--metrics": ensemble / "metrics.json",
        "--categories": ensemble / "categories.csv",
        "--training": folder / "results/finetune/basic/metrics.jsonl",
    }
    options = [text for option, path in files.items() for text in (option, f"ensemble={path}")]
    for name in ("ensemble-gain", "rescoring", "scores"):
        options += [f"--{name}", str(folder / f"results/analysis/{name.replace('-', '_')}.json")]
    return [*options, "--samples", str(folder / "results/report/samples.json")]


def reasons(folder: Path) -> dict[str, str]:
    return json.loads((folder / "figures.json").read_text())


def test_every_figure_is_drawn(run_folder: Path, tmp_path: Path) -> None:
    assert plot(run_folder, tmp_path / "figures", *every_input(run_folder)) == 0
    files = {path.name for path in (tmp_path / "figures").iterdir()}
    assert files == {"figures.json"} | TABLES | {f"{name}.{suffix}" for name in NAMES for suffix in ("svg", "png")}
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
    "ensemble_gain": {"ensemble_gain"},
    "rescoring": {"rescoring"},
    "scores": {"scores"},
    "samples": {"samples"},
}


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_tells_of_its_missing_input(run_folder: Path, tmp_path: Path, figure: str) -> None:
    needs = next((name for name, figures in MISSING.items() if figure in figures), None)
    recipe = load_recipe(run_folder / "recipe.yaml")
    gone = tmp_path / "gone"
    if needs is None:
        recipe = recipe.model_copy(update={"datasets_root": str(gone)})
    named: dict[str, object] = {name: {"a": gone} for name in ("metrics", "categories", "trainings")}
    named |= dict.fromkeys(("ensemble_gain", "rescoring", "scores", "samples"), gone)
    for files in ({}, named):
        with pytest.raises(UserError) as raised:
            FIGURES[figure](Inputs(recipe=recipe, **files))
        assert str(raised.value)


def test_missing_inputs_cost_only_their_figures_and_are_named(run_folder: Path, tmp_path: Path) -> None:
    options = every_input(run_folder)[:4]  # metrics and categories
    assert plot(run_folder, tmp_path / "figures", *options) == 0
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert drawn == NAMES.difference(*(MISSING[name] for name in MISSING if name not in ("metrics", "categories")))
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
    new = rescored(truth, results, RescoringAlpha(rare=0.1, common=0.15, frequent=0.025), 2.0)
    letter = dict(zip(truth.category_ids.tolist(), truth.frequencies.tolist()))
    added = [{"r": 0.2, "c": 0.3, "f": 0.05}[letter[category_id]] for category_id in results.category_ids.tolist()]
    assert np.array_equal(new.scores, (results.scores + added).astype(np.float32))
    fixed = [evaluate_lvis(truth, r, "segm", 6, 20).fixed.precision for r in (results, new)]
    assert np.array_equal(*fixed)


@pytest.mark.parametrize("addends", [(0.1, 0.05, 0.0), (0.02, 0.4, 0.1), (0.0, 0.0, 0.0)])
def test_rescoring_figure_shows_what_merging_and_evaluating_with_all_addends_gives(
    run_folder: Path, tmp_path: Path, addends: tuple[float, ...]
) -> None:
    alpha = RescoringAlpha(**dict(zip(("rare", "common", "frequent"), addends)))
    recipe = load_recipe(run_folder / "recipe.yaml")
    recipe = recipe.model_copy(update={"ensemble": recipe.ensemble.model_copy(update={"alpha": alpha})})
    truth = read_ground_truth(run_folder / "datasets/lvis/lvis_v0.5_val.json", "segm")
    alphas = alpha_by_category(truth.category_ids, truth.frequencies, alpha)
    with TableWriter(tmp_path / "detections.parquet", {}) as writer:
        for image in iter_images(run_folder / "results/ensemble/val/detections.parquet"):
            ranks = rank_scores(image.scores, image.category_ids, alphas)
            writer.write_image(image.image_id, replace(image, rank_scores=ranks))
    metrics, _ = lvis_metrics(truth.path, tmp_path / "detections.parquet", "segm", CAP, 10000, "compiled")
    table, used, own = sweep_rescoring(recipe, tmp_path / "detections.parquet")
    write_analysis(tmp_path / "rescoring.json", recipe, {"rescoring": table}, alpha=used, alpha_of_recipe=own)
    figure = rescoring(Inputs(recipe=recipe, rescoring=tmp_path / "rescoring.json"))
    left = figure.axes[0]
    curves = {line.get_label(): line for line in left.get_lines()}
    (at,) = next(line for line in left.get_lines() if len(set(line.get_xdata())) == 1).get_xdata()[:1]
    at = list(curves["AP, all"].get_xdata()).index(at)
    for label, key in (("all", "AP"), ("rare", "APr"), ("common", "APc"), ("frequent", "APf")):
        assert curves[f"AP, {label}"].get_ydata()[at] == pytest.approx(metrics[key], abs=1e-9)
    assert len(set(curves["AP_fixed"].get_ydata())) == 1
    assert len(set(curves["AP, all"].get_ydata())) > 1


def test_ensemble_gain_is_what_merging_and_evaluating_gives(run_folder: Path, tmp_path: Path) -> None:
    plot(run_folder, tmp_path / "figures", *every_input(run_folder))
    frame = pd.read_csv(tmp_path / "figures/ensemble_gain.csv").set_index("members")
    boxes = {name: run_folder / f"results/predictions/val/{name}/boxes.parquet" for name in MEMBERS}
    truth = run_folder / "datasets/lvis/lvis_v0.5_val.json"
    settings = json.loads((run_folder / "recipe.yaml").read_text())
    for label, names in (("basic", ["basic"]), ("+ bottleneck", MEMBERS), ("without basic", ["bottleneck"])):
        members = {"ensemble": {"members": [{"name": name} for name in names]}}
        (tmp_path / "recipe.yaml").write_text(json.dumps(settings | members))
        options = ["--recipe", str(tmp_path / "recipe.yaml"), "--categories", str(truth), "--split", "val"]
        options += ["--output", str(tmp_path / "merged.parquet"), "--detections"]
        arguments = rescore_ensemble.parser.parse_args([*options, *(f"{n}={boxes[n]}" for n in names)])
        rescore_ensemble.main(arguments)
        metrics, _ = lvis_metrics(truth, tmp_path / "merged.parquet", "bbox", CAP, 10000, "compiled")
        for key in ("AP", "APr", "AP_fixed"):
            assert frame.loc[label, key] == pytest.approx(metrics[key], abs=1e-9), (label, key)
    assert frame.loc["without bottleneck", "AP"] == frame.loc["basic", "AP"]


def test_bars_are_labelled_as_the_tables_round(run_folder: Path, tmp_path: Path) -> None:
    metrics = json.loads((run_folder / "results/evaluation/ensemble/metrics.json").read_text())
    recipe, files = load_recipe(run_folder / "recipe.yaml"), {}
    for name, value in (("one", 2.5), ("two", 2.54)):
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(json.dumps(metrics | {"AP": value, "APr": value, "APc": 3.5, "APf": 61.25}))
    axes = FIGURES["ap_by_group"](Inputs(recipe=recipe, metrics=files)).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == sorted(2 * ["2.5", "2.5", "3.5", "61.2"])


def test_gain_of_members_is_shown_for_every_group(run_folder: Path) -> None:
    figure, _ = FIGURES["ensemble_gain"](
        Inputs.of(ResultFiles(load_recipe(run_folder / "recipe.yaml"), run_folder / "results"))
    )
    left, right = figure.axes
    assert {"all", "rare", "common", "frequent"} <= {line.get_label() for line in left.get_lines()}
    assert len(right.patches) == 4 * len(MEMBERS)


def test_all_and_rare_differ_by_more_than_their_colour(run_folder: Path) -> None:
    inputs = Inputs.of(ResultFiles(load_recipe(run_folder / "recipe.yaml"), run_folder / "results"))
    for name in ("precision_recall", "ensemble_gain", "rescoring"):
        drawn = FIGURES[name](inputs)
        figure = drawn[0] if isinstance(drawn, tuple) else drawn
        looks = {line.get_label().removeprefix("AP, "): line for line in figure.axes[0].get_lines()}
        assert looks["all"].get_linestyle() != looks["rare"].get_linestyle(), name
    bars = FIGURES["ap_by_group"](inputs).axes[0].containers
    hatches = {bar.get_label(): bar.patches[0].get_hatch() for bar in bars}
    assert hatches["rare"]
    assert not hatches["all"]


def test_curves_of_precision_are_as_their_caption_says(run_folder: Path) -> None:
    metrics = json.loads((run_folder / "results/evaluation/ensemble/metrics.json").read_text())
    curves = [curve for curve in metrics["precision_at_recall"].values() if curve]
    assert all(len(curve) == 101 for curve in curves)  # every curve goes to the right end: none ends early
    assert "ends early" not in CAPTIONS["precision_recall"].text
    assert "counts as 0" in CAPTIONS["precision_recall"].text


def test_boxes_of_another_split_cost_only_their_figure(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = json.loads((run_folder / "datasets/lvis/lvis_v0.5_val.json").read_text())
    for record, key in [(i, "id") for i in truth["images"]] + [(a, "image_id") for a in truth["annotations"]]:
        record[key] += 100_000
    (tmp_path / "other.json").write_text(json.dumps(truth))
    fabricate(tmp_path / "other.json", tmp_path / "boxes.parquet", masks=False)
    output = tmp_path / "ensemble_gain.json"
    boxes = [f"basic={member_boxes(run_folder)['basic']}", f"bottleneck={tmp_path / 'boxes.parquet'}"]
    options = ["--recipe", str(run_folder / "recipe.yaml"), "--boxes", *boxes, "--output", str(output)]
    assert call_step(measure_ensemble_gain.parser, measure_ensemble_gain.main, options) == 2
    assert "no image in common" in capsys.readouterr().err
    options = every_input(run_folder)
    options[options.index("--ensemble-gain") + 1] = str(output)
    assert plot(run_folder, tmp_path / "figures", *options) == 0
    told = {name for name, reason in reasons(tmp_path / "figures").items() if reason}
    assert told == {"ensemble_gain"}
    assert "measure_ensemble_gain" in reasons(tmp_path / "figures")["ensemble_gain"]


@pytest.mark.parametrize("content", ['{"recipe": "tiny"', '{"recipe": "tiny"}', '{"recipe": "other"}', "[]"])
def test_damaged_and_foreign_counts_are_not_drawn(run_folder: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "samples.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"samples\.json"):
        FIGURES["samples"](Inputs(recipe=load_recipe(run_folder / "recipe.yaml"), samples=path))


def test_group_table_sums_the_categories_of_a_group(run_folder: Path) -> None:
    frame = sample_frame(run_folder / "results/report/samples.json", load_recipe(run_folder / "recipe.yaml"))
    assert (frame["train_images"].diff().dropna() <= 0).all()
    table = group_frame(frame).set_index("categories")
    counts = frame["group"].value_counts()
    for group, count in counts.items():
        assert table.loc[group, "negatives from other objects"] == 90 * count
        assert table.loc[group, "left, %"] == pytest.approx(100 if group == "frequent" else 100 / 3)


def test_a_file_of_an_analysis_keeps_every_digit_and_says_what_is_wrong_with_it(
    run_folder: Path, tmp_path: Path
) -> None:
    recipe, path = load_recipe(run_folder / "recipe.yaml"), tmp_path / "a.json"
    table = pd.DataFrame({"name": ["a", "b", None], "value": [1 / 3, np.inf, np.nan], "count": [1, 2, 3]})
    write_analysis(path, recipe, {"one": table, "empty": table[:0]}, fact=7)
    content = read_analysis(path, recipe, "some_step")
    assert content["fact"] == 7
    expected = pd.DataFrame({"name": ["a", "b", None], "value": [1 / 3, np.nan, np.nan], "count": [1, 2, 3]})
    pd.testing.assert_frame_equal(content["tables"]["one"], expected, check_exact=True)
    assert list(content["tables"]["empty"]) == list(table)
    other = recipe.model_copy(update={"name": "other"})
    with pytest.raises(UserError, match=r"a\.json belongs to recipe 'tiny', not 'other'"):
        read_analysis(path, other, "some_step")
    for damaged in ("[]", "{}", '{"recipe": "tiny", "tables": {"one": {"rows": [[1]]}}}'):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"a\.json is not a file of some_step"):
            read_analysis(path, recipe, "some_step")
    for missing in (None, tmp_path / "nowhere.json"):
        with pytest.raises(UserError, match="no results of some_step"):
            read_analysis(missing, recipe, "some_step")


def test_counted_scores_are_those_of_the_scenes(run_folder: Path) -> None:
    recipe = load_recipe(run_folder / "recipe.yaml")
    table = run_folder / "results/ensemble/val/detections.parquet"
    dataset = read_lvis(run_folder / "datasets/lvis/lvis_v0.5_val.json", "val")
    shapes = [shape for scene in SceneReader(dataset, table, -np.inf) for shape in scene.detections]
    tables = read_analysis(run_folder / "results/analysis/scores.json", recipe, "judge_detections")["tables"]
    assert len(tables["totals"]) == 6
    for row in tables["totals"].itertuples():
        scores = [s.score for s in shapes if (s.letter, s.verdict) == (row.frequency, row.verdict)]
        assert row.detections == len(scores) > 0
        assert row.median == np.median(scores)
        bins = tables["scores"].query("frequency == @row.frequency and verdict == @row.verdict")
        inside = [sum(low <= score < high for score in scores) for low, high in zip(bins["low"], bins["high"])]
        assert bins["detections"].tolist()[1:-1] == inside[1:-1]
        assert bins["detections"].sum() == len(scores)
