"""Images and continuous integration are made of the scripts of a checkout, and of nothing beside them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.environment.stand_ins import PROJECT, importable, make_stand_in

INSIDE = "/opt/lvis"


def parts_of_dockerfile() -> dict[str, list[str]]:
    """Arguments of each instruction of the Dockerfile."""
    text = (PROJECT / "containers/Dockerfile").read_text()
    parts: dict[str, list[str]] = {}
    for name, arguments in re.findall(r"(?m)^([A-Z]+) (.*)$", text):
        parts.setdefault(name, []).append(arguments)
    return parts


def test_files_and_command_of_the_dockerfile_make_the_environment(tmp_path: Path):
    stand_in, parts = make_stand_in(tmp_path / "context"), parts_of_dockerfile()
    root = tmp_path / "image"
    for source, target in map(str.split, parts["COPY"]):
        place = root / Path(target).relative_to(INSIDE)
        place.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (stand_in.root / source).is_dir() else shutil.copy
        copy(stand_in.root / source, place)
    (command,) = (line for line in parts["RUN"] if "make_venv.sh" in line)
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace(INSIDE, str(root))],
        env=stand_in.environment(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    folder = Path(re.search(r"PATH=(\S+?):\$PATH", parts["ENV"][0])[1])
    python = root / folder.relative_to(INSIDE) / "python"
    assert importable(python, "example", "detectron2", "lvis") == {"example", "detectron2", "lvis"}


def test_the_image_takes_nothing_else_from_the_checkout():
    everything, *kept = (PROJECT / "containers/Dockerfile.dockerignore").read_text().split()
    assert everything == "*"
    assert [name.removeprefix("!") for name in kept] == [copy.split()[0] for copy in parts_of_dockerfile()["COPY"]]


def test_apptainer_makes_the_same_image():
    text, parts = (PROJECT / "containers/apptainer.def").read_text(), parts_of_dockerfile()
    assert [re.search(r"(?m)^From: (.*)$", text)[1]] == parts["FROM"]
    sections = dict(re.findall(r"(?ms)^%(\w+)[^\n]*\n(.*?)(?=^%|\Z)", text))
    lines = {name: [line.strip() for line in body.splitlines() if line.strip()] for name, body in sections.items()}
    assert lines["files"] == parts["COPY"]
    assert [line for line in lines["post"] if not line.startswith(("#", "set "))] == parts["RUN"]
    assert lines["environment"] == [f"export {line}" for line in parts["ENV"]]


def test_continuous_integration_calls_the_script_with_pinned_actions_and_a_time_limit():
    workflow = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] > 0
    assert [step["run"] for step in job["steps"] if ".ci" in step.get("run", "")] == [".ci/run"]
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z]+@v\d+\.\d+\.\d+", name) for name in used)
    assert re.fullmatch(r"python:3\.11\.\d+-bookworm", job["container"]["image"])
