"""The command ``make gpu``: what it says where something is missing, its benchmark of testing, its goals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks import gpu_testing
from tests.benchmarks.measure import Row
from tests.gpu.__main__ import goals
from tests.gpu.environment import MODULES, problems

ROOT = Path(__file__).parents[2]


def run(*command, **environment):
    # Out of sight: a GPU of the machine that the tests run on.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_an_interpreter_without_packages_is_told_each_of_them_in_one_message():
    done = run(sys.executable, "-S", "-m", "tests.gpu")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    missing = done.stderr.splitlines()[1:]
    assert {line.split(":")[0].strip() for line in missing} == {*MODULES.values(), "detectron2"}
    assert all(sys.executable in line for line in missing)
    assert any("yacs==0.1.8" in line for line in missing)


def test_a_machine_without_a_gpu_is_told_so():
    done = run("make", "gpu", "ENV=none", f"PYTHON={sys.executable}")
    assert done.returncode == 2
    assert "no GPU" in done.stderr
    assert "Traceback" not in done.stderr


def test_packages_on_the_python_path_are_found_without_an_environment(tmp_path):
    (tmp_path / "yacs").mkdir()
    (tmp_path / "yacs/__init__.py").touch()
    python = f"PYTHON={sys.executable} -S"
    assert " yacs: " in run("make", "gpu", "ENV=none", python).stderr
    assert " yacs: " not in run("make", "gpu", "ENV=none", python, PYTHONPATH=str(tmp_path)).stderr


def test_this_environment_lacks_nothing():
    assert problems() == []


def test_nothing_here_needs_the_workflow_or_the_data_tools():
    code = (
        "import sys, tests.conftest, tests.gpu.test_training, tests.gpu.test_testing, tests.benchmarks.multi_scale;"
        "print([name for name in ('snakemake', 'polars', 'fiftyone', 'pulp') if name in sys.modules])"
    )
    assert run(sys.executable, "-c", code).stdout.strip() == "[]"


@pytest.mark.slow
def test_the_benchmark_of_testing_runs_with_both_contenders():
    rows = gpu_testing.main(["--device", "cpu", "--edge", "64", "--images", "1", "--categories", "30"])
    assert len(rows) == 1
    assert "30 categories" in rows[0].hot_path
    assert rows[0].ours > 0


def test_goals_that_are_missed_are_called_so():
    rows = [
        Row("train r50_fpn, 8 images of 800 x 1066, bf16 (61.50 images/s, detectron2 50)", "theirs", 1.2, 1.0),
        Row("test r50_fpn, 800 px, 1,230 categories, bf16 (41.0 images/s)", "theirs", 3.0, 1.0),
    ]
    lines = goals(rows)
    assert "1.2: MISSED" in lines[0]
    assert lines[1].endswith("61.5")
    assert lines[2].endswith("41.0")
    assert "not measured" in lines[3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmarks_measure_nothing(capsys):
    assert gpu_testing.main([]) == []
    assert "no GPU" in capsys.readouterr().err
