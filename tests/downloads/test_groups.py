"""Groups of sources: archives unpacked and counted, data on disk kept, images one by one."""

from __future__ import annotations

import json
import re
import warnings
import zipfile

import pytest
import yaml

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.sources.space import most_images
from pipeline_steps.downloads import bars
from pipeline_steps.downloads.archives import unpack
from pipeline_steps.downloads.openimages_images import read_image_list
from pipeline_steps.downloads.transfer import Patience, fetch
from pipeline_steps.recipe.load import resolve_recipe
from tests.downloads.sites import JPEG, ROOT, TABLE, TRAIN, VAL, contents, download, write_recipe, zipped


def test_groups_are_fetched_unpacked_counted_and_archives_removed(site):
    assert download(site, "--only", "coco_images", "--manifest", str(site / "manifest.json")) == 0
    data = site / "data"
    assert len(list((data / "coco/train2017").iterdir())) == 5
    assert list((data / "archives").iterdir()) == []
    manifest = json.loads((site / "manifest.json").read_text())
    assert manifest["folders"]["coco/train2017"] == {"files": 5, "bytes": 5 * len(JPEG)}


def test_only_wanted_members_are_unpacked(site):
    assert download(site, "--only", "coco_annotations") == 0
    assert contents(site / "data") == {
        "coco/annotations/instances_train2017.json": TRAIN,
        "coco/annotations/instances_val2017.json": VAL,
    }


def test_archives_are_kept_on_request_and_not_fetched_again(site, server):
    write_recipe(site, server.url, keep_archives=True)
    assert download(site, "--only", "coco_annotations") == 0
    assert (site / "data/archives/ann.zip").read_bytes() == (server.root / "ann.zip").read_bytes()
    for path in (site / "data/coco/annotations").iterdir():
        path.unlink()
    assert download(site, "--only", "coco_annotations") == 0
    assert len(server.requests) == 1


def test_mirror_may_be_a_local_folder(site, server):
    write_recipe(site, str(server.root))
    (site / "ids.txt").write_text("00000000000000aa\n00000000000000ff\n")
    assert download(site) == 0
    assert download(site, "--only", "openimages_images", "--image-list", str(site / "ids.txt")) == 0
    assert sorted(contents(site / "data")) == [
        "coco/annotations/instances_train2017.json",
        "coco/annotations/instances_val2017.json",
        *(f"coco/train2017/{i:012d}.jpg" for i in range(5)),
        "openimages/boxes.csv",
        "openimages/train/00000000000000aa.jpg",
    ]
    assert server.requests == []


def test_dry_run_fetches_nothing_and_prints_what_is_missing_and_how_much(site, server, capsys):
    (site / "data/openimages").mkdir(parents=True)
    (site / "data/openimages/boxes.csv").write_bytes(TABLE)
    before = contents(site)
    assert download(site, "--dry-run") == 0
    text = capsys.readouterr().out
    size = (server.root / "ann.zip").stat().st_size
    assert f"{size} B  archives/ann.zip  <-  {server.url}/ann.zip  (CC)" in text
    assert f"size unknown  archives/train2017.zip  <-  {server.url}/train2017.zip  (F)" in text
    assert "on disk  openimages/boxes.csv" in text
    assert f"2 of 3 to fetch: {size} B and 1 of unknown size" in text
    assert "~6.20 GB  openimages/train/{id}.jpg" in text
    assert "up to 20000 images" in text
    assert server.requests == []
    assert contents(site) == before


def test_dry_run_counts_the_images_of_a_list(site, server, capsys):
    (site / "ids.txt").write_text("00000000000000aa\n00000000000000ab\n")
    options = ("--only", "openimages_images", "--image-list", str(site / "ids.txt"))
    assert download(site, *options, "--dry-run") == 0
    assert "~620.0 kB" in (printed := capsys.readouterr().out)
    assert "2 of 2 images to fetch" in printed
    assert server.requests == []


def test_wrong_count_of_images_is_refused_and_nothing_is_left_half_unpacked(site, server, capsys):
    (server.root / "train2017.zip").write_bytes(zipped(train2017__1=JPEG, **{"train2017__2.jpg": JPEG}))
    assert download(site, "--only", "coco_images") != 0
    assert "1 images instead of 5" in capsys.readouterr().err
    assert not (site / "data/coco/train2017").exists()
    assert not list((site / "data/coco").glob(".unpacking*"))


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "train2017/../../evil.txt", "a\\..\\evil"])
def test_archive_with_a_member_outside_the_folder_is_refused_whole(tmp_path, name):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train2017/1.jpg", JPEG)
        file.writestr(zipfile.ZipInfo(name), b"evil")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="outside the folder"):
        unpack(archive, tmp_path / "out", ("train2017/",))
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "evil.txt").exists()


def test_symbolic_links_in_archives_are_refused(tmp_path):
    info = zipfile.ZipInfo("train2017/link.jpg")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="symbolic link"):
        unpack(tmp_path / "a.zip", tmp_path, ("train2017/",))


def test_damaged_archives_are_named(tmp_path):
    content = zipped(**{"train2017__1.jpg": JPEG * 1000})
    for name, damaged in (("cut.zip", content[:-30]), ("bits.zip", content.replace(JPEG, b"x" * len(JPEG), 3))):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name} is not a valid zip archive"):
            unpack(tmp_path / name, tmp_path, ("train2017/",))
        assert not (tmp_path / "train2017").exists()


def bomb(path, copies: int = 1):
    """A zip of one member that unpacks to a thousand times its size; its data are in the directory several times."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train2017/0.jpg", bytes(200_000_000))
        for number in range(1, copies):
            info = file.infolist()[0]
            other = zipfile.ZipInfo(f"train2017/{number}.jpg")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(other, name, getattr(info, name))
            file.filelist.append(other)
            file.NameToInfo[other.filename] = other
    return path


@pytest.mark.parametrize("copies", [1, 50])
def test_archive_that_would_fill_the_disk_is_refused_before_it_is_unpacked(tmp_path, copies):
    archive = bomb(tmp_path / "bomb.zip", copies)
    assert archive.stat().st_size < 1_000_000
    with pytest.raises(UserError, match=rf"would become {copies * 200_000_000}, more than 30 times as many"):
        unpack(archive, tmp_path / "out", ("train2017/",))
    assert not (tmp_path / "out").exists()


def test_archive_whose_directory_understates_a_member_is_refused_and_no_more_is_written(tmp_path, monkeypatch):
    archive = tmp_path / "liar.zip"
    archive.write_bytes(zipped(train2017__1=b"x" * 1_000_000))
    content = archive.read_bytes()
    archive.write_bytes(content.replace((1_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"liar\.zip is not a valid zip archive"):
        unpack(archive, tmp_path, ("train2017/",))
    assert [path.name for path in tmp_path.iterdir()] == ["liar.zip"]


def test_member_that_is_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in (JPEG, b"other"):
            file.writestr("train2017/1.jpg", content)
    with pytest.raises(UserError, match="duplicate member"):
        unpack(tmp_path / "twice.zip", tmp_path, ("train2017/",))


def test_endless_image_is_given_up_and_listed(site, server):
    table = (site / "sources.csv").read_text().replace("{id}.jpg,,,", "{id}.jpg,<500000,,")
    (site / "sources.csv").write_text(table)
    server.faults["00000000000000aa.jpg"] = ["endless"]
    (site / "ids.txt").write_text("00000000000000aa\n00000000000000ab\n")
    options = ["--image-list", str(site / "ids.txt"), "--manifest", str(site / "m.json")]
    assert download(site, "--only", "openimages_images", *options) == 0
    failed = json.loads((site / "m.json").read_text())["failed"]
    assert failed == {"00000000000000aa": "more than 500000 bytes"}


def test_images_wait_no_longer_than_ours_for_a_server_that_asks_for_a_day(site, server, monkeypatch):
    monkeypatch.setattr("pipeline_steps.download.Patience", lambda **options: Patience(**options, longest_wait=0))
    write_recipe(site, server.url, retries=1)
    server.faults["00000000000000aa.jpg"] = [("wait", "86400")]
    (site / "ids.txt").write_text("00000000000000aa\n")
    assert download(site, "--only", "openimages_images", "--image-list", str(site / "ids.txt")) == 0
    assert contents(site / "data") == {"openimages/train/00000000000000aa.jpg": JPEG}


def test_images_are_fetched_one_by_one_and_failures_are_listed(site, capsys):
    lines = ["00000000000000aa", "train/00000000000000ab", "", "00000000000000ff", "train/00000000000000aa", ""]
    (site / "ids.txt").write_text("\n".join(lines))
    options = ["--only", "openimages_images", "--image-list", str(site / "ids.txt"), "--manifest", str(site / "m.json")]
    assert download(site, *options) == 0
    failed = {"00000000000000ff": "status 404"}
    assert json.loads((site / "m.json").read_text()) == {"images": 3, "bytes": 2 * len(JPEG), "failed": failed}
    assert download(site, *options) == 0
    assert "2 images were there, 0 fetched, 1 failed" in capsys.readouterr().out


def test_too_many_failed_images_stop_with_reasons_and_truncated_images_do_not_count_as_whole(site, capsys):
    (site / "ids.txt").write_text("00000000000000aa\n00000000000000ac\n00000000000000ff\n")
    options = ["--only", "openimages_images", "--image-list", str(site / "ids.txt")]
    assert download(site, *options) != 0
    message = capsys.readouterr().err
    assert "2 of 3 OpenImages images could not be downloaded" in message
    assert "00000000000000ac: not a complete JPEG file" in message
    assert [p.name for p in (site / "data/openimages/train").iterdir()] == ["00000000000000aa.jpg"]


def test_lines_that_are_no_image_ids_are_named(tmp_path):
    (tmp_path / "ids.txt").write_text("00000000000000aa\n../../etc/passwd\n")
    with pytest.raises(UserError, match="line 2"):
        read_image_list(tmp_path / "ids.txt")


def test_all_failures_of_a_group_are_reported_together(site, server, capsys):
    server.faults["train2017.zip"] = [404]
    server.faults["ann.zip"] = ["html"]
    assert download(site) != 0
    message = capsys.readouterr().err
    assert "status 404" in message
    assert "web page" in message
    assert (site / "data/openimages/boxes.csv").read_bytes() == TABLE  # the others come all the same


@pytest.mark.parametrize("fault", ["cut", 503])
def test_images_are_tried_again_after_passing_faults(site, server, fault):
    write_recipe(site, server.url, retries=2)
    server.faults["00000000000000aa.jpg"] = [fault]
    (site / "ids.txt").write_text("00000000000000aa\n")
    options = ["--only", "openimages_images", "--image-list", str(site / "ids.txt"), "--manifest", str(site / "m.json")]
    assert download(site, *options) == 0
    assert json.loads((site / "m.json").read_text()) == {"images": 1, "bytes": len(JPEG), "failed": {}}
    assert contents(site / "data") == {"openimages/train/00000000000000aa.jpg": JPEG}


def test_image_that_never_comes_whole_is_listed(site, server):
    server.faults["00000000000000aa.jpg"] = ["cut-always"]
    (site / "ids.txt").write_text("00000000000000aa\n00000000000000ab\n")
    options = ["--only", "openimages_images", "--image-list", str(site / "ids.txt"), "--manifest", str(site / "m.json")]
    assert download(site, *options) == 0
    failed = json.loads((site / "m.json").read_text())["failed"]
    assert failed == {"00000000000000aa": "connection broke 1 times (ChunkedEncodingError)"}
    assert contents(site / "data") == {"openimages/train/00000000000000ab.jpg": JPEG}


def test_progress_of_a_file_tells_rate_and_time_left(site, server, capsys, monkeypatch):
    monkeypatch.setattr(bars, "SECONDS_BETWEEN_LINES", 0.0)
    (server.root / "big.zip").write_bytes(b"x" * 5_000_000)
    bar = bars.FileBar("big.zip", 5_000_000, 0)
    with bar:
        fetch(f"{server.url}/big.zip", site / "big.zip", report=bar.report)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"big.zip: 2.1 MB of 5.0 MB \(42%\), [\d.]+ [kMG]B/s, \d+s left", lines[2]), lines
    assert re.fullmatch(r"big.zip: 5.0 MB, [\d.]+ [kMG]B/s, done in \d+s", lines[-1])


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("version", ["v0.5", "v1"])
def test_lvis_v05_that_is_no_longer_published_names_the_recipe_of_v1(site, server, capsys, status, version):
    """As the public server answers: 403 for files that are not in its bucket."""
    with (site / "sources.csv").open("a") as file:
        for name in ("v0.5", "v1"):
            archive = f"lvis_{name}_train.json.zip"
            file.write(f"lvis,{name},archives/{archive},https://x.org/{archive},,,,lvis,{archive[:-4]},,CC,t\n")
    recipe = yaml.safe_load((site / "recipe.yaml").read_text())
    (site / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "lvis_version": version}))
    server.faults[f"lvis_{version}_train.json.zip"] = [status]
    assert download(site, "--only", "lvis") != 0
    error = capsys.readouterr().err
    assert f"lvis_{version}_train.json.zip answered with status {status}" in error
    assert ("config/challenge_v1.yaml is the same recipe" in error) == (version == "v0.5")
    assert len(server.requests) == 1
    assert (ROOT / "config/challenge_v1.yaml").is_file()


@pytest.mark.parametrize(
    ("data", "most"),
    [
        ({}, 220_000),
        ({"openimages_own": {"max_images": 5}}, 20_005),
        ({"openimages_own": {"max_images": None}}, 1_743_042),
    ],
)
def test_images_of_both_openimages_selections_are_planned(data, most):
    recipe = resolve_recipe({"extends": "challenge.yaml", "data": data})
    assert most_images(recipe) == most
    assert most_images(resolve_recipe({"extends": "ablations.yaml"})) == 0
