"""Manifests: a JSON file beside every result that says what made it, and from what.

``model.pth`` has ``model.manifest.json``, ``detections.parquet`` has ``detections.manifest.json``. Inputs carry their
digest and the name of their own manifest, so that a submission leads back to every model in it.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline_steps.common.atomic import write_json
from pipeline_steps.common.files import file_digest, read_json
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.provenance.environment import code_version, hardware, job, packages

FORMAT = 1
MANIFEST_SUFFIX = ".manifest.json"

OUTPUT_OPTIONS = ("output", "list_only", "summary", "per_category", "csv", "zip", "picture", "page")
"""Options that name files which a step writes; the first gives the manifest its name."""

BESIDE = "beside"
"""Attribute of a parsed command line with further files that a step has left beside its output, to be recorded too."""


def written_files(arguments: argparse.Namespace) -> list[Path]:
    """Outputs on a command line that exist now; the main one first."""
    values = (getattr(arguments, name, None) for name in OUTPUT_OPTIONS)
    return [Path(value) for value in values if value and Path(value).exists()]


def manifest_path(output: Path) -> Path:
    """Name of the manifest of a result: beside it, with its name."""
    return output.with_name(f"{output.stem}{MANIFEST_SUFFIX}")


def _relative(path: Path) -> str:
    """Path as the workflow writes it: relative to the working folder if it is below it."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def describe(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file; of a folder, those of the files directly in it."""
    if path.is_dir():
        return {"files": {item.name: describe(item) for item in sorted(path.iterdir()) if item.is_file()}}
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def build_manifest(
    step: str, arguments: argparse.Namespace, recipe: Recipe | None, started: float, read: Iterable[Path]
) -> dict[str, Any]:
    """Manifest of the step that has just ended, and began when ``time.time()`` was ``started``.

    Of the files that it has read (:func:`pipeline_steps.common.files.noted_inputs`) its outputs, and files that are
    gone, are left out.
    """
    ended = time.time()
    outputs = {_relative(path): describe(path) for path in written_files(arguments)}
    inputs = {}
    for path in read:
        if path.is_file() and _relative(path) not in outputs:
            own = manifest_path(path)
            inputs[_relative(path)] = {**describe(path), "manifest": _relative(own) if own.is_file() else None}
    return {
        "format": FORMAT,
        "step": step,
        "command": ["python", "-m", f"pipeline_steps.{step}", *sys.argv[1:]],
        "outputs": outputs,
        "beside": {_relative(path): describe(path) for path in getattr(arguments, BESIDE, [])},
        "inputs": inputs,
        "models": _models(step, arguments, inputs),
        "times": {
            "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
            "ended": datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds"),
            "seconds": round(ended - started, 2),
        },
        "code": code_version(),
        "packages": packages(),
        "hardware": hardware(),
        "job": job(),
        "recipe": recipe.model_dump() if recipe else None,
    }


def _models(step: str, arguments: argparse.Namespace, inputs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every trained model that the output depends on, by file: those of the inputs, and the output of a training."""
    models: dict[str, dict[str, Any]] = {}
    for entry in inputs.values():
        if entry["manifest"]:
            models |= read_json(entry["manifest"], "manifest").get("models", {})
    if step == "train":
        path = Path(arguments.output)
        own = {"name": arguments.model, **describe(path), "manifest": _relative(manifest_path(path))}
        models[_relative(path)] = own
    return dict(sorted(models.items()))


def _unchanged(output: Path, started: float) -> bool:
    """Whether a step found its output complete and left it alone; its manifest then is the one of who made it."""
    manifest = manifest_path(output)
    return (
        manifest.is_file() and output.stat().st_mtime < started and output.stat().st_mtime <= manifest.stat().st_mtime
    )


def write_manifest(
    step: str, arguments: argparse.Namespace, recipe: Recipe | None, started: float, read: Iterable[Path]
) -> Path | None:
    """Write the manifest of a step beside its main output; None if it has written none, or left it as it was."""
    outputs = written_files(arguments)
    if not outputs or _unchanged(outputs[0], started) or int(os.environ.get("RANK", 0)) > 0:
        return None
    path = manifest_path(outputs[0])
    write_json(path, build_manifest(step, arguments, recipe, started, read), indent=1)
    return path
