"""Finding and ending the processes of a workflow that runs in a folder."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A running process: its id and its command line."""

    pid: int
    arguments: tuple[str, ...]

    @property
    def step(self) -> str:
        """``train`` for ``python -m pipeline_steps.train ...``; empty for anything else."""
        names = [word.removeprefix("pipeline_steps.") for word in self.arguments if word.startswith("pipeline_steps.")]
        return names[0] if names and "-m" in self.arguments else ""

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False if the process is gone."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def processes_in(folder: Path) -> list[Process]:
    """All processes whose working folder is ``folder``, except this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if (entry / "cwd").resolve(strict=True) != folder.resolve():
                continue
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0]:
            found.append(Process(int(entry.name), tuple(words[:-1])))
    return found


def steps_in(folder: Path, *words: str) -> list[Process]:
    """Steps of the pipeline that run in ``folder`` and have all these words on their command line."""
    return [process for process in processes_in(folder) if process.step and set(words) <= set(process.arguments)]


def kill_job(job: str) -> None:
    """kill -9 for everything that belongs to a Slurm job, as when its node loses power."""
    mark = f"SLURM_JOB_ID={job}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ProcessLookupError):
            continue


def kill_all(folder: Path) -> None:
    """kill -9 for everything that runs in ``folder``, as when a machine loses power."""
    while found := processes_in(folder):
        for process in found:
            process.send(signal.SIGKILL)
