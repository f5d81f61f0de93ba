"""What a run says at its start and at its end, and the GPU hours that it announces."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.banners import failure_message, is_dry_run, plan_banner, start_banner
from pipeline_steps.recipe.gpu_hours import (
    REFERENCE_PIXELS,
    SPEEDS,
    estimate,
    estimate_lines,
    pixels,
    speed_of,
    training_pixels,
)
from pipeline_steps.recipe.load import resolve_recipe
from pipeline_steps.recipe.training import Augmentation

CONFIG = Path(__file__).parents[2] / "config"
NOTHING = lambda output: False  # noqa: E731


def challenge(**values):
    return resolve_recipe({"extends": "challenge.yaml", **values})


def hours(recipe, exists=NOTHING) -> dict[str, float]:
    return {stage.name: stage.missing for stage in estimate(recipe, exists)}


def test_training_hours_are_images_times_size_times_constant():
    recipe = challenge(training={"augmentation": {"shorter_edge": [800], "shorter_edge_sampling": "choice"}})
    assert speed_of(recipe.model("x101_coco")) == dict(SPEEDS)["x101_dcn"]
    per_image = dict(SPEEDS)["x101_dcn"].train + dict(SPEEDS)["se154"].train
    assert hours(recipe)["LVIS fine-tuning"] == pytest.approx(1_440_000 * per_image / 3600, rel=0.001)


def test_variants_count_the_boxes_that_they_share_with_the_recipe_or_each_other_once():
    one = {"testing": {"box_scales": [800], "mask_scales": [800], "mask_models": ["x101"]}}
    alone = {**one, "ensemble": {"members": [{"name": "x101"}]}}
    speed = dict(SPEEDS)["x101_dcn"].test * 5000 * pixels(800, 1400) / REFERENCE_PIXELS
    both = challenge(variants={"a": alone, "b": {**alone, "ensemble": {**alone["ensemble"], "iou": 0.6}}})
    assert hours(both)["variants for tables"] == pytest.approx(3 * speed / 3600)
    shared = challenge(variants={"a": {"testing": {**one["testing"], "box_scales": challenge().testing.box_scales}}})
    assert hours(shared)["variants for tables"] == pytest.approx(speed / 3600)
    assert "variants for tables" not in hours(challenge())


def test_test_hours_count_scales_that_become_equal_once():
    one = challenge(testing={"box_scales": [800], "mask_scales": [800], "longer_edge": 1400})
    same = challenge(testing={**one.testing.model_dump(), "box_scales": [800, 1050, 1200, 1400]})
    area = pixels(1050, 1400) / pixels(800, 1400)
    assert hours(same)["box testing"] == pytest.approx(hours(one)["box testing"] * (1 + area))
    flipped = challenge(testing={"box_scales": [800], "mask_scales": [800], "horizontal_flip": True})
    assert hours(flipped)["box testing"] == 2 * hours(one)["box testing"]
    assert hours(flipped)["mask testing"] == 2 * hours(one)["mask testing"]


def test_sizes_drawn_from_a_range_count_with_their_mean():
    ranged = Augmentation(shorter_edge=[400, 1400], shorter_edge_sampling="range", longer_edge=10_000)
    exact = 4 / 3 * (1400**3 - 400**3) / 3 / 1000
    assert training_pixels(ranged) == pytest.approx(exact, rel=0.01)


def test_what_is_on_the_disk_is_not_counted_again(tmp_path):
    recipe = challenge()
    done = tmp_path / "pretrain/x101_coco/model.pth"
    done.parent.mkdir(parents=True)
    done.touch()
    lines = estimate_lines(recipe, str(tmp_path))
    (row,) = [line.split() for line in lines if "pre-training" in line]
    assert float(row[-1]) < float(row[-2])
    assert "on the disk:       1 of 6 models" in plan_banner(recipe, str(tmp_path))


def test_recipes_without_gpus_announce_none(tmp_path):
    assert "none" in estimate_lines(load_recipe(CONFIG / "mini.yaml"), str(tmp_path))[0]


def test_start_banner_counts_the_jobs_of_each_rule(tmp_path):
    banner = start_banner(challenge(), str(tmp_path), {"predict_boxes": 64, "finetune_lvis": 1})
    assert banner.splitlines()[-1].split(":")[1].strip() == "1 finetune_lvis, 64 predict_boxes"
    assert start_banner(challenge(), str(tmp_path), {}).endswith("nothing")


@pytest.mark.parametrize("arguments", [["-n"], ["all", "--dry-run"], ["--dryrun"], ["-np", "all"], ["-Fn"]])
def test_dry_runs_are_recognised(arguments):
    assert is_dry_run(arguments)


@pytest.mark.parametrize("arguments", [["all"], ["--lint"], ["--cores", "n"], ["-j", "4"], ["--config", "name=n"]])
def test_other_runs_are_not_taken_for_dry_runs(arguments):
    assert not is_dry_run(arguments)


def job(tmp_path, rule="finetune_lvis", text="", jobid=1, **wildcards):
    log = tmp_path / f"logs/{rule}_{jobid}.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text(text)
    rule = SimpleNamespace(name=rule)
    return SimpleNamespace(
        rule=rule, jobid=jobid, log=[str(log)], wildcards_dict=wildcards, wildcards=list(wildcards.values())
    )


def test_failure_shows_the_failed_job_and_not_the_newest_log(tmp_path):
    failed = job(tmp_path, text="iteration 5\nerror: train.json: no frequency\n", model="basic")
    other = job(tmp_path, rule="make_mini", text="all well\n", jobid=2)
    os.utime(failed.log[0], (1, 1))
    message = failure_message([failed])
    assert "finetune_lvis (model=basic) failed; its log is" in message
    assert "  | error: train.json: no frequency" in message
    assert other.log[0] not in message
    assert "start the same command again" in message


def test_failure_without_an_error_of_the_step_points_outside(tmp_path):
    killed = job(tmp_path, text="iteration 5\n", model="basic")
    cluster = tmp_path / "slurm_logs/rule_finetune_lvis/basic"
    cluster.mkdir(parents=True)
    (cluster / "7.log").write_text("slurmstepd: error: *** JOB 7 CANCELLED AT NOON DUE TO TIME LIMIT ***\n")
    message = failure_message([killed], tmp_path / "slurm_logs")
    assert "ended from outside" in message
    assert "DUE TO TIME LIMIT" in message
    assert "ended from outside" in failure_message([job(tmp_path, text="")])


def test_failure_of_one_task_of_an_array_finds_the_log_of_the_array(tmp_path):
    logs = tmp_path / "slurm_logs/rule_predict_boxes"
    logs.mkdir(parents=True)
    (logs / "7_2.log").write_text("slurmstepd: out of memory\n")
    failed = job(tmp_path, rule="predict_boxes", split="val", shard="1")
    assert "slurmstepd: out of memory" in failure_message([failed], tmp_path / "slurm_logs")


def test_many_failures_are_counted(tmp_path):
    message = failure_message([job(tmp_path, text="error: no\n", jobid=number) for number in range(9)])
    assert message.count("failed; its log is") == 3
    assert "and 6 more" in message
