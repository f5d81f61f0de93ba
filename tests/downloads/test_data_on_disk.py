"""Data on the disk are used in place after a check; what is not whole is named and never touched."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.downloads.sites import JPEG, TABLE, TRAIN, VAL, contents, download

ANNOTATIONS = Path("data/coco/annotations")


def put(path: Path, content: bytes) -> Path:
    """Write a file long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def put_everything(data: Path) -> None:
    """All data of the site, as a user would have them."""
    put(data / "coco/annotations/instances_train2017.json", TRAIN)
    put(data / "coco/annotations/instances_val2017.json", VAL)
    for number in range(5):
        put(data / f"coco/train2017/{number:012d}.jpg", JPEG)
    put(data / "openimages/boxes.csv", TABLE)
    put(data / "openimages/train/00000000000000aa.jpg", JPEG)


def test_only_the_missing_member_of_an_archive_is_unpacked(site):
    mine = put(site / ANNOTATIONS / "instances_train2017.json", b'{"mine": 1}')
    assert download(site, "--only", "coco_annotations") == 0
    assert mine.read_bytes() == b'{"mine": 1}'
    assert mine.stat().st_mtime == 1_000_000_000
    assert contents(site / "data/coco") == {
        "annotations/instances_train2017.json": b'{"mine": 1}',
        "annotations/instances_val2017.json": VAL,
    }


def test_archive_of_two_files_that_are_asked_for_one_by_one_is_fetched_once(site, server):
    assert download(site, "--file", "instances_train2017.json") == 0
    assert sorted(contents(site / "data")) == ["archives/ann.zip", "coco/annotations/instances_train2017.json"]
    assert download(site, "--file", "instances_val2017.json") == 0
    assert sorted(contents(site / "data")) == [
        "coco/annotations/instances_train2017.json",
        "coco/annotations/instances_val2017.json",
    ]
    assert [path for path, _ in server.requests] == ["ann.zip"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("coco/annotations/instances_val2017.json", b'{"images": [', "is not a complete JSON file"),
        ("coco/annotations/instances_val2017.json", b"", "is not a complete JSON file"),
        ("openimages/boxes.csv", TABLE[:-1], f"has {len(TABLE) - 1} bytes instead of {len(TABLE)}"),
        ("archives/ann.zip", b"PK", "has 2 bytes instead of"),
    ],
)
def test_file_that_is_not_whole_is_named_with_the_remedy_and_left_alone(site, server, capsys, file, content, words):
    path = put(site / "data" / file, content)
    assert download(site) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"{path} {words}" in message
    assert "delete it and start again" in message
    assert path.read_bytes() == content
    path.unlink()
    assert download(site) == 0


def test_folder_with_missing_images_is_named_and_left_alone(site, server, capsys):
    put_everything(site / "data")
    (site / "data/coco/train2017/000000000003.jpg").unlink()
    before = contents(site / "data")
    assert download(site) == 2
    assert f"{site}/data/coco/train2017 holds 4 images instead of 5: complete" in capsys.readouterr().err
    assert contents(site / "data") == before
    assert server.requests == []
    put(site / "data/coco/train2017/000000000003.jpg", JPEG)
    assert download(site) == 0


def test_image_on_the_disk_that_is_not_whole_is_listed_and_left_alone(site, server, capsys):
    path = put(site / "data/openimages/train/00000000000000aa.jpg", JPEG[:-2])
    (site / "ids.txt").write_text("00000000000000aa\n00000000000000ab\n")
    manifest = site / "m.json"
    options = ["--only", "openimages_images", "--image-list", str(site / "ids.txt"), "--manifest", str(manifest)]
    assert download(site, *options) == 0
    failed = json.loads(manifest.read_text())["failed"]
    assert failed == {"00000000000000aa": "the file on the disk is not a complete JPEG file: delete it"}
    assert path.read_bytes() == JPEG[:-2]
    path.unlink()
    assert download(site, *options) == 0
    assert json.loads(manifest.read_text())["failed"] == {}


def test_link_to_nothing_is_named(site, capsys):
    (site / "data/openimages").mkdir(parents=True)
    (site / "data/openimages/boxes.csv").symlink_to("/nowhere/boxes.csv")
    assert download(site, "--only", "openimages_tables") == 2
    assert "boxes.csv is a link to /nowhere/boxes.csv, which does not exist" in capsys.readouterr().err


def test_links_to_data_elsewhere_are_used(site, server):
    put_everything(site / "shared")
    (site / "data/coco/annotations").mkdir(parents=True)
    for name in ("instances_train2017.json", "instances_val2017.json"):
        (site / ANNOTATIONS / name).symlink_to(site / "shared/coco/annotations" / name)
    (site / "data/coco/train2017").symlink_to(site / "shared/coco/train2017")
    (site / "data/openimages").symlink_to(site / "shared/openimages")
    (site / "ids.txt").write_text("00000000000000aa\n")
    assert download(site) == 0
    assert download(site, "--only", "openimages_images", "--image-list", str(site / "ids.txt")) == 0
    assert server.requests == []


@pytest.fixture
def read_only_data(site: Path) -> Iterator[Path]:
    """All data on a file system that nobody can write to."""
    data = site / "data"
    data.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", data], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.decode().strip()}")
    put_everything(data)
    subprocess.run(["mount", "-o", "remount,ro", data], check=True)
    yield data
    subprocess.run(["umount", data], check=True)


def test_read_only_data_are_used_in_place(site, read_only_data, server):
    (site / "ids.txt").write_text("00000000000000aa\n")
    manifest = site / "m.json"
    assert download(site, "--manifest", str(manifest)) == 0
    assert json.loads(manifest.read_text()) == {
        "files": {
            "coco/annotations/instances_train2017.json": {"bytes": len(TRAIN)},
            "coco/annotations/instances_val2017.json": {"bytes": len(VAL)},
            "openimages/boxes.csv": {"bytes": len(TABLE)},
        },
        "folders": {"coco/train2017": {"files": 5, "bytes": 5 * len(JPEG)}},
    }
    assert download(site, "--check", "--file", "boxes.csv") == 0
    assert download(site, "--only", "openimages_images", "--image-list", str(site / "ids.txt")) == 0
    assert server.requests == []


def test_check_fetches_nothing(site, server, capsys):
    assert download(site, "--check", "--file", "boxes.csv", "--manifest", str(site / "m.json")) == 2
    assert "data/openimages/boxes.csv not found: run the data stage, or put it there" in capsys.readouterr().err
    assert not (site / "m.json").exists()
    assert not (site / "data").exists()
    assert server.requests == []
    put(site / "data/openimages/boxes.csv", TABLE + b"x")
    assert download(site, "--check", "--file", "boxes.csv") == 2
    assert f"boxes.csv has {len(TABLE) + 1} bytes instead of {len(TABLE)}" in capsys.readouterr().err
