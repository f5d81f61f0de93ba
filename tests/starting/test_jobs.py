"""What is read from Snakemake's workflow object, on stand-ins for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from pipeline_steps.starting import jobs


def job(rule: str, output: str = "file", gpus: int | None = None, norun: bool = False) -> SimpleNamespace:
    resources = {} if gpus is None else {"gpu": SimpleNamespace(value=gpus)}
    made = SimpleNamespace(name=rule, snakefile=f"/x/rules/{rule[:5]}.smk", resources=resources)
    return SimpleNamespace(rule=made, output=output, is_norun=norun)


def workflow(*found: SimpleNamespace, needs: dict | None = None, executor: str = "") -> SimpleNamespace:
    dependencies = {id(one): [] for one in found} | (needs or {})
    dag = SimpleNamespace(jobs=list(found), needrun_jobs=lambda: iter(found))
    dag.dependencies = type("Needs", (), {"__getitem__": lambda _, one: dependencies[id(one)]})()
    settings = SimpleNamespace(logdir=Path("logs"))
    plugin = SimpleNamespace(name=executor or "local")
    return SimpleNamespace(dag=dag, local_exec=not executor, executor_plugin=plugin, executor_settings=settings)


def test_jobs_that_will_run_are_counted_and_the_largest_asks_for_gpus():
    found = workflow(job("train", gpus=8), job("train", gpus=2), job("all", norun=True, gpus=16), job("evaluate"))
    assert jobs.job_counts(found) == {"train": 2, "evaluate": 1}
    assert jobs.most_gpus(found) == 8
    assert jobs.most_gpus(workflow()) == 0


def test_the_graph_of_rules_has_one_edge_for_all_jobs_and_no_targets():
    trained, tested, target = [job("train"), job("train")], [job("predict"), job("predict")], job("all", output="")
    needs = {id(one): trained for one in tested} | {id(target): tested}
    graph = jobs.rule_graph(workflow(*trained, *tested, target, needs=needs))
    assert graph["rules"] == {"predict": {"jobs": 2, "stage": "predi"}, "train": {"jobs": 2, "stage": "train"}}
    assert graph["edges"] == [("train", "predict")]


def test_only_slurm_has_logs_of_its_own():
    assert jobs.cluster(workflow()) == ""
    assert jobs.cluster_logs(workflow()) is None
    assert jobs.cluster(workflow(executor="slurm")) == "slurm"
    assert jobs.cluster_logs(workflow(executor="slurm")) == Path("logs")
