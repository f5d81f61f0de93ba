"""What a step ran with: version of the code, installed packages, hardware, job."""

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline_steps.recipe.load import CONFIG_FOLDER

ROOT = CONFIG_FOLDER.parent
"""Top of the checkout."""


def code_version(root: Path = ROOT) -> dict[str, Any]:
    """Commit of the checkout, whether files differ from it, and a digest of the code itself.

    The digest is there without git too, and tells apart two states that both differ from the same commit.
    """
    files = sorted((root / "pipeline_steps").rglob("*.py"))
    code = hashlib.sha256()
    for path in files:
        code.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    version: dict[str, Any] = {"commit": None, "changed": None, "digest": code.hexdigest()}
    if (root / ".git").exists():
        version["commit"] = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain", "--", "pipeline_steps", "workflow", "config")
        version["changed"] = None if status is None else bool(status)
    return version


def _git(root: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


@cache
def packages() -> dict[str, str]:
    """Version of every installed package, by name."""
    found = {item.metadata["Name"]: item.version for item in metadata.distributions() if item.metadata["Name"]}
    return {"python": platform.python_version(), **dict(sorted(found.items(), key=lambda item: item[0].lower()))}


def hardware() -> dict[str, Any]:
    """Host, processor, memory, and the GPUs that the step has used."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 1e9, 1),
        "gpus": _gpus(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")  # a step that has not imported it has used no GPU
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def job() -> dict[str, str]:
    """The Slurm job and the processes around this one, as far as the environment tells."""
    names = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NODELIST", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES")
    return {name: os.environ[name] for name in names if os.environ.get(name)}
