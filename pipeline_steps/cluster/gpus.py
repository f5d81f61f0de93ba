"""GPUs of one machine without a cluster: which there are, and one job for each.

On a cluster Slurm gives every job its GPUs. Elsewhere the workflow finds those that it may use, once, and hands them to
its jobs in the variable :data:`POOL`; a job takes as many of them as it asks for and holds them as long as any of its
processes lives. A GPU that is taken is a file locked by the kernel (flock): however a job ends, the lock ends with it.
Nothing here imports torch, which takes seconds.
"""

import fcntl
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import MutableMapping
from pathlib import Path

from pipeline_steps.common.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
POOL = "LVIS_CHALLENGE_GPUS"
"""Variable with the GPUs that jobs of a run may take, as ``CUDA_VISIBLE_DEVICES`` names them, or empty."""

_LOOK_AGAIN = 2.0
"""Seconds between two looks at GPUs that other runs hold."""


def _driver_gpus() -> list[str]:
    """UUIDs of the machine's GPUs by index, as the driver tells; none without a driver."""
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in told.stdout.splitlines() if line.strip().startswith("GPU-")]


def usable_gpus(limit: int | None = None, environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them: numbers or UUIDs.

    Those of ``CUDA_VISIBLE_DEVICES`` where it is set (as CUDA reads it: up to the first that is no GPU), else all that
    the driver knows. ``limit``: as many, whatever is found.
    """
    if (named := environment.get(VISIBLE)) is not None:
        gpus = []
        for name in map(str.strip, named.split(",")):
            if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name) or name in gpus:
                break
            gpus.append(name)
    else:
        gpus = [str(index) for index in range(len(_driver_gpus()) if limit is None else limit)]
    if limit is not None and limit > len(gpus):
        raise UserError(f"compute.local_gpus is {limit}, but {VISIBLE} is {named!r}")
    return gpus[:limit]


def _lock_name(gpu: str, driver: list[str]) -> str:
    """Name of a GPU by which all runs know it, whether they call it by its number or by a part of its UUID."""
    if gpu.isdigit() and int(gpu) < len(driver):
        return driver[int(gpu)]
    same = [uuid for uuid in driver if uuid.startswith(gpu)]
    return same[0] if len(same) == 1 else gpu.replace("/", "_")


def _try_lock(path: Path) -> int | None:
    """Descriptor of the locked file, which the step and its processes inherit; None if another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.set_inheritable(descriptor, True)
    return descriptor


def _take(gpus: list[str], count: int, folder: Path, driver: list[str]) -> list[str]:
    """``count`` of ``gpus``, locked; none at all if fewer are free, so that two jobs never wait for each other."""
    held: dict[str, int] = {}
    for gpu in gpus:
        if (descriptor := _try_lock(folder / _lock_name(gpu, driver))) is not None:
            held[gpu] = descriptor
            if len(held) == count:
                return list(held)
    for descriptor in held.values():
        os.close(descriptor)
    return []


def take_gpus(count: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Wait for ``count`` GPUs of the pool and make them the only ones that this process and its children see.

    They are held until this process, whatever it becomes by ``exec``, and its children have ended. Does nothing where
    there is no pool: on a cluster, or by hand.

    Raises:
        UserError: the pool has fewer.
    """
    pool = environment.get(POOL)
    if pool is None or count == 0:
        return
    gpus = pool.split(",") if pool else []
    if len(gpus) < count:
        raise UserError(f"a job asks for {count} GPUs, but this run has {len(gpus)} ({POOL}={pool!r})")
    driver = _driver_gpus()
    folder = Path(tempfile.gettempdir(), f"lvis-challenge-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    told = False
    while not (taken := _take(gpus, count, folder, driver)):
        if not told:
            print(f"waiting for {count} of the GPUs {pool}: your other runs hold them", file=sys.stderr, flush=True)
            told = True
        time.sleep(_LOOK_AGAIN)
    if VISIBLE not in environment:  # the numbers are the driver's, which CUDA would otherwise order by speed
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    environment[VISIBLE] = ",".join(taken)
    print(f"GPUs of this job: {environment[VISIBLE]}", file=sys.stderr, flush=True)
