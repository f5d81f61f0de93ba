"""What the pages of the project point at is there: links, files, modules, rules and recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.environment.stand_ins import PROJECT

FOLDERS = (".ci", ".github", "config", "containers", "docs", "pipeline_steps", "tests", "workflow")
TREE = [*PROJECT.glob("*"), *(path for name in FOLDERS for path in (PROJECT / name).rglob("*"))]
FILES = [path.relative_to(PROJECT).as_posix() for path in TREE if path.is_file() and "__pycache__" not in path.parts]
PAGES = sorted(name for name in FILES if name.endswith((".md", "CITATION.cff", "NOTICE")))
NAMED = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*[\w*]")
WRITTEN = {"config/recipe.schema.json"}
"""Files that a command on a page writes."""
CODE = re.compile(r"`([\w./-]+\.(?:py|smk|sh))\b")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_a_file(page):
    links = re.findall(r"\]\((?![a-z]+:)([^)#]+)", (PROJECT / page).read_text())
    assert [link for link in links if not (PROJECT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_named_files_modules_and_recipes_exist(page):
    text = (PROJECT / page).read_text()
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "", text)
    assert [name for name in {*NAMED.findall(text)} - WRITTEN if not any(PROJECT.glob(name))] == []
    modules = re.findall(r"python -m ((?:pipeline_steps|tests)(?:\.\w+)+)", text)
    places = [Path(*name.split(".")).as_posix() for name in modules]
    assert [name for name in places if f"{name}.py" not in FILES and f"{name}/__main__.py" not in FILES] == []
    known = "\n".join(["", *(f"/{name}" for name in FILES), ""])
    assert [name for name in CODE.findall(text) if f"/{name}\n" not in known] == []


def test_every_page_of_docs_is_reached_from_the_readme_or_the_help_of_a_step():
    linked = set(re.findall(r"\]\((docs/[^)#]+)", (PROJECT / "README.md").read_text()))
    named = {
        name
        for step in (PROJECT / "pipeline_steps").glob("*.py")
        for name in re.findall(r"docs/\w+\.md", step.read_text())
    }
    assert {name for name in FILES if name.startswith("docs/")} <= linked | named


def test_the_readme_is_short():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 150
