"""Which files a cheap step's outcome is made by: found by following its imports, so that no list of them can be wrong.

For rules near the end of the workflow only, which run again when their code changes. Jobs that cost GPU hours, or have
such below them, run again on request (``-R``): :data:`CHEAP` names the folders and modules that are looked into.
"""

import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CHEAP = ("analysis", "report", "evaluation", "detections/submission")
"""Beginnings of the names of files below ``pipeline_steps`` that count besides the step itself."""

_IMPORT = re.compile(r"^ *(?:from|import) pipeline_steps\.([\w.]+)(?: import (\([^)]*\)|.*))?", re.MULTILINE)


@cache
def _needs(file: Path) -> tuple[Path, ...]:
    """Modules and other files of the cheap folders that one module names."""
    text = file.read_text(encoding="utf-8")
    found: list[Path] = []
    for module, imported in _IMPORT.findall(text):
        base = PACKAGE / module.replace(".", "/")
        found += [base.with_suffix(".py"), *((base / name).with_suffix(".py") for name in re.findall(r"\w+", imported))]
    found += [folder / "__init__.py" for path in found for folder in path.parents if PACKAGE in folder.parents]
    found = [path for path in found if str(path.relative_to(PACKAGE)).startswith(CHEAP) and path.is_file()]
    if file.parent == PACKAGE:
        return tuple(found)
    others = (path for path in file.parent.iterdir() if path.suffix != ".py" and f'"{path.name}"' in text)
    data = (path for path in others if not (path / "__init__.py").exists())
    return (*found, *(inner for path in data for inner in (path, *path.rglob("*")) if inner.is_file()))


def step_code(step: str) -> list[str]:
    """Files of a step: its module, and what it imports, and they, from :data:`CHEAP`; relative to the working folder if
    they are below it.

    Raises:
        FileNotFoundError: there is no such step.
    """
    waiting, found = [PACKAGE / f"{step}.py"], set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _needs(file) if file.suffix == ".py" else ()
    here = Path.cwd()
    return sorted(str(file.relative_to(here) if file.is_relative_to(here) else file) for file in found)
