"""Types are checked strictly, in `make lint`; what is left out of it says why."""

from __future__ import annotations

import re
import tomllib

from tests.environment.stand_ins import PROJECT

MYPY = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["mypy"]
CODE = {path: path.read_text() for path in sorted((PROJECT / "pipeline_steps").rglob("*.py"))}


def test_lint_checks_the_types_of_the_whole_package_strictly():
    assert (MYPY["files"], MYPY["strict"]) == (["pipeline_steps"], True)
    assert "&& mypy &&" in (PROJECT / "Makefile").read_text()


def test_whatever_is_ignored_has_its_kind_and_a_reason():
    lines = [line for text in CODE.values() for line in text.splitlines() if "type: ignore" in line]
    assert [line for line in lines if not re.search(r"# type: ignore\[[a-z-]+\]  # \S", line)] == []


def test_only_compiled_code_may_have_functions_without_types():
    (untyped,) = (part["module"] for part in MYPY["overrides"] if "disallow_untyped_defs" in part)
    compiled = {".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in CODE if "@njit" in CODE[path]}
    assert set(untyped) <= compiled
