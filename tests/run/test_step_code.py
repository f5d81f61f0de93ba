"""Code inputs of cheap steps follow their imports, wherever these are and to wherever a file moves."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pipeline_steps.run import step_code as module
from pipeline_steps.run.step_code import CHEAP, PACKAGE, step_code

RULES = PACKAGE.parent / "workflow/rules"
STEPS = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imported(file: Path) -> set[Path]:
    """Modules of the package that a file imports anywhere, by Python's own grammar."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            paths = [PACKAGE.parent.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
            found |= {candidate for path in paths for candidate in (path.with_suffix(".py"), path / "__init__.py")}
    return {path for path in found if path.is_file() and path.is_relative_to(PACKAGE)}


def needed(step: str) -> set[str]:
    """The step, and what it and they import from the cheap folders."""
    waiting, found = [PACKAGE / f"{step}.py"], set()
    while waiting:
        file = waiting.pop()
        found.add(file)
        new = {path for path in imported(file) if str(path.relative_to(PACKAGE)).startswith(CHEAP)}
        waiting += new - found - set(waiting)
    return {str(path.relative_to(PACKAGE.parent)) for path in found}


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(PACKAGE.parent)


@pytest.mark.parametrize("step", STEPS)
def test_every_import_of_a_step_from_the_cheap_folders_is_an_input(step):
    assert {name for name in step_code(step) if name.endswith(".py")} == needed(step)


def test_templates_are_inputs_of_what_fills_them_and_of_nothing_else():
    templates = {str(path.relative_to(PACKAGE.parent)) for path in (PACKAGE / "report/templates").iterdir()}
    filled = {step for step in STEPS if templates <= set(step_code(step))}
    assert {"write_report", "draw_predictions", "compare_settings"} <= filled
    for step in STEPS:
        fills = "pipeline_steps/report/page.py" in step_code(step)
        assert (step in filled) == fills, step


def test_rules_ask_for_the_code_of_the_step_that_they_run():
    rules = [rule for file in RULES.glob("*.smk") for rule in re.split(r"\n(?=(?:use )?rule )", file.read_text())]
    asking = [rule for rule in rules if "step_code(" in rule]
    assert len(asking) >= 7
    for rule in asking:
        assert re.findall(r'step_code\("(\w+)"\)', rule) == re.findall(r"python -m pipeline_steps\.(\w+)", rule)[:1]


def test_a_moved_file_is_followed_and_a_step_that_is_not_there_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "pipeline_steps"
    (package / "report/inner").mkdir(parents=True)
    (package / "step.py").write_text("def main():\n    from pipeline_steps.report import a\n")
    (package / "report/a.py").write_text("from pipeline_steps.report.inner.b import (\n    one,\n    two,\n)\n")
    (package / "report/inner/b.py").write_text('DATA = Path(__file__).with_name("b.json")\n')
    (package / "report/inner/b.json").touch()
    (package / "report/inner/other.json").touch()
    monkeypatch.setattr(module, "PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    assert step_code("step") == [
        *("pipeline_steps/report/a.py", "pipeline_steps/report/inner/b.json", "pipeline_steps/report/inner/b.py"),
        "pipeline_steps/step.py",
    ]
    monkeypatch.chdir(package)
    assert step_code("step")[0] == "report/a.py"
    monkeypatch.chdir(package / "report")  # from elsewhere by their whole names
    assert str(package / "step.py") in step_code("step")
    with pytest.raises(FileNotFoundError):
        step_code("stop")
