"""Several downloads into one folder at once, killed ones, interrupted ones: all end right."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.downloads.sites import JPEG, TABLE, TRAIN, VAL, contents, download, start_download

CASES = {
    "boxes.csv": (("--only", "openimages_tables"), {"openimages/boxes.csv": TABLE}),
    "ann.zip": (
        ("--only", "coco_annotations"),
        {"coco/annotations/instances_train2017.json": TRAIN, "coco/annotations/instances_val2017.json": VAL},
    ),
    "00000000000000aa.jpg": (
        ("--only", "openimages_images", "--image-list", "ids.txt"),
        {f"openimages/train/00000000000000a{letter}.jpg": JPEG for letter in "ab"},
    ),
}


def options_of(site: Path, file: str) -> list[str]:
    (site / "ids.txt").write_text("00000000000000aa\n00000000000000ab\n")
    return [str(site / word) if word == "ids.txt" else word for word in CASES[file][0]]


def locks(site: Path) -> list[Path]:
    return list((site / "data").rglob("*.lock"))


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


@pytest.mark.parametrize("file", CASES)
def test_second_download_waits_for_the_first_and_says_so(site, server, file):
    options = options_of(site, file)
    server.faults[file] = ["hold"]
    first = start_download(site, *options)
    assert server.busy.wait(30)
    second = start_download(site, *options)
    line = second.stdout.readline()
    assert f"is being downloaded by another process (process {first.pid} on" in line
    assert "another process" in line
    server.released.set()
    for process in (first, second):
        code, output = finish(process)
        assert code == 0, output
    assert contents(site / "data") == CASES[file][1]
    assert len([path for path, _ in server.requests if path == file]) == 1


@pytest.mark.parametrize("file", CASES)
def test_killed_download_blocks_nobody_and_leaves_nothing_half_written(site, server, file):
    options = options_of(site, file)
    server.faults[file] = ["hold"]
    first = start_download(site, *options)
    assert server.busy.wait(30)
    first.kill()
    finish(first)
    assert len(locks(site)) == 1
    assert not (site / "data" / next(iter(CASES[file][1]))).exists()
    assert download(site, *options) == 0
    assert contents(site / "data") == CASES[file][1]
    assert server.requests[-1][0] in {file, "00000000000000ab.jpg"}


@pytest.mark.parametrize(("file", "number"), zip(CASES, (signal.SIGINT, signal.SIGTERM, signal.SIGINT), strict=True))
def test_interrupted_download_ends_soon_though_the_server_is_silent(site, server, file, number):
    """The server holds the second half back for longer than this test waits."""
    options = options_of(site, file)
    server.faults[file] = ["hold"]
    process = start_download(site, *options)
    assert server.busy.wait(30)
    start = time.monotonic()
    process.send_signal(number)
    code, output = finish(process)
    assert time.monotonic() - start < 10
    assert code in (130, 128 + number), output
    assert "Traceback" not in output
    server.released.set()
    assert download(site, *options) == 0
    assert contents(site / "data") == CASES[file][1]


def test_downloads_of_members_of_one_archive_at_once_fetch_it_once(site, server):
    server.faults["ann.zip"] = ["hold"]
    processes = [start_download(site, "--file", "instances_train2017.json")]
    assert server.busy.wait(30)
    processes.append(start_download(site, "--file", "instances_val2017.json"))
    assert "another process" in processes[1].stdout.readline()
    server.released.set()
    for process in processes:
        code, output = finish(process)
        assert code == 0, output
    assert contents(site / "data") == CASES["ann.zip"][1]
    assert len(server.requests) == 1
