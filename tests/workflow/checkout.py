"""A private copy of the workflow for each test, and a way to run Snakemake in it."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Checkout:
    """A copy of what a user has after cloning, with its own results and data folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("workflow", "pipeline_steps", "config"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("slurm", "workstation"):
            (folder / name).symlink_to(f"workflow/profiles/{name}")

    def copy(self, folder: Path) -> Checkout:
        """This checkout with everything in it, at another place."""
        shutil.copytree(self.folder, folder, symlinks=True)
        copied = copy.copy(self)
        copied.folder = folder
        return copied

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": "", "COLUMNS": "200"}

    def run(self, *arguments: str, timeout: float = 1400) -> subprocess.CompletedProcess[str]:
        """Run Snakemake here; standard output and error are joined in ``stdout``."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def planned(self, *arguments: str) -> Counter[str]:
        """Number of planned jobs of each rule of a dry run (without target rules that only collect files)."""
        result = self.run("--cores", "2", "--dry-run", "--quiet", "rules", *arguments)
        assert result.returncode == 0, result.stdout
        table = result.stdout.split("Job stats:")[-1]
        jobs = Counter({m[1]: int(m[2]) for m in re.finditer(r"^(\w+) +(\d+)$", table, re.MULTILINE)})
        return Counter({rule: count for rule, count in jobs.items() if rule not in {"total", "all", *TARGETS}})


TARGETS = {
    "data",
    "pretrain",
    "finetune",
    "experts",
    "predictions",
    "ensemble",
    "evaluation",
    "submission",
    "report",
}
