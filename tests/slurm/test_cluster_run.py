"""The smallest recipe on a real Slurm, with everything going wrong that goes wrong on a cluster."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.processes import kill_job, steps_in
from tests.slurm.cluster import Cluster
from tests.slurm.runs import ClusterRun, wait_for
from tests.workflow.checkout import Checkout

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(4000)]

# Time limits of two minutes for the first attempt of a training, four for the second; a GPU for each job.
COMPUTE = "compute={training_gpus: 1, inference_gpus: 1, training_hours: 0.0334}"
SMOKE = ("--configfile", "config/smoke.yaml", "--config", COMPUTE, "--", "all")


def manifest(path: Path) -> dict:
    return json.loads(path.read_text())


def freeze_training(run: ClusterRun, name: str, folder: Path) -> int:
    """Stop the processes of a training that has saved a checkpoint; returns how many."""
    run.wait(f"a checkpoint of {name}", lambda: list(folder.glob("checkpoint_*.pth")))
    return sum(step.send(signal.SIGSTOP) for step in steps_in(run.folder, "pipeline_steps.train", name))


def lose_node(run: ClusterRun, cluster: Cluster, spared: str) -> str:
    """Make a node fail that runs a training, but not the node ``spared``; returns the job that was on it."""

    def job_elsewhere() -> tuple[str, str] | None:
        found = cluster.running("rule_pretrain_coco") | cluster.running("rule_finetune_lvis")
        return next(((job, node) for job, node in found.items() if node != spared), None)

    job, node = run.wait("a training on the other node", job_elsewhere)
    cluster.set_node(node, "down")
    kill_job(job)
    run.wait("Slurm to put the job back into the queue", lambda: cluster.jobs()[job][0] == "PENDING")
    cluster.resume(node)
    return job


def drain_node(run: ClusterRun, cluster: Cluster) -> None:
    """Drain a node in use, and give it back when its jobs have ended."""
    node = next(iter(run.wait("a job", lambda: cluster.running("rule_")).values()))
    cluster.set_node(node, "drain")
    run.wait("the node to be empty", lambda: node not in cluster.running("rule_").values())
    cluster.resume(node)


@pytest.fixture(scope="module")
def disturbed(cluster, tmp_path_factory):
    """The recipe with one disturbance after the other; what happened is in its attributes."""
    checkout = Checkout(tmp_path_factory.mktemp("disturbed"))
    run = ClusterRun(cluster, checkout, *SMOKE)
    checkout.runs = [run]
    try:
        expert = checkout.folder / "results/smoke/experts/coco_expert"
        checkout.frozen = freeze_training(run, "coco_expert", expert)
        (checkout.timed_out, node) = next(iter(cluster.running("rule_train_expert_wildcards_coco_expert").items()))
        checkout.lost = lose_node(run, cluster, spared=node)
        run.wait("shards", lambda: cluster.running("rule_predict_boxes"))
        cluster.stop_controller()
        cluster.start_controller()
        checkout.cancelled = next(iter(run.wait("a shard", lambda: cluster.running("rule_predict_boxes"))))
        cluster.command("scancel", checkout.cancelled)
        drain_node(run, cluster)
        run.wait(
            "the expert's second attempt", lambda: "Trying to restart" in run.text and (expert / "model.pth").exists()
        )
        run.wait("shards of masks", lambda: cluster.running("rule_predict_masks"))
        checkout.stopped = run.stop()
        checkout.left_running = cluster.running("rule_")
        checkout.runs.append(ClusterRun(cluster, checkout, *SMOKE))
        checkout.runs[-1].finish()
        yield checkout
    finally:
        for each in checkout.runs:
            if each.process.poll() is None:
                each.process.kill()
        cluster.command("scancel", "--user=root", "--full", "--signal=KILL")


def test_submission_is_that_of_an_undisturbed_run_to_the_last_byte(smoke, disturbed):
    for name in ("submission/submission.json", "evaluation/ensemble/metrics.json", "report/summary.csv"):
        assert (disturbed.folder / "results/smoke" / name).read_bytes() == (
            smoke.folder / "results/smoke" / name
        ).read_bytes(), name
    assert not list((disturbed.folder / "results").rglob("*.unfinished-*"))


def test_training_killed_by_its_time_limit_comes_again_with_more_time_and_resumes(disturbed, cluster):
    assert disturbed.frozen == 1
    assert cluster.jobs()[disturbed.timed_out][0] == "TIMEOUT"
    log = (disturbed.folder / "results/smoke/logs/train_expert/coco_expert.log").read_text()
    assert re.search(r"continuing from checkpoint_\d+\.pth", log)
    limits = cluster.command("squeue", "--noheader", "--states=all", "--format=%l|%k")
    assert {row.split("|")[0] for row in limits.splitlines() if row.endswith("coco_expert")} >= {"2:00", "4:00"}


def test_job_of_a_lost_node_was_started_again_by_slurm(disturbed, cluster):
    assert cluster.jobs()[disturbed.lost][0] == "COMPLETED"


def test_cancelled_shard_was_submitted_again(disturbed, cluster):
    jobs = cluster.jobs()
    assert jobs[disturbed.cancelled][0] == "CANCELLED"
    states = [state for state, _, comment in jobs.values() if comment.startswith("rule_predict_boxes")]
    assert states.count("COMPLETED") >= 16


def test_snakemake_that_is_asked_to_end_leaves_no_job_behind_and_no_lock(disturbed):
    assert disturbed.stopped != 0
    assert disturbed.left_running == {}
    assert "LockException" not in disturbed.runs[-1].text


def test_shards_ran_as_arrays(disturbed):
    assert "Submitted array job" in disturbed.runs[0].text
    logs = list((disturbed.folder / "results/slurm_logs/rule_predict_boxes").glob("*_*.log"))
    assert len(logs) >= 16


def test_every_gpu_job_saw_its_one_gpu_and_cpu_jobs_saw_none(disturbed):
    results = disturbed.folder / "results/smoke"
    for path in (
        *results.glob("*/*/model.manifest.json"),
        *results.glob("predictions/*/*/boxes_shards/*.manifest.json"),
    ):
        assert manifest(path)["job"]["CUDA_VISIBLE_DEVICES"] in {"0", "1"}, path
    assert "CUDA_VISIBLE_DEVICES" not in manifest(results / "submission/submission.manifest.json")["job"]


def test_logs_are_where_the_readme_says(disturbed):
    assert (disturbed.folder / "results/smoke/logs/finetune_lvis/basic.log").stat().st_size > 0
    assert list((disturbed.folder / "results/slurm_logs/rule_finetune_lvis/basic").glob("*.log"))


def test_submission_leads_to_the_models_of_the_cluster(disturbed):
    results = disturbed.folder / "results/smoke"
    models = manifest(results / "submission/submission.manifest.json")["models"]
    assert {model["name"] for model in models.values()} >= {"basic", "bottleneck", "coco_expert", "openimages_expert"}
    job = manifest(results / "experts/coco_expert/model.manifest.json")["job"]
    assert job["SLURM_JOB_ID"].isdigit()


@pytest.mark.parametrize(("nodes", "gpus"), [(2, 1), (1, 2)])
def test_training_runs_one_process_for_each_gpu_on_one_node_or_two(smoke, on_cluster, tmp_path, nodes, gpus):
    checkout = Checkout(tmp_path)
    (tmp_path / "datasets").symlink_to(smoke.folder / "datasets")
    model = "results/smoke/pretrain/basic_coco/model.pth"
    compute = f"compute={{training_gpus: {gpus}, training_nodes: {nodes}, training_hours: 0.1}}"
    run = on_cluster(checkout, "--configfile", "config/smoke.yaml", "--config", compute, "--", model)
    run.finish(900)
    log = (tmp_path / "results/smoke/logs/pretrain_coco/basic_coco.log").read_text()
    assert "2 process(es)" in log
    found = manifest(tmp_path / model.replace(".pth", ".manifest.json"))["job"]
    assert found["WORLD_SIZE"] == "2"
    assert found["CUDA_VISIBLE_DEVICES"] == {1: "0", 2: "0,1"}[gpus]


def test_jobs_that_an_earlier_run_left_behind_are_named_and_not_run_twice(cluster, on_cluster, checkout):
    sleep = ("--output=/dev/null", "--mem=100", "--wrap", "sleep 600")
    comment = "--comment=rule_finetune_lvis_wildcards_basic"
    left = cluster.command("sbatch", "--parsable", f"--chdir={checkout.folder}", comment, *sleep).strip()
    cluster.command("sbatch", f"--chdir={checkout.folder.parent}", comment, *sleep)
    run = on_cluster(checkout, "--configfile", "config/smoke.yaml", "--", "data")
    assert run.process.wait(120) != 0
    assert f"still in the queue ({left})" in run.text
    assert f"scancel {left}`" in run.text
    assert "Traceback" not in run.text
    assert not (checkout.folder / "datasets").exists()


def test_wait_for_gives_up():
    with pytest.raises(AssertionError, match="in vain"):
        wait_for("nothing", lambda: False, seconds=0.2)
