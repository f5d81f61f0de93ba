"""A task of an array runs the command that the Slurm plugin packed for it, and nothing else."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from pipeline_steps.cluster.array_tasks import OPTION, own_command

COMMANDS = {"5": "echo five", "6": "echo 'six and a half'"}
PAYLOAD = base64.b64encode(
    json.dumps({task: zlib.compress(command.encode(), level=9).hex() for task, command in COMMANDS.items()}).encode()
).decode()


def task(number: str) -> dict[str, str]:
    return {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_MIN": "4"}


@pytest.mark.parametrize("arguments", [["--jobs", "1", f"{OPTION}={PAYLOAD}"], [OPTION, PAYLOAD]])
def test_later_tasks_have_commands_of_their_own(arguments):
    assert {number: own_command(arguments, task(number)) for number in COMMANDS} == COMMANDS


def test_first_task_and_jobs_that_are_no_array_go_on_as_they_are():
    assert own_command([OPTION, PAYLOAD], task("4")) is None
    assert own_command([OPTION, PAYLOAD], {}) is None
    assert own_command(["--jobs", "1"], task("5")) is None


def test_process_becomes_the_command_with_its_exit_code():
    program = (
        "import sys; from pipeline_steps.cluster.array_tasks import hand_over; hand_over(sys.argv[1:]); print('no')"
    )
    payload = base64.b64encode(json.dumps({"5": zlib.compress(b"echo five; exit 7").hex()}).encode()).decode()
    result = subprocess.run(
        [sys.executable, "-c", program, OPTION, payload],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **task("5")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout, result.returncode) == ("five\n", 7)


def test_plugin_still_packs_commands_like_this():
    from snakemake_executor_plugin_slurm_jobstep import _decompress_array_task_call

    assert {number: _decompress_array_task_call(PAYLOAD, int(number)) for number in COMMANDS} == COMMANDS
