"""A full disk is one clear line, nothing half-written is taken for whole, and the same command again completes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_steps.downloads import archives
from tests.downloads.sites import contents, download, publish, write_recipe, write_sources
from tests.small_disks import enlarge, small_disk_at

KB = 1024


@pytest.fixture
def site(server, tmp_path: Path) -> Iterator[Path]:
    """A site whose data folder is a file system of 400 KB; the table of sources says no sizes."""
    publish(server.root, tmp_path)
    write_recipe(tmp_path, server.url)
    (server.root / "boxes.csv").write_bytes(b"0123456789abcdef" * 64 * 500)
    content = b'{"images": "' + b"a" * 600 * KB + b'"}'
    with zipfile.ZipFile(server.root / "ann.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("annotations/instances_train2017.json", content)
        file.writestr("annotations/instances_val2017.json", b"{}")
    for letter in "abcdef":
        (server.root / f"0000000{letter}.jpg").write_bytes(b"\xff\xd8" + b"x" * 100 * KB + b"\xff\xd9")
    (tmp_path / "ids.txt").write_text("".join(f"0000000{letter}\n" for letter in "abcdef"))
    table = (tmp_path / "sources.csv").read_text().splitlines()
    rows = [
        ",".join("" if position == 4 else cell for position, cell in enumerate(row.split(","))) for row in table[1:]
    ]
    (tmp_path / "sources.csv").write_text("\n".join([table[0], *rows]) + "\n")
    with small_disk_at(tmp_path / "data", "400k"):
        yield tmp_path


def error_line(capsys) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text.splitlines()[-1]


def test_disk_that_fills_up_during_a_download(site, server, capsys):
    assert download(site, "--only", "openimages_tables") == 2
    line = error_line(capsys)
    assert line.startswith(f"error: no space left on the disk (or quota exceeded) in {site}/data/openimages while")
    assert "fetching boxes.csv: free space, then start again; what has been downloaded is kept" in line
    assert not (site / "data/openimages/boxes.csv").exists()
    came = (site / "data/openimages/.boxes.csv.part").stat().st_size
    assert came > 0
    enlarge(site / "data")
    assert download(site, "--only", "openimages_tables") == 0
    assert contents(site / "data") == {"openimages/boxes.csv": (server.root / "boxes.csv").read_bytes()}
    assert server.requests[-1] == ("boxes.csv", f"bytes={came}-")


def test_archive_that_will_not_fit_unpacked_is_told_before_it_is_unpacked(site, capsys):
    assert download(site, "--only", "coco_annotations") == 2
    assert "ann.zip, unpacked, needs 614.4 kB, but only" in error_line(capsys)
    assert list(contents(site / "data")) == ["archives/ann.zip"]


def test_disk_that_fills_up_while_unpacking(site, server, capsys, monkeypatch):
    monkeypatch.setattr(archives, "require_space", lambda *_: None)  # somebody else takes the room after the question
    assert download(site, "--only", "coco_annotations") == 2
    line = error_line(capsys)
    assert f"in {site}/data/coco while unpacking ann.zip: free space, then start again; the archive is kept" in line
    assert list(contents(site / "data")) == ["archives/ann.zip"]
    enlarge(site / "data")
    assert download(site, "--only", "coco_annotations") == 0
    assert sorted(contents(site / "data")) == [f"coco/annotations/instances_{s}2017.json" for s in ("train", "val")]
    assert len(server.requests) == 1


def test_disk_that_fills_up_while_images_come(site, server, capsys, monkeypatch):
    monkeypatch.setattr("pipeline_steps.download.BYTES_PER_IMAGE", 0)
    options = ["--only", "openimages_images", "--image-list", str(site / "ids.txt")]
    assert download(site, *options) == 2
    assert "while fetching OpenImages images: free space, then start again; downloaded images are kept" in (
        error_line(capsys)
    )
    came = contents(site / "data")
    assert 0 < len(came) < 6
    assert {len(content) for content in came.values()} == {100 * KB + 4}
    enlarge(site / "data")
    assert download(site, *options) == 0
    assert len(contents(site / "data")) == 6
    assert not list((site / "data").rglob("*.part"))


def test_disk_that_is_too_small_is_said_before_anything_is_fetched(site, server, capsys):
    write_sources(site, 150_000, "")
    assert download(site, "--only", "coco_annotations") == 2
    assert "archives/ann.zip needs 660.0 kB, but " in error_line(capsys)
    assert server.requests == []


def test_space_for_the_images_of_a_list_is_asked_for(site, server, capsys):
    options = ["--only", "openimages_images", "--image-list", str(site / "ids.txt")]
    assert download(site, *options) == 2
    assert "openimages/train/{id}.jpg (estimated) needs" in error_line(capsys)
    assert server.requests == []
