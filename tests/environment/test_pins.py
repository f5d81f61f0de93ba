"""requirements.lock is the one source of versions: complete, hashed, free of host names."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys

import pytest
import yaml

from tests.environment.stand_ins import PROJECT

REQUIREMENTS = PROJECT / "workflow" / "environment" / "requirements.in"
LOCK = PROJECT / "requirements.lock"
EXTRAS = [PROJECT / "workflow" / "environment" / name for name in ("detectron2.txt", "extras.txt")]
PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!-]+)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_lines(text: str) -> list[str]:
    """Logical lines: comments removed, continuations joined."""
    lines = re.sub(r"(?m)(^|\s+)#.*$", "", text).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def pins(path) -> dict[str, str]:
    return {
        normal(match[1]): match[2]
        for line in requirement_lines(path.read_text())
        if (match := PIN.match(line)) is not None
    }


def test_every_direct_requirement_is_pinned_and_in_the_lock_at_that_version():
    lines, direct, locked = requirement_lines(REQUIREMENTS.read_text()), pins(REQUIREMENTS), pins(LOCK)
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    assert len(direct) == len(lines)
    assert {name: locked.get(name) for name in direct} == direct


@pytest.mark.parametrize("path", [LOCK, *EXTRAS], ids=lambda path: path.name)
def test_every_pin_has_sha256_hashes_and_nothing_else(path):
    lines = requirement_lines(path.read_text())
    assert lines
    for line in lines:
        requirement, *hashes = line.split()
        assert PIN.fullmatch(requirement), requirement
        assert hashes, f"{requirement} has no hash"
        assert all(map(HASH.fullmatch, hashes)), line


@pytest.mark.parametrize("path", [LOCK, REQUIREMENTS, *EXTRAS], ids=lambda path: path.name)
def test_pins_name_no_host_and_no_folder(path):
    text = path.read_text()
    assert not re.search(r"://|@|--(index|extra-index|find-links|trusted-host)|\w\.(org|com|net|io)\b", text)


def test_conda_takes_every_version_from_the_lock():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": ["-r requirements.lock"]}


def imported_packages() -> set[str]:
    names = set()
    for path in [*(PROJECT / "pipeline_steps").rglob("*.py"), *(PROJECT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    return names


def test_everything_the_project_imports_is_a_direct_requirement():
    distributions = importlib.metadata.packages_distributions()
    declared = set(pins(REQUIREMENTS)).union(*(pins(path) for path in EXTRAS), {"detectron2"})
    ours = {"pipeline_steps", "tests"}
    undeclared = {
        name: distributions.get(name, ["not installed"])
        for name in imported_packages() - ours - sys.stdlib_module_names
        if declared.isdisjoint(map(normal, distributions.get(name, [])))
    }
    assert undeclared == {}
