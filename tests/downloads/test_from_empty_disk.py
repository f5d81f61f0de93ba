"""From an empty disk to the training sets, through the workflow, with a local server in place of the public ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from pipeline_steps.common.cli import call_step
from pipeline_steps.make_mini import main, parser
from tests.workflow.checkout import Checkout

pytestmark = pytest.mark.slow

HEADER = "group,lvis_version,file,url,bytes,md5,sha256_prefix,unpack_into,members,images,licence,purpose"
TABLES = (
    *("oidv6-train-annotations-bbox.csv", "train-annotations-human-imagelabels-boxable.csv"),
    *("class-descriptions-boxable.csv", "bbox_labels_600_hierarchy.json", "train-images-boxable-with-rotation.csv"),
)


def publish(world: Path, served: Path) -> str:
    """Put a mini world on the server in the archives of the public data sets; returns the table of sources."""
    rows = [HEADER]

    def archive(group: str, name: str, into: str, members: list[Path], listed: str, images: str = "") -> None:
        with zipfile.ZipFile(served / name, "w") as file:
            for member in members:
                file.write(member, member.relative_to(world / into))
        size = (served / name).stat().st_size
        rows.append(f"{group},,archives/{name},https://x.org/{name},{size},,,{into},{listed},{images},CC,test")

    for path in sorted((world / "lvis").glob("*.json")):
        archive("lvis", f"{path.name}.zip", "lvis", [path], path.name)
    annotations = sorted((world / "coco/annotations").glob("*.json"))
    listed = ";".join(f"annotations/{path.name}" for path in annotations)
    archive("coco_annotations", "annotations.zip", "coco", annotations, listed)
    for split in ("train2017", "val2017", "test2017"):
        images = sorted((world / "coco" / split).glob("*.jpg"))
        archive("coco_images", f"{split}.zip", "coco", images, f"{split}/", str(len(images)))
    for name in TABLES:
        (served / name).write_bytes((world / "openimages" / name).read_bytes())
        rows.append(f"openimages_tables,,openimages/{name},https://x.org/{name},,,,,,,CC,test")
    for path in (world / "openimages/train").glob("*.jpg"):
        (served / path.name).write_bytes(path.read_bytes())
    rows.append("openimages_images,,openimages/train/{id}.jpg,https://x.org/{id}.jpg,,,,,,,CC,test")
    return "\n".join(rows) + "\n"


@pytest.fixture
def site(server, tmp_path) -> Checkout:
    """A checkout whose recipe downloads from the local server."""
    checkout = Checkout(tmp_path / "checkout")
    world = tmp_path / "world"
    smoke = checkout.folder / "config/smoke.yaml"
    assert call_step(parser, main, ["--recipe", str(smoke), "--output", str(world)]) == 0
    (checkout.folder / "config/sources.csv").write_text(publish(world, server.root))
    overlay = {
        "name": "fetched",
        "datasets_root": "datasets/fetched",
        "data": {
            "source": "download",
            "coco_to_lvis": str(world / "categories/coco_to_lvis.csv"),
            "openimages_to_lvis": str(world / "categories/openimages_to_lvis.csv"),
            "parents": str(world / "categories/parents.csv"),
            "openimages_own": {"max_images": 100},  # there are fewer; all of OpenImages would need 540 GB
            "download": {"mirrors": {"https://x.org": server.url}, "retries": 2},
        },
    }
    (checkout.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return checkout


def run(site: Checkout, *arguments: str):
    options = arguments or ("--", "data")
    return site.run("--configfile", "config/smoke.yaml", "overlay.yaml", "--cores", "2", *options)


LVIS = [f"lvis_v0.5_{part}.json" for part in ("train", "val", "image_info_test")]
CHECKS_OF_LVIS = ["--", *(f"datasets/fetched/manifests/lvis/{name}.json" for name in LVIS)]


def put(world: Path, site: Checkout, *names: str) -> dict[str, bytes]:
    """Copy files of the world to where a user would have put them long ago; returns their contents."""
    for name in names:
        target = site.folder / "datasets/fetched" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(world / name, target)
        os.utime(target, (1_000_000_000, 1_000_000_000))
    return {name: (world / name).read_bytes() for name in names}


def assert_untouched(site: Checkout, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = site.folder / "datasets/fetched" / name
        assert path.read_bytes() == content
        assert path.stat().st_mtime == 1_000_000_000


def test_of_three_files_only_the_missing_one_is_fetched_and_the_others_are_untouched(site, server, tmp_path):
    mine = put(tmp_path / "world", site, f"lvis/{LVIS[0]}", f"lvis/{LVIS[2]}")
    result = run(site, *CHECKS_OF_LVIS)
    assert result.returncode == 0, result.stdout[-4000:]
    assert [path for path, _ in server.requests] == [f"{LVIS[1]}.zip"]
    assert_untouched(site, mine)
    assert not list((site.folder / "datasets/fetched/archives").iterdir())
    again = run(site, "--forceall", *CHECKS_OF_LVIS)
    assert again.returncode == 0, again.stdout[-4000:]
    assert len(server.requests) == 1
    assert_untouched(site, mine)


def test_archive_of_both_coco_files_is_fetched_once_and_openimages_tables_one_by_one(site, server, tmp_path):
    mine = put(tmp_path / "world", site, *(f"openimages/{name}" for name in TABLES[:3]))
    coco = [f"datasets/fetched/coco/annotations/instances_{split}2017.json" for split in ("train", "val")]
    tables = [f"datasets/fetched/manifests/openimages/{name}.json" for name in TABLES]
    result = run(site, "--", *coco, *tables)
    assert result.returncode == 0, result.stdout[-4000:]
    assert sorted(path for path, _ in server.requests) == sorted(["annotations.zip", *TABLES[3:]])
    assert_untouched(site, mine)
    for name in coco:
        world = tmp_path / "world" / Path(name).relative_to("datasets/fetched")
        assert (site.folder / name).read_bytes() == world.read_bytes()


def test_damaged_file_on_the_disk_is_told_with_the_remedy_and_left_alone(site, server, tmp_path):
    put(tmp_path / "world", site, *(f"lvis/{name}" for name in LVIS))
    path = site.folder / "datasets/fetched/lvis" / LVIS[0]
    with path.open("r+b") as file:
        file.truncate(1000)
    result = run(site, *CHECKS_OF_LVIS)
    assert result.returncode != 0
    (line,) = {line for line in result.stdout.splitlines() if line.startswith("error:")}
    assert f"lvis/{LVIS[0]} is not a complete JSON file: complete or replace it, or delete it and start again" in line
    assert path.stat().st_size == 1000
    path.unlink()
    result = run(site, *CHECKS_OF_LVIS)
    assert result.returncode == 0, result.stdout[-4000:]
    assert [name for name, _ in server.requests] == [f"{LVIS[0]}.zip"]


def test_nothing_is_fetched_where_links_lead_to_whole_read_only_data(site, server, tmp_path):
    world, data = tmp_path / "world", site.folder / "datasets/fetched"
    data.mkdir(parents=True)
    for name in ("lvis", "coco", "openimages"):
        (data / name).symlink_to(world / name)
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", world, world], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.decode().strip()}")
    try:
        result = run(site)
        other = run(site, "--config", "name=other", "--", "data")
    finally:
        subprocess.run(["umount", world], check=True)
    assert result.returncode == 0, result.stdout[-4000:]
    assert server.requests == []
    assert "Nothing to be done" in other.stdout, other.stdout[-4000:]  # recipes share their data


def test_data_stage_brings_every_training_set_from_servers_that_break_off(site, server, tmp_path):
    server.faults["train2017.zip"] = ["cut", 503]
    server.faults["oidv6-train-annotations-bbox.csv"] = ["cut"]
    result = run(site)
    assert result.returncode == 0, result.stdout[-4000:]
    data = site.folder / "datasets/fetched"
    chosen, own = (
        (data / f"derived/{name}.txt").read_text().split() for name in ("openimages_ids", "openimages_own_ids")
    )
    derived = json.loads((data / "derived/openimages_lvis.json").read_text())
    assert len(derived["images"]) == len(chosen) > 0
    images = {f"{Path(name).name}.jpg" for name in (*chosen, *own)}
    assert {path.name for path in (data / "openimages/train").iterdir()} == images
    noted = json.loads((data / "manifests/derived/openimages_ids.json").read_text())
    sizes = [(data / f"openimages/{name}.jpg").stat().st_size for name in chosen]
    assert noted == {"images": len(chosen), "bytes": sum(sizes), "failed": {}}
    for name in ("lvis/lvis_v0.5_train.json", "coco/annotations/instances_val2017.json"):
        assert (data / name).read_bytes() == (tmp_path / "world" / name).read_bytes()
    manifest = json.loads((data / "manifests/coco_images.json").read_text())
    assert manifest["folders"]["coco/val2017"]["files"] == 16
    requests = len(server.requests)
    assert "Nothing to be done" in run(site).stdout
    assert len(server.requests) == requests


def test_a_server_that_refuses_stops_with_its_address_and_the_next_run_completes(site, server):
    server.faults["train2017.zip"] = [403]
    result = run(site)
    assert result.returncode != 0
    assert "train2017.zip answered with status 403" in result.stdout
    assert not (site.folder / "datasets/fetched/coco/train2017").exists()
    result = run(site)
    assert result.returncode == 0, result.stdout[-4000:]


def test_read_only_data_are_used_and_what_is_made_of_them_is_put_below_results(site, server, tmp_path):
    data = site.folder / "datasets/fetched"
    data.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", data], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.decode().strip()}")
    try:
        mine = put(tmp_path / "world", site, f"lvis/{LVIS[0]}", "coco/annotations/instances_train2017.json")
        subprocess.run(["mount", "-o", "remount,ro", data], check=True)
        result = run(site, "--", "results/fetched/data/derived/coco_boxes_train.json")
        assert result.returncode == 0, result.stdout[-4000:]
        assert_untouched(site, mine)
    finally:
        subprocess.run(["umount", data], check=True)
    made = site.folder / "results/fetched/data"
    assert json.loads((made / "derived/coco_boxes_train.json").read_text())["boxes"]
    assert (made / f"manifests/lvis/{LVIS[0]}.json").is_file()
    assert server.requests == []
