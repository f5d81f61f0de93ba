"""Groups of sources: archives unpacked and counted, data on disk kept, images one by one."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
import yaml

from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.download.archives import unpack
from pipeline_steps.data.download.openimages_images import read_image_list
from pipeline_steps.download import build_parser, main

JPEG = b"\xff\xd8 image \xff\xd9"
HEADER = "group,lvis_version,file,url,bytes,md5,sha256_prefix,unpack_into,members,images,licence,purpose"


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


@pytest.fixture
def site(server, tmp_path):
    """A small stand-in of all public servers, and a recipe that downloads from it."""
    served = server.root
    (served / "ann.zip").write_bytes(
        zipped(**{"annotations__instances_train2017.json": b"{}", "annotations__captions.json": b"{}"})
    )
    (served / "train2017.zip").write_bytes(zipped(**{f"train2017__{i:012d}.jpg": JPEG for i in range(5)}))
    for image_id in ("00000000000000aa", "00000000000000ab"):
        (served / f"{image_id}.jpg").write_bytes(JPEG)
    (served / "00000000000000ac.jpg").write_bytes(JPEG[:-2])
    rows = [
        "coco_annotations,,archives/ann.zip,https://x.org/ann.zip,,,,coco,annotations/instances_train2017.json,,CC,c",
        "coco_images,,archives/train2017.zip,https://x.org/train2017.zip,,,,coco,train2017/,5,F,i",
        "openimages_images,,openimages/train/{id}.jpg,https://x.org/{id}.jpg,,,,,,,CC,o",
    ]
    (tmp_path / "sources.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    recipe = {
        "name": "t",
        "datasets_root": str(tmp_path / "data"),
        "models": [{"name": "a", "detector": "d.yaml"}],
        "ensemble": {"members": [{"name": "a"}]},
        "data": {
            "download": {
                "sources": str(tmp_path / "sources.csv"),
                "mirrors": {"https://x.org": server.url},
                "retries": 0,
                "max_failed_images": 1,
            }
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def download(site, *options):
    return call_step(build_parser(), main, ["--recipe", str(site / "recipe.yaml"), *options])


def test_groups_are_fetched_unpacked_counted_and_archives_removed(site):
    assert download(site, "--only", "coco_images", "--manifest", str(site / "manifest.json")) == 0
    data = site / "data"
    assert len(list((data / "coco/train2017").iterdir())) == 5
    assert list((data / "archives").iterdir()) == []
    manifest = json.loads((site / "manifest.json").read_text())
    assert manifest["folders"]["coco/train2017"] == {"files": 5, "bytes": 5 * len(JPEG)}


def test_only_wanted_members_are_unpacked(site):
    assert download(site, "--only", "coco_annotations") == 0
    assert [p.name for p in (site / "data/coco/annotations").iterdir()] == ["instances_train2017.json"]


def test_whole_data_on_disk_are_used_in_place_and_incomplete_ones_fetched(site, server):
    download(site, "--only", "coco_images")
    before = len(server.requests)
    assert download(site, "--only", "coco_images") == 0
    assert len(server.requests) == before
    next((site / "data/coco/train2017").iterdir()).unlink()
    assert download(site, "--only", "coco_images") == 0
    assert len(list((site / "data/coco/train2017").iterdir())) == 5


def test_truncated_annotations_on_disk_are_not_taken_for_whole(site):
    path = site / "data/coco/annotations/instances_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"images": [')
    assert download(site, "--only", "coco_annotations") == 0
    assert path.read_text() == "{}"


def test_dry_run_fetches_nothing_and_prints_addresses(site, server, capsys):
    assert download(site, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert f"{server.url}/train2017.zip" in printed
    assert "2 of 2 to fetch" in printed
    assert server.requests == []
    assert not (site / "data").exists()


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
        with pytest.raises(UserError, match=f"{name} is no whole zip archive"):
            unpack(tmp_path / name, tmp_path, ("train2017/",))
        assert not (tmp_path / "train2017").exists()


def test_images_are_fetched_one_by_one_and_failures_are_listed(site, capsys):
    lines = ["00000000000000aa", "train/00000000000000ab", "", "00000000000000ff", "train/00000000000000aa", ""]
    (site / "ids.txt").write_text("\n".join(lines))
    options = ["--only", "openimages_images", "--image-list", str(site / "ids.txt"), "--manifest", str(site / "m.json")]
    assert download(site, *options) == 0
    assert json.loads((site / "m.json").read_text()) == {"images": 3, "failed": {"00000000000000ff": "status 404"}}
    assert download(site, *options) == 0
    assert "2 images were there, 0 fetched, 1 failed" in capsys.readouterr().out


def test_too_many_failed_images_stop_with_reasons_and_truncated_images_do_not_count_as_whole(site, capsys):
    (site / "ids.txt").write_text("00000000000000aa\n00000000000000ac\n00000000000000ff\n")
    options = ["--only", "openimages_images", "--image-list", str(site / "ids.txt")]
    assert download(site, *options) != 0
    message = capsys.readouterr().err
    assert "2 of 3 OpenImages images could not be had" in message
    assert "00000000000000ac: not a whole JPEG file" in message
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
