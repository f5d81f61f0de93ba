"""detectron2 configuration files of a recipe's models: the file itself and those it inherits from."""

import re
from pathlib import Path

from pipeline_steps.common.files import require_file
from pipeline_steps.recipe.load import shipped_or_own
from pipeline_steps.recipe.schema import Recipe

_BASE = re.compile(r"^_BASE_\s*:\s*[\"']?([^\"'#\n]+?)[\"']?\s*(?:#.*)?$", re.MULTILINE)


def detector_files(recipe: Recipe, name: str) -> list[str]:
    """Path of the detector file of the model ``name`` and of all files that it names as ``_BASE_``.

    Raises:
        UserError: a file does not exist.
    """
    return with_bases(shipped_or_own(recipe.model(name).detector), f"detector file of model {name}")


def with_bases(path: Path, what: str = "detector file") -> list[str]:
    """A detector file and all files that it names as ``_BASE_``.

    Raises:
        UserError: a file does not exist.
    """
    files: list[str] = []
    while True:
        require_file(path, f"_BASE_ of {files[-1]}" if files else what, "check `detector` and `_BASE_`")
        files.append(str(path))
        base = _BASE.search(path.read_text(encoding="utf-8"))
        if base is None or str(path.parent / base.group(1)) in files:
            return files
        path = path.parent / base.group(1)
