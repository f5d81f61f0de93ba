"""Tasks of Slurm arrays run their own job only.

Snakemake's executor for the inside of a Slurm job (snakemake-executor-plugin-slurm-jobstep 0.6.1) starts every task of
an array as if it were the first one, which then runs the task's own command. Afterwards it looks for the output of the
*first* task, fails if that one is slower by more than the latency-wait, and removes the output of the first task when
its own command failed (snakemake-executor-plugin-slurm, issue 447). So a task hands over to its own command at once.
"""

import base64
import json
import os
import zlib
from collections.abc import Mapping, Sequence

OPTION = "--slurm-jobstep-array-execs"
"""Holds the commands of all tasks but the first: base64 of JSON, task id -> hexadecimal zlib-compressed command."""


def own_command(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Shell command of this array task; None outside arrays and in the first task, which is what it seems to be."""
    task = environment.get("SLURM_ARRAY_TASK_ID")
    if task is None or task == environment.get("SLURM_ARRAY_TASK_MIN"):
        return None
    payload = None
    for position, argument in enumerate(arguments):
        if argument.startswith(f"{OPTION}="):
            payload = argument.removeprefix(f"{OPTION}=")
        elif argument == OPTION:
            payload = arguments[position + 1]
    if payload is None:
        return None
    return zlib.decompress(bytes.fromhex(json.loads(base64.b64decode(payload))[task])).decode()


def hand_over(arguments: Sequence[str]) -> None:
    """Become this array task's own command, if there is one."""
    command = own_command(arguments, os.environ)
    if command is not None:
        os.execv("/bin/sh", ["sh", "-c", command])
