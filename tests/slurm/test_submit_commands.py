"""What sbatch is told for every kind of job, built with the executor plugin's own code: needs no Slurm.

A job that asks for the wrong thing does not fail, it waits for ever.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_steps.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]
CPU_STAGES = {
    "index_coco_boxes",
    "select_openimages",
    "select_openimages_own",
    "rescore_ensemble",
    "gather_boxes",
    "gather_masks",
    "evaluate_lvis",
    "write_submission",
    "tabulate_summary",
    "draw_predictions",
}
TRAININGS = {"pretrain_coco", "finetune_lvis", "train_expert"}
DOWNLOADS = {
    "check_data",
    "download_lvis",
    "download_coco_annotations",
    "download_coco_images",
    "download_openimages_tables",
    "download_openimages_images",
    "download_openimages_own_images",
    "download_weights",
}


@lru_cache
def submissions(*arguments: str) -> list[dict[str, Any]]:
    """Jobs of `snakemake --profile slurm ... all` with the sbatch calls of their first three attempts."""
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("submissions.py"), "--profile", "slurm", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


def calls(rule: str, *arguments: str, attempt: int = 1) -> list[list[str]]:
    """Different sbatch calls of a rule, without what only names the job."""
    found: list[list[str]] = []
    for job in submissions(*arguments):
        if job["rule"] == rule:
            call = job["calls"][attempt - 1]
            start = [
                "sbatch",
                "--parsable",
                "--job-name",
                "run",
                "--output",
                f"logs/rule_{rule}/%j.log",
                "--export=ALL",
            ]
            assert call[: len(start)] == start
            rest = call[call.index("--comment") + 2 :]
            if rest not in found:
                found.append(rest)
    return found


def config(gpus: int = 8, nodes: int = 1) -> tuple[str, ...]:
    """Arguments for the challenge recipe with these GPUs per node and nodes of a training."""
    compute = f"compute={{training_gpus: {gpus}, training_nodes: {nodes}, longest_hours: 40}}"
    return ("--configfile", "config/challenge.yaml", "--config", compute, "--", "all")


@pytest.mark.parametrize("rule", sorted(TRAININGS))
def test_training_on_one_node_gets_all_gpus_of_one_task(rule):
    assert calls(rule, *config()) == [
        ["-t", "1440", "--mem", "64000", "--nodes=1", "--requeue", "--cpus-per-task=64", "--gpus=8"]
    ]


@pytest.mark.parametrize("rule", sorted(TRAININGS))
def test_training_on_two_nodes_gets_one_task_and_the_same_gpus_on_each(rule):
    gpus = ["--gpus-per-node=4", "--gpus=8"]
    assert calls(rule, *config(4, 2)) == [
        ["-t", "1440", "--mem", "64000", "--nodes=2", "--requeue", "--ntasks=2", "--cpus-per-task=32", *gpus]
    ]


def test_training_starts_the_processes_that_its_job_has_room_for():
    for nodes, gpus in ((1, 8), (2, 4)):
        jobs = submissions(*config(gpus, nodes))
        shells = [job["shell"] for job in jobs if job["rule"] in TRAININGS]
        assert len(shells) == 6
        start = f"python -m pipeline_steps.launch --gpus {gpus * nodes} --nodes {nodes} --threads {8 * gpus} train "
        assert all(shell.startswith(start) for shell in shells)
        assert all(" --stop-before-minutes 1440 " in shell for shell in shells)


def test_training_without_gpus_asks_for_none():
    assert calls("finetune_lvis", "--configfile", "config/smoke.yaml", "--", "all") == [
        ["-t", "1440", "--mem", "4000", "--nodes=1", "--requeue", "--ntasks=1", "--cpus-per-task=1"]
    ]


@pytest.mark.parametrize("rule", ["predict_boxes", "predict_masks"])
def test_every_shard_of_inference_asks_for_the_same_so_that_they_can_be_an_array(rule):
    assert calls(rule, *config()) == [["-t", "240", "--mem", "64000", "--requeue", "--cpus-per-task=8", "--gpus=1"]]


def test_cpu_stages_ask_for_no_gpu_and_always_for_time_and_memory():
    jobs = [job for job in submissions(*config()) if job["rule"] in CPU_STAGES]
    assert {job["rule"] for job in jobs} == CPU_STAGES
    for job in jobs:
        for call in job["calls"]:
            assert not any("gpu" in word or "gres" in word for word in call), job["rule"]
            assert {"-t", "--mem", "--ntasks=1", "--cpus-per-task=1"} <= set(call), job["rule"]


def test_downloads_run_where_snakemake_runs_and_nothing_else_does():
    local = {job["rule"] for job in submissions(*config()) if not job["calls"]}
    assert local == DOWNLOADS | {"all"}


def test_downloads_are_jobs_if_the_recipe_says_so():
    jobs = submissions("--config", "data={download: {on_this_machine: false}}")
    assert {job["rule"] for job in jobs if job["calls"]} >= DOWNLOADS


@pytest.mark.parametrize("rule", sorted(TRAININGS))
def test_time_of_trainings_grows_with_the_attempt_up_to_the_longest_job(rule):
    limits = [calls(rule, *config(), attempt=attempt)[0][:4] for attempt in (1, 2, 3)]
    assert limits == [["-t", str(60 * hours), "--mem", "64000"] for hours in (24, 40, 40)]


@pytest.mark.parametrize("rule", sorted(CPU_STAGES))
def test_time_and_memory_of_cpu_stages_grow_with_the_attempt(rule):
    first, _, third = (calls(rule, *config(), attempt=attempt)[0] for attempt in (1, 2, 3))
    for option in ("-t", "--mem"):
        assert int(third[third.index(option) + 1]) == 3 * int(first[first.index(option) + 1])


def test_settings_of_the_site_reach_every_job():
    everywhere = ("slurm_account=vision", "slurm_partition=cpu", "mem_mb=4000", "runtime=60")
    rules = [*sorted(TRAININGS), "predict_boxes", "predict_masks", "count_samples"]
    gpu = [f"{rule}:{name}" for rule in rules for name in ("slurm_partition=gpu", "constraint=a100")]
    jobs = submissions("--default-resources", *everywhere, "--set-resources", *gpu, "--", "all")
    for job in jobs:
        for call in job["calls"]:
            has_gpu = any(word.startswith("--gpus") for word in call)
            assert has_gpu == (job["rule"] in rules)
            assert " ".join(["-A vision", "-p gpu" if has_gpu else "-p cpu"]) in " ".join(call)
            assert ("-C a100" in " ".join(call)) == has_gpu


def profile() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())


def test_arrays_are_never_split_by_a_limit_of_the_profile():
    """The plugin holds back a part of the ready shards until the rest comes, and a limit keeps that from coming."""
    shards = Recipe.model_json_schema()["$defs"]["Testing"]["properties"]["shards"]["maximum"]
    most = 20 * shards  # tables of boxes or masks that become ready at the same time, in a recipe of ten members
    assert set(profile()["slurm-array-jobs"].split(",")) == {"predict_boxes", "predict_masks"}
    assert profile()["jobs"] >= most
    number, _, seconds = profile()["max-jobs-per-timespan"].partition("/")
    assert int(number) >= most
    assert seconds == "1s"


def test_profile_names_no_site():
    assert not {"slurm_account", "slurm_partition", "constraint", "slurm_extra"} & set(profile()["default-resources"])
