"""One process per GPU on one node or several, and the exit code of the step comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_steps.cluster.launching import Layout, node_of_task, srun_command
from pipeline_steps.common.errors import UserError

ROOT = Path(__file__).parents[2]

# A step that joins the process group like a training does, and says what it found.
STEP = """
import json, os, sys, time
from pathlib import Path
import torch, torch.distributed as dist

folder, code, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1])
dist.all_reduce(total)
names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "OMP_NUM_THREADS")
found = {name: os.environ[name] for name in names} | {"total": total.item()}
(folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))
dist.barrier()
time.sleep(seconds)
sys.exit(code)
"""

# The launcher with another step in place of `python -m pipeline_steps.<step>`.
LAUNCHER = """
import sys
from pipeline_steps.cluster import launching
launching.step_command = lambda step, arguments: [sys.executable, step, *arguments]
from pipeline_steps import launch
from pipeline_steps.common.cli import run_step
run_step(launch.parser, launch.main)
"""


@pytest.fixture
def step(tmp_path):
    path = tmp_path / "step.py"
    path.write_text(STEP)
    return path


def start(step: Path, *options: str, code: int = 0, seconds: float = 0, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *options, str(step), str(step.parent), str(code), str(seconds)],
        cwd=ROOT,
        env={**os.environ, "SLURM_JOB_ID": str(os.getpid()), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def found(step: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted(step.parent.glob("*.json"))]


def test_two_gpus_get_two_processes_that_share_the_threads_of_the_job(step):
    process = start(step, "--gpus", "2", "--threads", "6")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    one, two = found(step)
    assert (one["RANK"], two["RANK"], one["WORLD_SIZE"]) == ("0", "1", "2")
    assert one["total"] == two["total"] == 3
    assert one["OMP_NUM_THREADS"] == two["OMP_NUM_THREADS"] == "3"


def test_exit_code_of_the_step_comes_back_without_a_traceback(step):
    process = start(step, "--gpus", "2", code=75)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "Traceback" not in output


def test_termination_reaches_the_processes(step):
    process = start(step, "--gpus", "2", seconds=600)
    deadline = time.monotonic() + 120
    while len(found(step)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_two_nodes_meet_at_the_first_one(step, tmp_path):
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(
        "#!/bin/sh\n"
        "case $* in\n"
        "'show hostnames gpu[1-2]') printf 'gpu1\\ngpu2\\n';;\n"
        "'show node gpu1') printf 'NodeName=gpu1 Arch=x86_64\\n   NodeAddr=localhost NodeHostName=gpu1\\n';;\n"
        "*) exit 1;;\n"
        "esac\n"
    )
    scontrol.chmod(0o755)
    variables = {"PATH": f"{scontrol.parent}:{os.environ['PATH']}", "SLURM_STEP_NODELIST": "gpu[1-2]"}
    options = ("--gpus", "2", "--nodes", "2", "--on-each-node")
    nodes = [start(step, *options, **variables, SLURM_PROCID=str(rank)) for rank in range(2)]
    outputs = [node.communicate(timeout=120)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    one, two = found(step)
    assert (one["RANK"], two["RANK"], two["GROUP_RANK"], two["LOCAL_RANK"]) == ("0", "1", "1", "0")
    assert one["total"] == two["total"] == 3


def test_one_process_is_the_step_itself(step):
    step.write_text("import os, sys\nprint('OMP', os.environ['OMP_NUM_THREADS'], 'RANK' in os.environ)\nsys.exit(7)\n")
    for gpus in ("0", "1"):
        process = start(step, "--gpus", gpus, "--threads", "3")
        assert "OMP 3 False" in process.communicate(timeout=60)[0]
        assert process.returncode == 7


def test_srun_is_told_everything_because_snakemake_hides_the_job_from_it(tmp_path, monkeypatch):
    srun = tmp_path / "srun"
    srun.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert srun_command(Layout(8, 2, 32), "train", ["--model", "x101"]) == [
        "srun",
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=32",
        "--gpus-per-node=4",
        "--kill-on-bad-exit=1",
        *[sys.executable, "-m", "pipeline_steps.launch", "--gpus", "8", "--nodes", "2", "--threads", "32"],
        *["--on-each-node", "train", "--model", "x101"],
    ]


def test_several_nodes_without_slurm_name_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"compute\.training_nodes"):
        srun_command(Layout(2, 2), "train", [])


@pytest.mark.parametrize(("gpus", "nodes"), [(3, 2), (-1, 1), (0, 0)])
def test_impossible_layouts_are_refused(gpus, nodes):
    with pytest.raises(UserError):
        Layout(gpus, nodes)


def test_a_node_outside_srun_is_refused():
    with pytest.raises(UserError, match="not inside srun"):
        node_of_task({})
