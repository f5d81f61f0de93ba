"""The project installs as a package whose steps run outside the checkout, and its papers say what they should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.environment.stand_ins import PROJECT

METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


def run(*command: object, folder: Path) -> str:
    """Standard output of a command that succeeds."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([*map(str, command)], cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from a copy of the files that it needs."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(PROJECT / "pipeline_steps", folder / "pipeline_steps", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(PROJECT / name, folder)
    run(sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('dist')", folder=folder)
    (file,) = (folder / "dist").iterdir()
    assert file.name == f"lvis_challenge_pipeline-{METADATA['version']}.tar.gz"
    return file


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """The wheel, built from the source distribution: what either lacks, the wheel lacks."""
    build = ("pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", "wheels", sdist)
    run(sys.executable, "-m", *build, folder=sdist.parent)
    (file,) = (sdist.parent / "wheels").iterdir()
    return file


def test_wheel_has_every_module_and_data_file_and_the_papers(wheel):
    package = PROJECT / "pipeline_steps"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {str(path.relative_to(PROJECT)) for path in files} <= packed
    assert {Path(name).name for name in packed if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert not any(name.startswith(("tests", "workflow", "config")) for name in packed)


def test_source_distribution_has_the_papers_and_nothing_of_the_tests(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "NOTICE", "README.md", "pyproject.toml", "pipeline_steps/train.py"} <= names
    assert not any(name.startswith("tests") for name in names)


def test_steps_run_from_the_wheel_in_a_clean_environment_beside_the_pinned_packages(wheel, tmp_path):
    venv.create(tmp_path / "venv", symlinks=True, with_pip=False)
    python, clean = tmp_path / "venv/bin/python", tmp_path / "clean"
    clean.mkdir()
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, folder=clean)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=clean).strip())
    assert (site / "pipeline_steps/train.py").is_file()
    (site / "pinned.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    for step in ("verify", "rescore_ensemble"):
        assert f"usage: python -m pipeline_steps.{step}" in run(
            python, "-m", f"pipeline_steps.{step}", "--help", folder=clean
        )
    assert list(clean.iterdir()) == []


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
