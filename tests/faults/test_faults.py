"""Nothing half-written is ever taken for whole, and the same command again ends with the same bytes.

The short form, on a finished run of the smallest recipe; `python -m tests.faults.harness` is the long one.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import broken_files
from tests.processes import kill_all, steps_in
from tests.small_disks import enlarge, small_disk_at
from tests.workflow.checkout import Checkout

pytestmark = pytest.mark.slow

SMOKE = ("--configfile", "config/smoke.yaml", "--cores", "2")
RESULTS = Path("results/smoke")
SUBMISSION = RESULTS / "submission/submission.json"


@pytest.fixture
def finished(smoke: Checkout, tmp_path: Path) -> Iterator[Checkout]:
    """A copy of the finished run, to break."""
    folder = tmp_path / "finished"
    shutil.copytree(smoke.folder, folder, symlinks=True)
    checkout = Checkout.__new__(Checkout)
    checkout.folder = folder
    yield checkout
    kill_all(folder)


def step(checkout: Checkout, name: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start a step by hand."""
    return subprocess.Popen(
        [sys.executable, "-m", f"pipeline_steps.{name}", *map(str, arguments)],
        cwd=checkout.folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_step(checkout: Checkout, name: str, *arguments: str | Path) -> tuple[int, str]:
    process = step(checkout, name, *arguments)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def gather(checkout: Checkout, output: Path) -> tuple[str, ...]:
    shards = sorted((checkout.folder / RESULTS / "ensemble/test/masks_shards").glob("*.parquet"))
    return ("gather_shards", "--inputs", *map(str, shards), "--output", str(output))


def submit(checkout: Checkout, output: Path) -> tuple[str, ...]:
    info = checkout.folder / "datasets/smoke/lvis/lvis_v0.5_image_info_test.json"
    detections = checkout.folder / RESULTS / "ensemble/test/detections.parquet"
    options = ("--max-detections", "30", "--output", str(output))
    return ("write_submission", "--annotations", str(info), "--detections", str(detections), *options)


@pytest.mark.parametrize(("command", "name"), [(gather, "all.parquet"), (submit, "submission.json")])
def test_step_killed_at_any_moment_leaves_all_or_nothing(finished, tmp_path, command, name):
    folder = tmp_path / "out"
    output = folder / name
    start = time.monotonic()
    assert run_step(finished, *command(finished, output))[0] == 0
    seconds = time.monotonic() - start
    whole = output.read_bytes()
    chance = random.Random(1)
    for _ in range(4):
        shutil.rmtree(folder, ignore_errors=True)  # a step killed early has not made it
        process = step(finished, *command(finished, output))
        time.sleep(chance.uniform(0.5, 1.0) * seconds)
        process.kill()
        process.communicate()
        assert not output.exists() or output.read_bytes() == whole
    assert run_step(finished, *command(finished, output))[0] == 0
    assert output.read_bytes() == whole
    assert sorted(path.name for path in folder.iterdir()) == sorted([name, f"{output.stem}.manifest.json"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 KB."""
    folder = tmp_path / "disk"
    with small_disk_at(folder, "24k"):
        yield folder


@pytest.mark.parametrize("command", [gather, submit])
def test_full_disk_is_told_in_one_line_and_leaves_nothing(finished, small_disk, command):
    (small_disk / "others").write_bytes(b"x" * 16384)
    output = small_disk / "out" / ("all.parquet" if command is gather else "submission.json")
    code, text = run_step(finished, *command(finished, output))
    assert code == 2, text
    assert "no space left on the disk" in text
    assert "Traceback" not in text
    assert list(output.parent.iterdir()) == []
    enlarge(small_disk)
    assert run_step(finished, *command(finished, output))[0] == 0


def test_read_only_results_are_told_in_one_line(finished, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, text = run_step(finished, *submit(finished, small_disk / "submission.json"))
    assert code == 2, text
    assert "no permission" in text
    assert str(small_disk) in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("damaged", "rule"),
    [
        (RESULTS / "ensemble/test/detections.parquet", "write_submission"),
        (RESULTS / "predictions/test/basic/boxes.parquet", "rescore_ensemble"),
        (RESULTS / "finetune/basic/model.pth", "predict_boxes"),
    ],
)
def test_truncated_intermediate_file_stops_its_reader_and_is_made_again_when_deleted(finished, damaged, rule):
    """The reader is forced to run: to Snakemake the file is the one that it knows."""
    path = finished.folder / damaged
    before = (finished.folder / SUBMISSION).read_bytes()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    result = finished.run(*SMOKE, "-R", rule, "--", "submission")
    assert result.returncode != 0
    assert f"{rule} (" in result.stdout or f"{rule} failed" in result.stdout
    (line,) = {line for line in result.stdout.splitlines() if line.startswith("error:")}
    assert str(damaged) in line
    path.unlink()
    again = finished.run(*SMOKE, "--", "submission")
    assert again.returncode == 0, again.stdout[-4000:]
    assert (finished.folder / SUBMISSION).read_bytes() == before


def test_everything_killed_at_once_and_the_same_command_again(finished):
    before = (finished.folder / SUBMISSION).read_bytes()
    command = (*SMOKE, "-R", "rescore_ensemble", "--", "submission")
    workflow = subprocess.Popen(
        finished.command(*command), cwd=finished.folder, env=finished.environment(), stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not steps_in(finished.folder, "pipeline_steps.predict_masks") and time.monotonic() < end:
        time.sleep(0.1)
    kill_all(finished.folder)
    assert workflow.wait() == -signal.SIGKILL
    assert broken_files(finished.folder / RESULTS) == []
    assert not (finished.folder / SUBMISSION).exists() or (finished.folder / SUBMISSION).read_bytes() == before
    locked = finished.run(*SMOKE, "--", "submission")
    assert "snakemake --unlock" in locked.stdout.replace("--unlock", "snakemake --unlock", 1)
    assert finished.run(*SMOKE, "--unlock").returncode == 0
    again = finished.run(*SMOKE, "--", "submission")
    assert again.returncode == 0, again.stdout[-4000:]
    assert (finished.folder / SUBMISSION).read_bytes() == before
    assert not list(finished.folder.rglob("*.unfinished-*"))


def test_second_snakemake_is_refused_and_does_not_disturb_the_first(finished):
    before = (finished.folder / SUBMISSION).read_bytes()
    first = subprocess.Popen(
        finished.command(*SMOKE, "-R", "write_submission", "--", "submission"),
        cwd=finished.folder,
        env=finished.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 120
    while not list((finished.folder / ".snakemake/locks").glob("*")) and time.monotonic() < end:
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)  # it stays in its run for as long as the second one takes to start
    try:
        second = finished.run(*SMOKE, "-R", "write_submission", "--", "submission")
    finally:
        first.send_signal(signal.SIGCONT)
    output, _ = first.communicate(timeout=120)
    assert second.returncode != 0
    assert "lock" in second.stdout.lower()
    assert first.returncode == 0, output
    assert (finished.folder / SUBMISSION).read_bytes() == before
