"""Settings compared over seeds: statistics, pairs, findings, and the whole step on made-up runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from pycocotools import mask as mask_utils

from pipeline_steps import compare_settings, compute_ablations
from pipeline_steps.analysis.ablations.mechanism import COLUMNS, GroupObjects, category_ratios, group_ratios
from pipeline_steps.analysis.ablations.runs import Runs
from pipeline_steps.analysis.ablations.statistics import describe, paired_difference, paired_ratio
from pipeline_steps.analysis.ablations.tables import finding, published_difference, runs_frame, settings_frame
from pipeline_steps.analysis.benchmarks import job_seconds
from pipeline_steps.common.cli import call_step
from pipeline_steps.common.files import noted_inputs
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.detections.table import iter_images
from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.load import CONFIG_FOLDER
from pipeline_steps.report.ablations.text import design, explanation
from tests.report.fabricated import fabricate
from tests.report.test_report_tables import write_metrics
from tests.report.tiny_world import write_tiny_world
from tests.run.opened_files import opened_files

DETECTOR = "config/detectors/mini_basic_fpn.yaml"
SEEDS = [11, 12, 13]
# AP of each run: pairs of sigmoid and eql differ by 1.0, 1.5 and 2.0; eql_rs by chance only.
VALUES = {
    "sigmoid": {11: 20.0, 12: 24.0, 13: 22.0},
    "eql": {11: 21.0, 12: 25.5, 13: 24.0},
    "eql_rs": {11: 22.0, 12: 24.5, 13: 24.5},
}


class TestStatistics:
    def test_describe_is_mean_and_standard_deviation_with_n_minus_1(self):
        sample = describe([1.0, 2.0, 6.0])
        assert (sample.n, sample.mean) == (3, 3.0)
        assert sample.sd == pytest.approx(math.sqrt(7))

    def test_one_run_has_no_spread_and_none_no_mean(self):
        assert math.isnan(describe([4.0]).sd)
        assert math.isnan(describe([]).mean)

    def test_interval_of_three_pairs_by_the_table_of_students_t(self):
        found = paired_difference({1: 1.0, 2: 2.5, 3: 4.0}, {1: 0.0, 2: 1.0, 3: 2.0})
        half = 4.302653 * 0.5 / math.sqrt(3)  # t(0.975, 2 degrees of freedom)
        assert (found.n, found.mean, found.sd) == (3, 1.5, pytest.approx(0.5))
        assert (found.low, found.high) == (pytest.approx(1.5 - half, abs=1e-6), pytest.approx(1.5 + half, abs=1e-6))

    @pytest.mark.parametrize("n", [2, 5, 30])
    def test_interval_equals_scipys_of_the_paired_test(self, n):
        rng = np.random.default_rng(n)
        a, b = rng.normal(30, 3, n), rng.normal(29, 3, n)
        found = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
        theirs = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
        assert (found.low, found.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
        assert found.sign == int(theirs.low > 0) - int(theirs.high < 0)

    def test_pairs_are_runs_of_equal_seed_whatever_their_order(self):
        found = paired_difference({3: 10.0, 1: 5.0, 9: 99.0}, {1: 4.0, 2: 0.0, 3: 8.0})
        assert (found.n, found.mean) == (2, 1.5)

    def test_pairing_takes_out_what_seeds_have_in_common(self):
        paired = paired_difference({1: 10.0, 2: 20.0, 3: 30.0}, {1: 9.0, 2: 19.1, 3: 28.9})
        assert paired.sign == 1
        crossed = paired_difference({1: 10.0, 2: 20.0, 3: 30.0}, {2: 9.0, 3: 19.1, 1: 28.9})
        assert crossed.sign == 0

    def test_fewer_than_two_pairs_have_no_interval(self):
        found = paired_difference({1: 3.0}, {1: 1.0})
        assert (found.n, found.mean, found.sign) == (1, 2.0, 0)
        assert math.isnan(found.low)
        assert paired_difference({1: 3.0}, {2: 1.0}).n == 0

    def test_quotient_is_the_geometric_mean_and_leaves_out_what_is_not_positive(self):
        found = paired_ratio({1: 2.0, 2: 8.0, 3: 5.0}, {1: 1.0, 2: 1.0, 3: 0.0})
        assert (found.n, found.mean) == (2, pytest.approx(4.0))
        same = paired_difference({1: math.log(2), 2: math.log(8)}, {1: 0.0, 2: 0.0})
        assert found.low == pytest.approx(math.exp(same.low))

    @pytest.mark.parametrize(
        ("values", "published", "expected"),
        [
            ((2.0, 2.1), 1.0, "as reported"),
            ((-2.0, -2.1), 1.0, "opposite"),
            ((-2.0, -2.1), -0.3, "as reported"),
            ((-2.0, 2.1), 1.0, "open"),
            ((2.0, 2.1), math.nan, "higher"),
            ((-2.0, -2.1), 0.0, "lower"),
            ((2.0,), 1.0, "missing"),
        ],
    )
    def test_finding_follows_from_interval_and_published_sign(self, values, published, expected):
        ours = dict(enumerate(values))
        assert finding(paired_difference(ours, dict.fromkeys(ours, 0.0)), published) == expected


def gradient_table(scale: float = 1.0) -> pd.DataFrame:
    rows = []
    for window in range(2):
        for category, letter in ((1, "r"), (2, "r"), (3, "f")):
            up, down = 2.0 + window, scale * category
            rows.append([window, 100 * (window + 1), category, up, down, 4.0, 400.0, letter])
    return pd.DataFrame(rows, columns=[*COLUMNS, "frequency"])


class TestGradients:
    def test_ratios_are_sums_over_sums_by_group_and_window(self):
        found = group_ratios(gradient_table()).set_index(["frequency", "window"])
        assert found.loc["r", 0]["ratio"] == pytest.approx((1 + 2) / (2 + 2))
        assert found.loc["r", 1]["ratio"] == pytest.approx((1 + 2) / (3 + 3))
        assert found.loc["r", -1]["ratio"] == pytest.approx(6 / 10)
        assert found.loc["f", -1]["negatives_per_positive"] == 100
        assert found.loc["f", -1]["images"] == 200

    def test_ratio_of_a_category_is_over_the_whole_training(self):
        found = category_ratios(gradient_table()).set_index("category_id")
        assert found.loc[2]["ratio"] == pytest.approx(4 / 5)


class TestMatchedScores:
    def test_equal_a_plain_search_and_count_unmatched_objects(self, tmp_path: Path):
        write_tiny_world(tmp_path, images=24)
        truth = tmp_path / "datasets/lvis/lvis_v0.5_val.json"
        table = fabricate(truth, tmp_path / "d.parquet", recipe="tiny")
        dataset = read_lvis(truth, "val")
        objects = GroupObjects(dataset, "f")
        found = objects.matched_scores(table)
        assert len(found) == len(objects) > 10
        assert 0 < np.isnan(found).sum() < len(found)
        # At most one object of a category in an image: the best-scored detection that overlaps it is its match.
        expected = []
        images = {image.image_id: image for image in iter_images(table)}
        for image_id, (categories, masks) in objects.by_image.items():
            image = images.get(image_id)
            for category, mask in zip(categories, masks):
                if (categories == category).sum() > 1:
                    continue
                scores = [np.nan]
                for k in np.flatnonzero(image.category_ids == category) if image is not None else ():
                    rle = {"counts": image.rles[k], "size": objects.sizes[image_id]}
                    if mask_utils.iou([rle], [mask], [0])[0, 0] >= 0.5:
                        scores.append(float(image.scores[k]))
                expected.append(np.nanmax(scores) if len(scores) > 1 else np.nan)
        single = [value for value, alone in zip(found, _alone(objects)) if alone]
        np.testing.assert_allclose(np.sort(single), np.sort(expected))

    def test_images_without_detections_leave_their_objects_unmatched(self, tmp_path: Path):
        write_tiny_world(tmp_path, images=3)
        dataset = read_lvis(tmp_path / "datasets/lvis/lvis_v0.5_val.json", "val")
        objects = GroupObjects(dataset, "f")
        first = next(iter(objects.by_image))
        keep = {first: objects.by_image[first]}
        table = fabricate(tmp_path / "datasets/lvis/lvis_v0.5_val.json", tmp_path / "d.parquet", recipe="tiny")
        objects.by_image = {10**9: keep[first]}
        assert np.isnan(objects.matched_scores(table)).all()


def _alone(objects: GroupObjects) -> list[bool]:
    """For each object in the order of scores (images in file order): whether it is the only one of its category."""
    result = []
    for categories, _ in objects.by_image.values():
        result += [(categories == category).sum() == 1 for category in categories]
    return result


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up metrics, detections and gradient records of three settings and three seeds."""
    folder = tmp_path_factory.mktemp("ablations")
    models = [{"name": name, "detector": DETECTOR, "seeds": SEEDS} for name in VALUES]
    models[0]["training"] = {"loss": "sigmoid"}
    write_tiny_world(
        folder,
        models=models,
        experts=[],
        data={"openimages": {"enabled": False}},
        training={"schedule": {"images": 500}},
        ensemble={"members": [{"name": "eql_s11"}]},
        report={
            "tables": {
                "table2": {"sigmoid": ["sigmoid"], "eql": ["eql"]},
                "table3": {"eql": ["eql"], "eql_rs": ["eql_rs"]},
                "table5": {},
            },
            "ablations": {
                "comparisons": {"eql": ["sigmoid"], "eql_rs": ["eql", "sigmoid"]},
                "note": "Nothing was changed.",
            },
        },
    )
    truth = folder / "datasets/lvis/lvis_v0.5_val.json"
    train = json.loads(truth.read_text())
    ids = [category["id"] for category in train["categories"]]
    for category_id in set(ids) - {annotation["category_id"] for annotation in train["annotations"]}:
        first = train["annotations"][0]
        train["annotations"].append({**first, "id": 10_000 + category_id, "category_id": category_id})
    (folder / "datasets/lvis/lvis_v0.5_train.json").write_text(json.dumps(train))
    table = fabricate(truth, folder / "d.parquet", recipe="tiny")
    (folder / "benchmarks").mkdir()
    for name, by_seed in VALUES.items():
        for seed, ap in by_seed.items():
            model = f"{name}_s{seed}"
            write_metrics(folder / f"{model}.json", ap)
            down = 10.0 if name == "sigmoid" else 2.0
            rows = [(w, 250 * (w + 1), c, 1.0, down + w, 5, 500) for w in range(2) for c in ids]
            pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / f"{model}.csv", index=False)
            (folder / f"{model}.parquet").symlink_to(table)
            (folder / f"benchmarks/{model}.tsv").write_text("s\tcpu_time\n100\t80\n")
    return folder


def compare(folder: Path, output: Path, leave_out: tuple[str, ...] = ()) -> int:
    recipe, computed = ["--recipe", str(folder / "recipe.yaml")], output.with_suffix(".json")
    arguments = [*recipe, "--output", str(computed), "--benchmarks", str(folder / "benchmarks")]
    for option, suffix in (("--metrics", "json"), ("--detections", "parquet"), ("--gradients", "csv")):
        names = [f"{name}_s{seed}" for name in VALUES for seed in SEEDS]
        arguments += [option, *(f"{name}={folder / name}.{suffix}" for name in names if name not in leave_out)]
    assert call_step(compute_ablations.parser, compute_ablations.main, arguments) == 0
    arguments = [*recipe, "--ablations", str(computed), "--output", str(output)]
    return call_step(compare_settings.parser, compare_settings.main, arguments)


def differences(output: Path) -> pd.DataFrame:
    return pd.read_csv(output / "differences.csv").set_index(["setting", "reference", "metric"])


def test_report_of_made_up_runs_has_every_table_figure_and_finding(run_folder: Path, tmp_path: Path) -> None:
    with opened_files(run_folder) as opened, noted_inputs() as noted:
        assert compare(run_folder, tmp_path / "out") == 0
    read = {path.resolve() for path in opened if path.suffix != ".tsv"} - {run_folder / "recipe.yaml"}
    noted = {path for path in noted if path.is_file() and path != tmp_path / "out.json"}
    assert {path.resolve() for path in noted} == read, "inputs of the manifest"
    settings = pd.read_csv(tmp_path / "out/settings.csv").set_index("setting")
    assert settings.loc["sigmoid", "AP"] == pytest.approx(22.0)
    assert settings.loc["sigmoid", "AP_sd"] == pytest.approx(2.0)
    assert settings.loc["eql", "AP_fixed"] == pytest.approx(np.mean([20.5, 25.0, 23.5]))
    assert settings["images_seen"].tolist() == [500, 500, 500]
    found = differences(tmp_path / "out").loc["eql", "sigmoid", "AP_r"]
    assert (found["n"], found["difference"], found["sd"]) == (3, pytest.approx(1.5), pytest.approx(0.5))
    assert (found["report"], found["finding"]) == (pytest.approx(3.6), "as reported")
    text = (tmp_path / "out/ablations.md").read_text()
    assert "| eql − sigmoid" in text
    assert "+1.5 [+0.3, +2.7]" in text
    assert "It is open, because the interval contains 0, in" in text
    assert "eql_rs − eql AP (+0.2, paper +0.5)" in text
    assert "Every setting sees 500 images in all" in text
    assert "Nothing was changed." in text
    assert "9 jobs took 12 CPU minutes: about 6 minutes on two idle cores." in text
    page = (tmp_path / "out/index.html").read_text()
    for name in ("differences", "gradients", "gradients_by_category", "rare_scores"):
        assert (tmp_path / f"out/{name}.svg").stat().st_size > 2000
        assert f'<figure id="ablation-{name}">' in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_gradients_and_scores_are_compared_as_quotients_of_pairs(run_folder: Path, tmp_path: Path) -> None:
    compare(run_folder, tmp_path / "out")
    quotients = pd.read_csv(tmp_path / "out/quotients.csv").set_index(["setting", "reference", "quantity"])
    row = quotients.loc["eql", "sigmoid", "discouraging / encouraging gradient, frequent"]
    assert (row["n"], row["quotient"]) == (3, pytest.approx(5 / 21))
    text = (tmp_path / "out/ablations.md").read_text()
    assert "eql against sigmoid, discouraging / encouraging gradient, frequent: falls, times 0.24" in text
    assert "median score of matched rare objects: hardly moves, times 1.00" in text
    assert "removes 0% of the valid negative samples" in text
    runs = pd.read_csv(tmp_path / "out/mechanism.csv")
    assert len(runs) == 9
    assert runs["negatives_per_positive_r"].dropna().unique().tolist() == [100.0]
    assert (runs["matched_r"] > 0).all()


def test_text_says_what_pre_training_leaves_of_equal_numbers_of_images() -> None:
    recipe = load_recipe(CONFIG_FOLDER / "mini_ablations.yaml")
    runs = Runs(recipe)
    lines = design(runs, settings_frame(runs_frame(runs)), runs.missing())
    assert any("Every setting sees 4,800 images in all" in line for line in lines)
    assert any(line.startswith("eql_pr and eql_rs_pr: 2,400 of them in pre-training") for line in lines)
    assert sum("missing. no metrics given" in line for line in lines) == 40


@pytest.mark.parametrize("low_high", [(-2.0, 0.5), (-3.0, -1.0)])
def test_a_reason_is_given_where_eqls_sign_does_not_show_and_nowhere_else(low_high: tuple[float, float]) -> None:
    runs = Runs(load_recipe(CONFIG_FOLDER / "mini_crowded.yaml"))
    row = {"setting": "eql", "reference": "sigmoid", "metric": "AP_r", "report": 3.6}
    absent = pd.DataFrame([{**row, "finding": "open" if low_high[1] > 0 else "opposite"}])
    settings = settings_frame(runs_frame(runs))
    (reason,) = explanation(runs, settings, absent, 3100.0)
    assert "(AP_r)" in reason
    assert "this world has 3,100 of frequent categories; LVIS v0.5 has about 48,000" in reason
    assert explanation(runs, settings, pd.DataFrame([{**row, "finding": "as reported"}]), 3100.0) == []
    assert explanation(runs, settings, absent, None) == []


def test_a_metric_near_zero_is_called_so(run_folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(run_folder / "recipe.yaml")
    metrics = {}
    for seed in SEEDS:
        metrics[f"sigmoid_s{seed}"] = write_metrics(tmp_path / f"{seed}.json", 11.0)  # AP_r is 1
    row = {"setting": "eql", "reference": "sigmoid", "report": 3.0, "finding": "open"}
    frame = pd.DataFrame([{**row, "metric": "AP_r"}, {**row, "metric": "AP"}])
    runs = Runs(recipe, metrics=metrics)
    lines = explanation(runs, settings_frame(runs_frame(runs)), frame, 470.0)
    assert len(lines) == 2
    assert lines[0].startswith("AP_r is 1.0 with sigmoid: too close to 0")


def test_missing_runs_are_shown_and_their_seeds_make_no_pair(run_folder: Path, tmp_path: Path) -> None:
    assert compare(run_folder, tmp_path / "out", leave_out=("sigmoid_s12",)) == 0
    settings = pd.read_csv(tmp_path / "out/settings.csv").set_index("setting")
    assert settings.loc["sigmoid", ["n", "missing"]].tolist() == [2, 1]
    found = differences(tmp_path / "out").loc["eql", "sigmoid", "AP"]
    assert (found["n"], found["difference"]) == (2, pytest.approx(1.5))
    assert differences(tmp_path / "out").loc["eql_rs", "eql", "AP"]["n"] == 3
    assert "sigmoid_s12: missing. no metrics given" in (tmp_path / "out/ablations.md").read_text()
    runs = pd.read_csv(tmp_path / "out/runs.csv").set_index("model")
    assert math.isnan(runs.loc["sigmoid_s12", "AP"])


def test_a_comparison_of_missing_runs_only_is_missing_not_open(run_folder: Path, tmp_path: Path) -> None:
    absent = tuple(f"sigmoid_s{seed}" for seed in SEEDS)
    assert compare(run_folder, tmp_path / "out", leave_out=absent) == 0
    assert set(differences(tmp_path / "out").loc["eql", "sigmoid"]["finding"]) == {"missing"}
    assert "| sigmoid |" in (tmp_path / "out/ablations.md").read_text().replace("  ", "").replace(" |", " |")


def test_metrics_of_another_recipe_are_missing(run_folder: Path, tmp_path: Path) -> None:
    for path in run_folder.iterdir():
        if path.suffix in (".json", ".csv", ".yaml"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    write_metrics(tmp_path / "sigmoid_s11.json", 99.0, recipe="other")
    (tmp_path / "benchmarks").mkdir()
    assert compare(tmp_path, tmp_path / "out") == 0
    assert "belongs to recipe 'other'" in (tmp_path / "out/ablations.md").read_text()
    assert differences(tmp_path / "out").loc["eql", "sigmoid", "AP"]["n"] == 2


def test_published_differences_come_from_a_table_that_has_both_settings(run_folder: Path) -> None:
    recipe = load_recipe(run_folder / "recipe.yaml")
    assert published_difference(recipe, "eql", "sigmoid")["APr"] == pytest.approx(10.1 - 6.5)
    assert published_difference(recipe, "eql_rs", "eql")["APf"] == pytest.approx(24.5 - 25.1)
    assert published_difference(recipe, "eql_rs", "sigmoid") == {}


def test_a_recipe_that_compares_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_tiny_world(tmp_path, images=2)
    arguments = ["--recipe", str(recipe), "--output", str(tmp_path / "out")]
    assert call_step(compute_ablations.parser, compute_ablations.main, arguments) == 2
    assert "names nothing to compare" in capsys.readouterr().err


def test_cpu_time_is_summed_over_all_benchmark_files(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/x.tsv").write_text("s\tcpu_time\n9\t7.5\n")
    (tmp_path / "a/b/y.tsv").write_text("s\tcpu_time\n9\tNA\n")
    (tmp_path / "a/b/damaged.tsv").write_text("")
    assert job_seconds(sorted(tmp_path.rglob("*.tsv")), "cpu_time") == (7.5, 2)
    assert job_seconds([], "cpu_time") == (0.0, 0)
