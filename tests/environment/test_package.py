"""The project installs as a package whose steps run outside the checkout, and its papers say what they should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.environment.stand_ins import PROJECT

METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the files that it needs."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(PROJECT / "pipeline_steps", folder / "pipeline_steps", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(PROJECT / name, folder)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", "dist", "."]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = (folder / "dist").iterdir()
    return file


def test_wheel_has_every_module_and_data_file_and_the_papers(wheel):
    package = PROJECT / "pipeline_steps"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {str(path.relative_to(PROJECT)) for path in files} <= packed
    assert {Path(name).name for name in packed if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert not any(name.startswith(("tests", "workflow", "config")) for name in packed)


@pytest.mark.parametrize("step", ["verify", "rescore_ensemble"])
def test_steps_run_from_the_installed_wheel_in_a_clean_folder(wheel, tmp_path, step):
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", "site", wheel]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "clean").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", f"pipeline_steps.{step}", "--help"],
        cwd=tmp_path / "clean",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert f"usage: python -m pipeline_steps.{step}" in result.stdout
    assert list((tmp_path / "clean").iterdir()) == []


def test_papers_agree_on_version_and_licence():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert (str(citation["version"]), citation["license"]) == (METADATA["version"], METADATA["license"])
    assert re.search(rf"(?m)^## {re.escape(METADATA['version'])}$", (PROJECT / "CHANGELOG.md").read_text())
    licence = (PROJECT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    notice = (PROJECT / "NOTICE").read_text()
    assert all(name in notice for name in ("LVIS", "COCO", "Open Images", "CC BY 4.0"))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_papers_lead_somewhere(name):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (PROJECT / name).read_text())
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []
