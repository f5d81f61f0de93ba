"""The smallest recipe through Snakemake: every rule runs, and afterwards only what depends on a change runs again."""

from __future__ import annotations

import csv
import json
import re

import pytest

from pipeline_steps.report.figures.captions import CAPTIONS
from tests.report.browser import BROKEN_LINKS, TOO_WIDE, UNDRAWN, browser_page, find_browser

pytestmark = pytest.mark.slow

AFTER_BOXES = {"rescore_ensemble", "predict_masks", "gather_masks", "evaluate_lvis", "write_submission"}
AFTER_BOXES |= {"compare_results", "measure_ensemble_gain", "sweep_rescoring", "judge_detections"}
REPORT = {"tabulate_summary", "draw_predictions", "plot_figures", "write_report"}
CHECKS = {"undrawn": UNDRAWN, "broken links": BROKEN_LINKS, "too wide": TOO_WIDE}
TRAINING = {"make_mini", "pretrain_coco", "finetune_lvis", "train_expert"}


def rerun(smoke, *config: str) -> set[str]:
    return set(
        smoke.planned("--configfile", "config/smoke.yaml", *(("--config", *config) if config else ()), "--", "all")
    )


def test_every_rule_of_the_recipe_ran_and_left_its_log(smoke):
    ran = set(re.findall(r"^(?:local)?rule (\w+):$", smoke.first_run.stdout, re.MULTILINE))
    assert ran >= {*TRAINING, *AFTER_BOXES, *REPORT, "gather_boxes", "count_samples"}
    logs = {
        path.relative_to(smoke.folder / "results/smoke/logs").parts[0]
        for path in smoke.folder.glob("results/smoke/logs/**/*.log")
    }
    assert {name.removesuffix(".log") for name in logs} == ran


def test_results_are_where_the_readme_says(smoke):
    results = smoke.folder / "results/smoke"
    for name in (
        "submission/submission.json",
        "submission/submission.zip",
        "report/summary.md",
        "report/summary.csv",
        "report/gallery.html",
        "report/index.html",
        "report/samples.json",
        "analysis/ensemble_gain.json",
        "analysis/rescoring.json",
        "analysis/scores.json",
        "report/missing_annotations.html",
        "rule_graph.json",
        "evaluation/ensemble/metrics.json",
        "evaluation/basic/metrics.json",
        "recipe.yaml",
    ):
        assert (results / name).stat().st_size > 0, name
    metrics = json.loads((results / "evaluation/ensemble/metrics.json").read_text())
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AP_fixed"} <= set(metrics)
    assert not list(smoke.folder.rglob("*.unfinished-*"))


def test_categories_count_the_images_of_the_train_file(smoke):
    train = json.loads((smoke.folder / "datasets/smoke/lvis/lvis_v0.5_train.json").read_text())
    counts = {str(category["id"]): str(category["image_count"]) for category in train["categories"]}
    for name in ("basic", "ensemble"):
        with (smoke.folder / f"results/smoke/evaluation/{name}/categories.csv").open() as file:
            assert {row["category_id"]: row["train_images"] for row in csv.DictReader(file)} == counts


def test_end_banner_shows_the_table_and_the_submission(smoke):
    end = smoke.first_run.stdout.split("recipe smoke: finished")[1]
    assert "| ensemble" in end
    assert "results/smoke/submission/submission.json" in end
    assert "results/smoke/report/index.html" in end


def test_snakemakes_own_report_has_every_table_figure_and_page_with_its_caption(smoke):
    report = smoke.folder / "report.html"
    result = smoke.run("--configfile", "config/smoke.yaml", "--report", str(report))
    assert result.returncode == 0, result.stdout[-3000:]
    text = report.read_text(encoding="utf-8", errors="replace")
    drawn = json.loads((smoke.folder / "results/smoke/report/figures/figures.json").read_text())
    titles = [CAPTIONS[name].title for name, missing in drawn.items() if not missing]
    assert len(titles) >= len(CAPTIONS) - 1
    assert [title for title in titles if title not in text] == []
    for name in ("summary.md", "gallery.html", "missing_annotations.html", "index.html"):
        assert f"results/smoke/report/{name}" in text, name


@pytest.mark.skipif(find_browser() is None, reason="no browser (chromium) to look at the page with")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_of_the_run_is_whole_in_a_browser(smoke, tmp_path, width):
    page = smoke.folder / "results/smoke/report/index.html"
    with browser_page(find_browser(), tmp_path, page, width) as browser:
        found = {name: browser.run(check) for name, check in CHECKS.items()}
        assert browser.problems == []
        assert not any(found.values()), found
        assert browser.run("document.documentElement.scrollWidth") == width
        assert browser.run("document.querySelectorAll('.absent').length") == 0


def test_second_run_has_nothing_to_do(smoke):
    assert rerun(smoke) == set()


def test_changed_rescoring_reruns_the_ensemble_and_what_depends_on_it_but_no_model(smoke):
    assert rerun(smoke, "ensemble={alpha: {rare: 0.3}}") == AFTER_BOXES | REPORT


def test_changed_ensemble_weight_touches_no_model_and_no_member_prediction(smoke):
    names = ("bottleneck", "coco_expert", "openimages_expert")
    members = "{name: basic, weight: 2.0}, " + ", ".join(f"{{name: {name}}}" for name in names)
    assert rerun(smoke, f"ensemble={{members: [{members}]}}") == AFTER_BOXES | REPORT


def test_changed_test_scales_rerun_inference_but_no_training(smoke):
    changed = rerun(smoke, "testing={box_scales: [80]}")
    assert {"predict_boxes", "gather_boxes"} < changed
    assert not changed & {"pretrain_coco", "finetune_lvis", "train_expert", "make_mini"}


def test_changed_training_setting_reruns_trainings(smoke):
    changed = rerun(smoke, "training={repeat_factor_threshold: 0.01}")
    assert {"finetune_lvis", "train_expert"} < changed
    assert not changed & {"make_mini", "pretrain_coco", "select_openimages"}


@pytest.mark.parametrize("option", ["compute={threads: 2}", "training={log_images: 4}", "compute={memory_gb: 3}"])
def test_resources_and_log_intervals_rerun_nothing(smoke, option):
    assert rerun(smoke, option) == set()


def test_one_stage_again_reruns_it_and_only_what_depends_on_it(smoke):
    planned = smoke.planned("--configfile", "config/smoke.yaml", "-R", "rescore_ensemble", "--", "submission")
    assert set(planned) == {"rescore_ensemble", "predict_masks", "gather_masks", "write_submission"}
    assert planned["rescore_ensemble"] == 1


def test_lost_submission_is_written_again_without_anything_else(smoke):
    submission = smoke.folder / "results/smoke/submission/submission.json"
    before = submission.read_bytes()
    submission.unlink()
    assert rerun(smoke) == {"write_submission"}
    result = smoke.run("--configfile", "config/smoke.yaml", "--cores", "2", "all")
    assert result.returncode == 0, result.stdout[-3000:]
    assert submission.read_bytes() == before
