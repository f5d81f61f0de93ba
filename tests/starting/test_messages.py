"""What a run says at its start and at its end."""

from __future__ import annotations

import os
from types import SimpleNamespace

from pipeline_steps.recipe.load import resolve_recipe
from pipeline_steps.run.result_files import ResultFiles
from pipeline_steps.starting.messages import failure_message, plan_banner, start_banner


def challenge(**values):
    return resolve_recipe({"extends": "challenge.yaml", **values})


def test_the_plan_says_what_is_on_the_disk(tmp_path):
    done = tmp_path / "pretrain/x101_coco/model.pth"
    done.parent.mkdir(parents=True)
    done.touch()
    assert "on the disk:       1 of 6 models" in plan_banner(ResultFiles(challenge(), tmp_path))


def test_start_banner_counts_the_jobs_of_each_rule(tmp_path):
    banner = start_banner(ResultFiles(challenge(), tmp_path), {"predict_boxes": 64, "finetune_lvis": 1})
    assert banner.splitlines()[-1].split(":")[1].strip() == "1 finetune_lvis, 64 predict_boxes"
    assert start_banner(ResultFiles(challenge(), tmp_path), {}).endswith("nothing")


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
    assert "run the same command again" in message


def test_failure_without_an_error_of_the_step_points_outside(tmp_path):
    killed = job(tmp_path, text="iteration 5\n", model="basic")
    cluster = tmp_path / "slurm_logs/rule_finetune_lvis/basic"
    cluster.mkdir(parents=True)
    (cluster / "7.log").write_text("slurmstepd: error: *** JOB 7 CANCELLED AT NOON DUE TO TIME LIMIT ***\n")
    message = failure_message([killed], tmp_path / "slurm_logs")
    assert "killed from outside" in message
    assert "DUE TO TIME LIMIT" in message
    assert "killed from outside" in failure_message([job(tmp_path, text="")])


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


def test_interrupted_run_has_no_cause_to_be_mended(tmp_path):
    assert "Fix the cause" not in failure_message([], interrupted=True)
    assert "run the same command again" in failure_message([], interrupted=True)
    assert "Fix the cause" in failure_message([])
    assert "Fix the cause" in failure_message([job(tmp_path, text="error: no\n")], interrupted=True)
