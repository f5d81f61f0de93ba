"""Planning needs no data, and wrong configuration stops before anything is planned."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.workflow.checkout import TARGETS

COMMON = {
    "index_coco_boxes": 1,
    "select_openimages": 1,
    "select_openimages_own": 1,
    "pretrain_coco": 2,
    "finetune_lvis": 2,
    "train_expert": 2,
    "gather_boxes": 8,
    "rescore_ensemble": 2,
    "gather_masks": 4,
    "evaluate_lvis": 5,
    "compare_results": 1,
    "write_submission": 1,
    "tabulate_summary": 1,
    "tabulate_table": 1,
    "draw_predictions": 1,
    "count_samples": 1,
    "measure_ensemble_gain": 1,
    "sweep_rescoring": 1,
    "judge_detections": 1,
    "plot_figures": 1,
    "write_report": 1,
}


def test_challenge_recipe_is_the_default_and_plans_every_stage_without_data(checkout):
    assert checkout.planned("--", "all") == {
        **COMMON,
        "download_lvis": 3,
        "download_coco_annotations": 2,
        "download_coco_images": 1,
        "download_openimages_tables": 5,
        "check_data": 9,
        "choose_openimages": 1,
        "choose_openimages_own": 1,
        "download_openimages_images": 1,
        "download_openimages_own_images": 1,
        "download_weights": 2,
        "convert_weights": 2,
        "predict_boxes": 8 * 32,
        "predict_masks": 4 * 32,
    }
    assert not (checkout.folder / "results").exists()


def test_changes_on_the_command_line_drop_models_members_and_experts_by_name(checkout):
    without = dict.fromkeys(("bottleneck", "openimages_expert"))
    (checkout.folder / "less.yaml").write_text(
        yaml.safe_dump({"models": {"bottleneck": None}, "experts": {"openimages_expert": None}, "seed": 7})
    )
    (checkout.folder / "members.yaml").write_text(yaml.safe_dump({"ensemble": {"members": without}}))
    planned = checkout.planned("--configfile", "config/mini.yaml", "less.yaml", "members.yaml", "--", "all")
    assert {name: planned[name] for name in ("pretrain_coco", "finetune_lvis", "train_expert", "gather_boxes")} == {
        "pretrain_coco": 1,
        "finetune_lvis": 1,
        "train_expert": 1,
        "gather_boxes": 4,
    }
    result = checkout.run("--configfile", "config/mini.yaml", "less.yaml", "--cores", "1", "-n", "--", "all")
    assert result.returncode != 0
    assert (
        "ensemble member 'bottleneck' is neither a model nor an expert (less.yaml takes away bottleneck"
        in result.stdout
    )


def test_lvis_v1_is_a_recipe_of_its_own_with_the_same_stages_and_no_file_of_v05(checkout):
    v1 = ("--configfile", "config/challenge_v1.yaml")
    expected = dict(checkout.planned("--", "all"))
    del expected["tabulate_table"]  # the paper's tables are of v0.5
    assert checkout.planned(*v1, "--", "all") == expected
    shown = checkout.run(*v1, "--cores", "1", "-n", "-p", "--", "submission").stdout
    assert "datasets/lvis/lvis_v1_image_info_test_dev.json" in shown
    assert "lvis_v0.5" not in shown


def test_the_published_results_on_v1_have_a_recipe_in_their_setting(checkout):
    planned = checkout.planned("--configfile", "config/ablations_v1.yaml", "--", "lvis_v1")
    assert (planned["finetune_lvis"], planned["evaluate_lvis"], planned["tabulate_table"]) == (3, 3, 1)
    assert planned["pretrain_coco"] == planned["train_expert"] == planned["download_openimages_tables"] == 0


def test_mini_recipe_plans_the_same_stages_on_the_mini_world(checkout):
    planned = checkout.planned("--configfile", "config/mini.yaml", "--", "all")
    expected = {**COMMON, "make_mini": 1, "predict_boxes": 8, "predict_masks": 4}
    del expected["tabulate_table"]  # the paper's tables are of LVIS
    assert planned == expected
    assert checkout.planned("--configfile", "config/mini_v1.yaml", "--", "all") == expected


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_stage_is_a_target_of_its_own(checkout, target):
    assert checkout.planned("--configfile", "config/mini.yaml", "--", target)


@pytest.mark.parametrize(("table", "models"), [("table1", 2), ("table2", 2), ("table3", 7)])
def test_tables_of_the_report_train_just_the_models_of_their_rows(checkout, table, models):
    planned = checkout.planned("--configfile", "config/ablations.yaml", "--", table)
    assert planned["finetune_lvis"] == models
    assert planned["evaluate_lvis"] == models
    assert planned["tabulate_table"] == 1
    assert planned["train_expert"] == planned["choose_openimages"] == 0


def test_table4_trains_two_more_models_and_shares_what_rows_have_in_common(checkout):
    planned = checkout.planned("--configfile", "config/table4.yaml", "--", "table4")
    one_scale, all_scales = 4, 4  # both models with and without OpenImages; both models and the experts
    assert planned["predict_boxes"] == 32 * (one_scale + all_scales)
    assert planned["rescore_ensemble"] == planned["gather_masks"] == planned["evaluate_lvis"] == 6
    assert planned["predict_masks"] == 32 * 6
    assert (planned["finetune_lvis"], planned["pretrain_coco"], planned["train_expert"]) == (4, 2, 2)
    assert planned["write_submission"] == 0


def test_table5_is_the_ensemble_of_the_default_recipe(checkout):
    planned = checkout.planned("--", "table5")
    assert (planned["evaluate_lvis"], planned["finetune_lvis"], planned["predict_boxes"]) == (1, 2, 4 * 32)


def test_variants_are_made_for_their_tables_only(checkout):
    planned = checkout.planned("--configfile", "config/mini_table4.yaml", "--", "all")
    assert (planned["rescore_ensemble"], planned["evaluate_lvis"]) == (2, 7)


@pytest.mark.parametrize(("recipe", "settings", "pretrainings"), [("mini_ablations", 8, 5), ("mini_crowded", 2, 5)])
def test_ablations_train_and_evaluate_every_setting_with_every_seed_and_nothing_else(
    checkout, recipe, settings, pretrainings
):
    planned = checkout.planned("--configfile", f"config/{recipe}.yaml", "--", "ablations")
    runs = 5 * settings
    of_runs = dict.fromkeys(
        ["finetune_lvis", "predict_boxes", "gather_boxes", "predict_masks", "gather_masks", "evaluate_lvis"], runs
    )
    needed = {"index_coco_boxes": 1} if recipe == "mini_ablations" else {}
    assert planned == {
        "make_mini": 1,
        "pretrain_coco": pretrainings,
        **of_runs,
        **needed,
        "compute_ablations": 1,
        "compare_settings": 1,
        "ablations": 1,
    }


def test_ablations_of_a_recipe_without_comparisons_name_one_that_has_them(checkout):
    result = checkout.run("--configfile", "config/mini.yaml", "--cores", "1", "-n", "--", "ablations")
    assert result.returncode != 0
    assert "recipe mini names no report.ablations.comparisons; config/mini_ablations.yaml does" in result.stdout


def test_inspection_is_a_target_of_its_own_and_no_part_of_a_run(checkout):
    planned = checkout.planned("--configfile", "config/mini.yaml", "--", "inspect")
    assert (planned["inspect"], planned["write_submission"], planned["plot_figures"]) == (1, 0, 0)
    assert checkout.planned("--configfile", "config/mini.yaml", "--", "all")["inspect"] == 0


def test_a_larger_batch_trains_on_more_nodes_without_another_change(checkout):
    changes = ("--config", "training={images_per_batch: 64}", "compute={training_nodes: 8}")
    shown = checkout.run(*changes, "--cores", "1", "--dry-run", "--printshellcmds", "--", "finetune").stdout
    assert shown.count("pipeline_steps.launch --gpus 64 --nodes 8 ") == 4, shown


def test_an_ensemble_of_one_member_has_no_gain_to_measure(checkout):
    one = ("--config", "ensemble={members: [{name: basic}]}")
    planned = checkout.planned("--configfile", "config/mini.yaml", *one, "--", "all")
    assert (planned["measure_ensemble_gain"], planned["plot_figures"]) == (0, 1)


def test_what_draws_asks_for_no_more_than_every_job_does(checkout):
    shown = checkout.run(
        "--configfile", "config/mini.yaml", "--cores", "1", "-n", "--quiet", "host", "--", "all"
    ).stdout
    asked = dict(re.findall(r"^rule (\w+):$.*?^ +resources: (.*?)$", shown, re.M | re.S))
    drawn = ("plot_figures", "draw_predictions", "write_report", "tabulate_summary")
    assert [name for name in drawn if "mem_mb" in asked[name] or "runtime" in asked[name]] == []
    computed = ("measure_ensemble_gain", "sweep_rescoring", "evaluate_lvis")
    assert all("mem_mb=8000" in asked[name] and "runtime" in asked[name] for name in computed)


def test_adding_a_model_and_a_scale_is_a_change_of_the_recipe_only(checkout):
    (checkout.folder / "more.yaml").write_text(
        "models:\n"
        "- {name: basic, detector: config/detectors/mini_basic_fpn.yaml, init: basic_coco}\n"
        "- {name: second, detector: config/detectors/mini_basic_fpn.yaml, seed: 7}\n"
        "- {name: third, detector: config/detectors/mini_basic_fpn.yaml, seed: 8}\n"
        "experts: []\n"
        "ensemble: {members: [{name: basic}, {name: second}, {name: third, weight: 0.5}]}\n"
        "testing: {box_scales: [96, 128, 144, 160]}\n"
    )
    planned = checkout.planned("--configfile", "config/mini.yaml", "more.yaml", "--", "all")
    assert planned["finetune_lvis"] == 3
    assert planned["train_expert"] == 0
    assert planned["pretrain_coco"] == 1
    assert planned["predict_boxes"] == 6


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("sede=1", ["unknown key 'sede'", "did you mean 'seed'?"]),
        ("testing={box_scale: [128]}", ["testing.box_scale", "did you mean 'box_scales'?"]),
        ("ensemble={members: [{name: nobody}]}", ["'nobody' is neither a model nor an expert"]),
        (
            "compute={training_gpus: 8, training_nodes: 3}",
            ["basic_coco: ", "images_per_batch 8 cannot be divided among 24 GPUs", "set the batch to 24"],
        ),
    ],
)
def test_wrong_configuration_is_one_clear_message(checkout, option, words):
    result = checkout.run("--configfile", "config/mini.yaml", "--config", option, "--cores", "1", "all")
    assert result.returncode != 0
    assert all(word in result.stdout for word in words), result.stdout
    assert "Traceback" not in result.stdout
    assert not (checkout.folder / "results").exists()
