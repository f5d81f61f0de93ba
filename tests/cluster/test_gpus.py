"""Jobs on one machine get GPUs of their own: pretended ones, told by a pretended driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_steps.cluster.gpus import POOL, VISIBLE, usable_gpus
from pipeline_steps.common.errors import UserError

ROOT = Path(__file__).parents[2]
UUIDS = [f"GPU-0000000{number}-aaaa-bbbb-cccc-dddddddddddd" for number in range(4)]

# A step that says which GPUs it sees and goes when it is told to; `fork` leaves a child that stays.
STEP = """
import json, os, sys, time
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
child = os.fork() if "fork" in name else None
if child != 0:  # the child itself says nothing
    (folder / f"{name}.tmp").write_text(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), child]))
    (folder / f"{name}.tmp").rename(folder / f"{name}.json")
while not (folder / f"{name}.go").exists():
    time.sleep(0.02)
"""
LAUNCHER = """
import sys
from pipeline_steps.cluster import gpus
from pipeline_steps.cluster import launching
gpus._LOOK_AGAIN = 0.05
from pipeline_steps import launch
launch.step_command = lambda step, arguments: [sys.executable, step, *arguments]
from pipeline_steps.common.cli import run_step
run_step(launch.parser, launch.main)
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pretended nvidia-smi that knows four GPUs; the folder of the test."""
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    lines = "\n".join(UUIDS)
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv(VISIBLE, raising=False)
    (tmp_path / "step.py").write_text(STEP)
    return tmp_path


def start(folder: Path, name: str, gpus: int, pool: str | None, **variables: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", LAUNCHER, "--gpus", str(gpus), "--one-process", str(folder / "step.py")]
    pools = {} if pool is None else {POOL: pool}
    return subprocess.Popen([*command, str(folder), name], cwd=ROOT, env={**os.environ, **pools, **variables})


def seen(folder: Path, name: str, process: subprocess.Popen[bytes]) -> tuple[list[str], int | None]:
    """GPUs that a step sees, and the process that it has forked."""
    deadline = time.monotonic() + 60
    while not (folder / f"{name}.json").exists():
        assert process.poll() is None, f"{name} has ended"
        assert time.monotonic() < deadline, f"{name} waits for ever"
        time.sleep(0.02)
    visible, child = json.loads((folder / f"{name}.json").read_text())
    return (visible or "").split(","), child


def end(folder: Path, name: str, process: subprocess.Popen[bytes]) -> None:
    (folder / f"{name}.go").touch()
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1", "2", "3"]),
        ("2,0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("1,-1,2", ["1"]),
        (f"{UUIDS[3]}, GPU-00000001", [UUIDS[3], "GPU-00000001"]),
        ("MIG-GPU-1234/1/0", ["MIG-GPU-1234/1/0"]),
        ("0,0", ["0"]),
    ],
)
def test_gpus_are_those_that_cuda_would_see(driver, monkeypatch, visible, expected):
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    assert usable_gpus() == expected
    assert usable_gpus(min(1, len(expected))) == expected[:1]


def test_the_recipe_decides_where_no_driver_tells(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VISIBLE, raising=False)
    assert usable_gpus() == []
    assert usable_gpus(2) == ["0", "1"]
    monkeypatch.setenv(VISIBLE, "5")
    with pytest.raises(UserError, match=r"compute\.local_gpus is 2"):
        usable_gpus(2)


def test_parallel_jobs_get_gpus_of_their_own_and_the_next_one_waits_for_a_free_one(driver):
    jobs = {name: start(driver, name, gpus, "0,1,2") for name, gpus in (("a", 1), ("b", 2))}
    a, b = (seen(driver, name, job)[0] for name, job in jobs.items())
    assert sorted(a + b) == ["0", "1", "2"]
    jobs["c"] = start(driver, "c", 2, "0,1,2")
    end(driver, "a", jobs["a"])
    time.sleep(0.5)
    assert not (driver / "c.json").exists()  # one is free, which is not enough
    end(driver, "b", jobs["b"])
    assert len(seen(driver, "c", jobs["c"])[0]) == 2
    end(driver, "c", jobs["c"])


def test_a_gpu_stays_taken_until_every_process_of_a_killed_job_has_gone(driver):
    job = start(driver, "fork", 1, "0")
    _, child = seen(driver, "fork", job)
    assert child
    job.send_signal(signal.SIGKILL)
    job.wait()
    following = start(driver, "following", 1, "0")
    time.sleep(1)
    assert not (driver / "following.json").exists()
    os.kill(child, signal.SIGKILL)
    assert seen(driver, "following", following)[0] == ["0"]
    end(driver, "following", following)


def test_runs_that_name_a_gpu_differently_do_not_share_it(driver):
    by_number = start(driver, "number", 1, "1")
    seen(driver, "number", by_number)
    by_uuid = start(driver, "uuid", 1, "GPU-00000001", **{VISIBLE: "GPU-00000001"})
    time.sleep(1)
    assert not (driver / "uuid.json").exists()
    end(driver, "number", by_number)
    assert seen(driver, "uuid", by_uuid)[0] == ["GPU-00000001"]
    end(driver, "uuid", by_uuid)


def test_jobs_on_a_cluster_and_by_hand_and_without_gpus_are_left_as_they_are(driver):
    for name, gpus, pool in (("cluster", 1, None), ("cpu", 0, "0,1")):
        job = start(driver, name, gpus, pool, **{VISIBLE: "3"})
        assert seen(driver, name, job)[0] == ["3"]
        end(driver, name, job)
    too_many = start(driver, "many", 3, "0,1")
    assert too_many.wait(60) == 2
