"""The installation scripts, on stand-in wheels: what they install and refuse, how an interrupted run is mended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import venv
from pathlib import Path

import pytest

from tests.environment.stand_ins import PROJECT, StandIn, importable, make_stand_in, make_wheel, pin


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return make_stand_in(tmp_path / "a project")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of an environment with pip and nothing else; tests may not install into it."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True, symlinks=True)
    return folder / "bin" / "python"


@pytest.fixture
def old_python(tmp_path: Path) -> Path:
    script = tmp_path / "python3.9"
    script.write_text("#!/bin/sh\necho 3.9.2\n")
    script.chmod(0o755)
    return script


def test_environment_is_made_once_then_left_alone_until_the_pins_change(stand_in: StandIn, old_python: Path):
    python = stand_in.venv / "bin" / "python"
    first = stand_in.make_venv()
    assert first.returncode == 0, first.stderr
    expected = {"example", "wheel", "detectron2", "lvis", "ensemble_boxes"}
    assert importable(python, *expected, "tests") == expected
    [package] = stand_in.venv.glob("lib/python*/site-packages/detectron2")
    assert [path.name for path in package.iterdir() if path.suffix != ".py" and path.name != "__pycache__"] == []

    (stand_in.venv / "mark").touch()
    second = stand_in.make_venv()
    assert (second.returncode, second.stdout) == (0, "")
    assert (stand_in.venv / "mark").exists()

    # With nothing but an unsuitable interpreter to be found, wanting an installation shows without the time of one.
    for name in ("python3.11", "python3.12", "python3.13", "python3", "python"):
        (old_python.parent / name).unlink(missing_ok=True)
        (old_python.parent / name).symlink_to(old_python)
    path = f"{old_python.parent}:{os.environ['PATH']}"
    assert stand_in.make_venv(PATH=path).returncode == 0
    stand_in.lock.write_text(stand_in.lock.read_text() + "# changed\n")
    third = stand_in.make_venv(PATH=path)
    assert third.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in third.stderr
    assert (stand_in.venv / "mark").exists()


def test_killed_installation_is_mended_by_the_same_command(stand_in: StandIn):
    process = subprocess.Popen(
        [stand_in.scripts / "make_venv.sh", stand_in.venv],
        env=stand_in.environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60  # seconds
    while not (stand_in.venv / "bin" / "python").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (stand_in.venv / "bin" / "python").exists()
    (stand_in.venv / "left over").touch()

    again = stand_in.make_venv()
    assert again.returncode == 0, again.stderr
    assert not (stand_in.venv / "left over").exists()
    assert importable(stand_in.venv / "bin" / "python", "example", "detectron2") == {"example", "detectron2"}


def test_package_with_another_hash_than_the_locks_is_refused_and_named(stand_in: StandIn):
    wheel = make_wheel(stand_in.wheels, "tampered", "1.0", {"tampered.py": b""})
    stand_in.lock.write_text(stand_in.lock.read_text() + pin(wheel, digest="0" * 64))
    result = stand_in.make_venv()
    assert result.returncode != 0
    assert "tampered" in result.stderr
    assert "run the same command again" in result.stderr
    assert importable(stand_in.venv / "bin" / "python", "example", "tampered") == set()


def test_folder_that_is_not_an_environment_of_ours_is_refused_and_kept(stand_in: StandIn):
    stand_in.venv.mkdir()
    (stand_in.venv / "thesis.tex").write_text("years of work")
    result = stand_in.make_venv()
    assert result.returncode != 0
    assert "is not an environment of this project" in result.stderr
    assert (stand_in.venv / "thesis.tex").read_text() == "years of work"


def test_environment_behind_a_link_is_made_and_mended_where_the_link_points(stand_in: StandIn, tmp_path: Path):
    large = tmp_path / "large disk" / "mine"
    stand_in.venv.symlink_to(large)
    large.mkdir(parents=True)
    (large / ".pinned-environment").write_text("interrupted")
    (large / "left over").touch()
    result = stand_in.make_venv()
    assert result.returncode == 0, result.stderr
    assert stand_in.venv.is_symlink()
    assert importable(stand_in.venv / "bin" / "python", "example", "detectron2") == {"example", "detectron2"}
    assert (large / "bin" / "python").exists()
    assert not (large / "left over").exists()


def test_link_to_a_folder_that_is_not_there_yet_is_followed(old_python: Path, tmp_path: Path, stand_in: StandIn):
    stand_in.venv.symlink_to(tmp_path / "large" / "mine")
    assert "Python 3.11, 3.12 or 3.13 is needed" in stand_in.make_venv(PYTHON=str(old_python)).stderr
    assert (tmp_path / "large" / "mine").is_dir()


def test_make_refuses_an_old_python_and_says_what_to_do(old_python: Path, tmp_path: Path):
    folder = tmp_path / "environment"
    result = subprocess.run(
        ["make", "env", f"PYTHON={old_python}", f"VENV={folder}"], cwd=PROJECT, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in result.stderr
    assert f"{old_python} is 3.9.2" in result.stderr
    assert list(folder.iterdir()) == []


def test_detectron2_file_with_the_wrong_hash_is_refused(bare_python: Path, tmp_path: Path):
    stand_in = make_stand_in(tmp_path / "project")
    shutil.copy(PROJECT / "workflow" / "environment" / "detectron2.txt", stand_in.scripts)
    result = stand_in.run("install_extras.sh", bare_python)
    assert result.returncode != 0
    assert "detectron2 was not installed" in result.stderr
    assert "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561" in result.stderr
    assert importable(bare_python, "detectron2", "lvis") == set()


def test_official_detectron2_is_left_alone(bare_python: Path, stand_in: StandIn, tmp_path: Path):
    official = tmp_path / "official"
    (official / "detectron2").mkdir(parents=True)
    (official / "detectron2" / "__init__.py").touch()
    (official / "detectron2-0.6.dist-info").mkdir()
    (official / "detectron2-0.6.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n"
    )
    (stand_in.scripts / "extras.txt").write_text("")
    result = stand_in.run("install_extras.sh", bare_python, PYTHONPATH=str(official))
    assert result.returncode == 0, result.stderr
    assert "detectron2 0.6" in result.stdout
    assert "left alone" in result.stdout
    assert importable(bare_python, "detectron2") == set()


def test_extras_refuse_what_is_no_suitable_interpreter(stand_in: StandIn, tmp_path: Path):
    missing = stand_in.run("install_extras.sh", tmp_path / "nothing")
    assert missing.returncode != 0
    assert "no interpreter" in missing.stderr
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\n')
    old.chmod(0o755)
    refused = stand_in.run("install_extras.sh", old)
    assert refused.returncode != 0
    assert "Python 3.9.2; Python 3.11 or later is needed" in refused.stderr
