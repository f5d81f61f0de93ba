"""Kill steps of the smallest recipe at random moments, again and again, and see whether the same bytes come out.

    python -m tests.faults.harness --kills 30      takes about as long as six undisturbed runs

Mostly one step gets kill -9, sometimes everything at once, as when a machine loses power; sometimes a checkpoint of the
killed training is damaged too. Then the same command is started again. At the end the results are compared with those
of an undisturbed run. Prints what was killed and how it ended; exit code 1 if a result differs or is not whole.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet

from tests.processes import Process, kill_all, steps_in
from tests.workflow.checkout import Checkout

COMMAND = ("--configfile", "config/smoke.yaml", "--cores", "2", "--keep-going", "--", "all")
TYPICAL_SECONDS = 8.0
"""Duration of a step that has not been seen to the end yet."""


def broken_files(results: Path) -> list[str]:
    """Results that are there but not whole: a reader would fail, or take a part for everything."""
    broken = []
    for path in results.rglob("*"):
        try:
            if ".unfinished-" in path.name:
                continue  # the next attempt removes it
            if path.suffix == ".parquet":
                pyarrow.parquet.read_table(path, page_checksum_verification=True)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix in (".pth", ".zip"):
                with zipfile.ZipFile(path) as file:
                    damaged = file.testzip()
                if damaged:
                    broken.append(f"{path}: {damaged} is damaged")
        except FileNotFoundError:
            continue
        except Exception as error:  # whatever a reader says of a file that is not whole
            broken.append(f"{path}: {error}")
    return broken


def final_files(results: Path) -> dict[str, bytes]:
    """Results that have to be the same after any number of faults."""
    patterns = (
        "submission/submission.*",
        "evaluation/*/metrics.json",
        "evaluation/*/categories.csv",
        "report/summary.*",
    )
    found = {str(path.relative_to(results)): path for pattern in patterns for path in sorted(results.glob(pattern))}
    return {name: path.read_bytes() for name, path in found.items() if ".manifest." not in name}


@dataclass
class Faults:
    """Runs the recipe in a checkout and makes it fail.

    Attributes:
        checkout: where the recipe runs.
        kills: number of kills to do.
        seed: of what is killed and when.
        killed: number of kills of each step; "everything" for all processes at once.
        damaged: number of damaged checkpoints.
        starts: how often the command was started.
        problems: what must not happen.
    """

    checkout: Checkout
    kills: int
    seed: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    starts: int = 0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._seen: dict[int, tuple[str, float, float | None]] = {}
        self._durations: dict[str, float] = {}

    @property
    def results(self) -> Path:
        """Results of the recipe."""
        return self.checkout.folder / "results/smoke"

    def run(self) -> None:
        """Kill until there were enough kills, then let the recipe end."""
        while not self._run_once():
            self.problems += broken_files(self.results)
            if self.problems or self.starts > 5 * self.kills + 5:
                return

    def _run_once(self) -> bool:
        """One start of the command; True if it ended well."""
        if (self.checkout.folder / ".snakemake/locks").is_dir():
            self.checkout.run(*COMMAND[:-2], "--unlock")
        self.starts += 1
        with (self.checkout.folder / f"start{self.starts}.log").open("w") as log:
            environment = {**self.checkout.environment(), "OMP_NUM_THREADS": "1"}
            workflow = subprocess.Popen(
                self.checkout.command(*COMMAND), cwd=self.checkout.folder, env=environment, stdout=log, stderr=log
            )
            while workflow.poll() is None:
                time.sleep(0.05)
                if self.killed.total() < self.kills:
                    self._look_around()
        return workflow.returncode == 0

    def _look_around(self) -> None:
        """Decide for every new step whether and when it dies, and kill those whose time has come."""
        now = time.monotonic()
        running = {process.pid: process for process in steps_in(self.checkout.folder) if process.step != "launch"}
        for pid, process in running.items():
            if pid not in self._seen:
                typical = self._durations.get(process.step, TYPICAL_SECONDS)
                doomed = now + self._random.uniform(0, 1.2 * typical) if self._random.random() < 0.5 else None
                self._seen[pid] = (process.step, now, doomed)
        for pid, (step, since, doomed) in list(self._seen.items()):
            if pid not in running:
                self._durations[step] = max(self._durations.get(step, 0.0), now - since)
                del self._seen[pid]
            elif doomed is not None and now >= doomed:
                del self._seen[pid]
                self._kill(running[pid])

    def _kill(self, process: Process) -> None:
        if self._random.random() < 0.15:
            kill_all(self.checkout.folder)
            self.killed["everything"] += 1
        elif process.send(signal.SIGKILL):
            self.killed[process.step] += 1
        if process.step == "train" and self._random.random() < 0.5:
            self._damage_checkpoint(Path(process.arguments[process.arguments.index("--output") + 1]).parent)

    def _damage_checkpoint(self, folder: Path) -> None:
        found = sorted((self.checkout.folder / folder).glob("checkpoint_*.pth"))
        if found:
            with found[-1].open("r+b") as file:
                file.truncate(self._random.randrange(found[-1].stat().st_size))
            self.damaged += 1


def undisturbed(folder: Path) -> Checkout:
    """A checkout in which the recipe has run to the end."""
    checkout = Checkout(folder)
    result = checkout.run(*COMMAND, timeout=7200)
    if result.returncode:
        sys.exit(f"the undisturbed run failed:\n{result.stdout[-4000:]}")
    return checkout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", type=Path, help="results/smoke of an undisturbed run (default: run it first)")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    reference = arguments.reference or undisturbed(folder / "reference").folder / "results/smoke"
    start = time.monotonic()
    faults = Faults(Checkout(folder / "faults"), arguments.kills, arguments.seed)
    faults.run()
    print(
        f"{faults.killed.total()} kills: {', '.join(f'{count} {step}' for step, count in faults.killed.most_common())}"
    )
    print(f"{faults.damaged} damaged checkpoints, {faults.starts} starts, {time.monotonic() - start:.0f} s")
    expected, found = final_files(reference), final_files(faults.results)
    faults.problems += [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    faults.problems += [f"{name} differs" for name in sorted(found) if found[name] != expected.get(name)]
    faults.problems += [f"{path} was left behind" for path in faults.results.rglob("*.unfinished-*")]
    if faults.problems:
        sys.exit("\n".join([*faults.problems, f"see {folder}"]))
    print(f"all {len(found)} results are the same to the last byte")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
