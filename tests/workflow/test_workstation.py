"""One machine with GPUs and no cluster: pretended GPUs, real jobs of the workflow whose step only says what it sees."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline_steps.recipe import resolve_recipe
from pipeline_steps.starting.checks import fitted
from tests.workflow.checkout import ROOT, Checkout

STEP = """
import json, os, sys, time
from pathlib import Path
output = Path(sys.argv[sys.argv.index("--output") + 1])
begin = time.time()
time.sleep(1)
output.parent.mkdir(parents=True, exist_ok=True)
output.write_text(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), begin, time.time()]))
"""
SEEDS = [1, 2, 3, 4]
RECIPE = {
    "extends": "smoke.yaml",
    "pretraining": [
        {
            "name": "start",
            "detector": "config/detectors/mini_basic_fpn.yaml",
            "datasets": ["coco_train"],
            "seeds": SEEDS,
        }
    ],
    "models": [{"name": "basic", "detector": "config/detectors/mini_basic_fpn.yaml"}],
    "experts": [],
    "ensemble": {"members": [{"name": "basic"}]},
    "compute": {"training_gpus": 1, "inference_gpus": 1},
}


def test_every_parallel_job_has_a_gpu_of_its_own(checkout: Checkout):
    (checkout.folder / "pipeline_steps/train.py").write_text(STEP)
    (checkout.folder / "mine.yaml").write_text(yaml.safe_dump(RECIPE))
    driver = checkout.folder / "bin/nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\nprintf 'GPU-aa\\nGPU-bb\\nGPU-cc\\n'\n")
    driver.chmod(0o755)
    environment = {**checkout.environment(), "PATH": f"{driver.parent}:{os.environ['PATH']}"}
    environment |= {"CUDA_VISIBLE_DEVICES": "2,GPU-aa", "TMPDIR": str(checkout.folder)}
    result = subprocess.run(
        checkout.command("--profile", "workstation", "--cores", "4", "--configfile", "mine.yaml", "--", "pretrain"),
        cwd=checkout.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    files = [checkout.folder / f"results/smoke/pretrain/start_s{seed}/model.pth" for seed in SEEDS]
    jobs = [json.loads(file.read_text()) for file in files]
    assert {gpu for gpu, _, _ in jobs} == {"2", "GPU-aa"}
    for gpu, begin, end in jobs:
        beside = [other for other in jobs if other[1] < end and begin < other[2]]
        assert [other[0] for other in beside].count(gpu) == 1
        assert len(beside) <= 3  # one after the other on the same GPU, and those on the other one
    assert any(first[1] < second[1] < first[2] for first in jobs for second in jobs)  # both GPUs were used at once


@pytest.mark.parametrize(
    ("gpus", "batch", "given"), [(8, 16, 8), (4, 16, 4), (3, 16, 2), (1, 16, 1), (6, 24, 6), (5, 24, 4), (16, 16, 8)]
)
def test_trainings_get_as_many_gpus_as_there_are_and_divide_the_batch(gpus, batch, given):
    recipe = resolve_recipe({"extends": "challenge.yaml", "training": {"images_per_batch": batch}})
    small = fitted(recipe, gpus, 2 * gpus)
    assert (small.compute.training_gpus, small.compute.training_nodes, small.compute.threads) == (given, 1, 2)
    assert small.compute.inference_gpus == 1
    assert small.model_dump(exclude={"compute"}) == recipe.model_dump(exclude={"compute"})


def test_recipes_for_several_nodes_run_on_one_and_those_for_cpus_are_left_alone():
    nodes = resolve_recipe({"extends": "challenge.yaml", "compute": {"training_gpus": 4, "training_nodes": 2}})
    assert fitted(nodes, 8, 64).compute.training_gpus == 8
    assert fitted(nodes, 8, 64).compute.training_nodes == 1
    mini = resolve_recipe({"extends": "mini.yaml"})
    assert fitted(mini, 8, 64) == mini


def test_profile_is_found_by_its_name_at_the_top_of_the_checkout():
    assert (ROOT / "workstation").resolve() == ROOT / "workflow/profiles/workstation"
    assert yaml.safe_load(Path(ROOT, "workstation/config.yaml").read_text())["cores"] == "all"
