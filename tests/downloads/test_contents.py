"""LVIS files are told by what they hold: release, split, counts. Every source of the shipped table can be judged."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.sources.expected import content_mismatch, parse_contents
from pipeline_steps.data.sources.source import read_sources
from tests.downloads.sites import HEADER, contents, download, zipped

ROOT = Path(__file__).parents[2]
SOURCES = {source.file: source for source in read_sources(ROOT / "config/sources.csv")}
LVIS = {Path(name).name.removesuffix(".zip"): source for name, source in SOURCES.items() if source.group == "lvis"}


def lvis_file(version: str, images: int, annotations: int, letters: dict[str, str] | None = None) -> bytes:
    """A file with the categories of a release and as many images and annotations."""
    facts = ROOT / f"tests/data/facts/lvis_{version}_categories.csv"
    with facts.open(newline="") as file:
        rows = list(csv.DictReader(file))
    frequency = {row["id"]: row["frequency"] for row in rows} | (letters or {})
    content = {
        "categories": [{"id": int(row["id"]), "name": row["name"], "frequency": frequency[row["id"]]} for row in rows],
        "images": [{"id": k, "width": 1, "height": 1} for k in range(images)],
        "annotations": [{"id": k, "image_id": 0} for k in range(annotations)],
    }
    return json.dumps(content).encode()


def test_right_file_is_recognised(tmp_path):
    (tmp_path / "val.json").write_bytes(lvis_file("v0.5", 5000, 50763))
    assert content_mismatch(tmp_path / "val.json", LVIS["lvis_v0.5_val.json"].contents) == ""


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (("v1", 5000, 50763), "1203 categories instead of 1230, 337 rare categories instead of 454"),
        (("v0.5", 4999, 50763), "holds 4999 images instead of 5000: it is another release or split"),
        (("v0.5", 5000, 50762), "holds 50762 annotations instead of 50763:"),
        (("v0.5", 5000, 50763, {"1": "f"}), "categories instead of"),
    ],
)
def test_other_release_split_or_changed_file_is_named(tmp_path, file, words):
    (tmp_path / "val.json").write_bytes(lvis_file(*file))
    expected = replace(LVIS["lvis_v0.5_val.json"].contents, annotations=50763)
    assert words in content_mismatch(tmp_path / "val.json", expected)


@pytest.fixture
def lvis_site(site, server):
    """The site with an archive of LVIS val, and in its table what that must hold."""
    (server.root / "val.json.zip").write_bytes(zipped(**{"val.json": lvis_file("v0.5", 3, 2)}))
    row = "lvis,v0.5,archives/val.json.zip,https://x.org/val.json.zip,<1000000,,,lvis,val.json,,CC,v,{}"
    (site / "sources.csv").write_text(f"{HEADER},contents\n{row.format('categories=1230 r=454 images=4')}\n")
    return site


def test_archive_with_another_file_in_it_is_refused_and_nothing_appears(lvis_site, capsys):
    assert download(lvis_site) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "val.json.zip: member 'val.json' holds 3 images instead of 4" in message
    assert "delete the archive" in message
    assert list(contents(lvis_site / "data")) == ["archives/val.json.zip"]


def test_file_on_the_disk_is_looked_into_by_the_check_of_the_data(lvis_site, capsys):
    path = lvis_site / "data/lvis/val.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(lvis_file("v0.5", 4, 0))
    assert download(lvis_site, "--check") == 0
    path.write_bytes(lvis_file("v1", 4, 0))
    assert download(lvis_site, "--check") == 2
    message = capsys.readouterr().err
    assert f"{path} holds 1203 categories instead of 1230, 337 rare categories instead of 454: it is another" in message


@pytest.mark.parametrize("word", ["categories", "images=", "images=-1", "imags=4", "images=4.5", "images=\xb2"])
def test_malformed_contents_are_named_with_their_line(word):
    with pytest.raises(UserError, match=r"t\.csv, line 2: contents has .* expected NAME=NUMBER"):
        parse_contents(f"categories=3 {word}", "t.csv, line 2")


@pytest.mark.parametrize("text", ["~", "<", "<<5", "~-1", "5~", "\xb2"])
def test_malformed_sizes_are_named_with_their_line(tmp_path, text):
    row = f"weights,,w.pth,https://x.org/w.pth,{text},,,,,,CC,w"
    (tmp_path / "s.csv").write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(UserError, match=r"s\.csv, line 2: bytes is"):
        read_sources(tmp_path / "s.csv")


def test_every_source_has_a_size_or_bounds_and_a_checksum_or_contents():
    for source in SOURCES.values():
        assert source.planned_bytes > 0, source.file
        many = "{id}" in source.file  # each image is looked at as it comes
        assert many or source.md5 or source.sha256_prefix or source.contents, source.file
        assert (source.bytes is None) == (source.most is not None)


@pytest.mark.parametrize(("version", "annotations"), [("v0.5", 693_958), ("v1", 1_270_141)])
def test_counts_of_the_table_are_those_of_the_published_categories(version, annotations):
    with (ROOT / f"tests/data/facts/lvis_{version}_categories.csv").open(newline="") as file:
        letters = Counter(row["frequency"] for row in csv.DictReader(file))
    found = LVIS[f"lvis_{version}_train.json"].contents
    assert (found.categories, found.r, found.c, found.f) == (letters.total(), letters["r"], letters["c"], letters["f"])
    assert found.annotations == annotations
