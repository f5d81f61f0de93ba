"""From an empty disk to the training sets, through the workflow, with a local server in place of the public ones."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import yaml

from pipeline_steps.common.cli import call_step
from pipeline_steps.make_mini import build_parser, main
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
    assert call_step(build_parser(), main, ["--recipe", str(smoke), "--output", str(world)]) == 0
    (checkout.folder / "config/sources.csv").write_text(publish(world, server.root))
    overlay = {
        "name": "fetched",
        "datasets_root": "datasets/fetched",
        "data": {
            "source": "download",
            "coco_to_lvis": str(world / "categories/coco_to_lvis.csv"),
            "openimages_to_lvis": str(world / "categories/openimages_to_lvis.csv"),
            "download": {"mirrors": {"https://x.org": server.url}, "retries": 2},
        },
    }
    (checkout.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return checkout


def run(site: Checkout):
    return site.run("--configfile", "config/smoke.yaml", "overlay.yaml", "--cores", "2", "--", "data")


def test_data_stage_brings_every_training_set_from_servers_that_break_off(site, server, tmp_path):
    server.faults["train2017.zip"] = ["cut", 503]
    server.faults["oidv6-train-annotations-bbox.csv"] = ["cut"]
    result = run(site)
    assert result.returncode == 0, result.stdout[-4000:]
    data = site.folder / "datasets/fetched"
    chosen = (data / "derived/openimages_ids.txt").read_text().split()
    derived = json.loads((data / "derived/openimages_lvis.json").read_text())
    assert len(derived["images"]) == len(chosen) > 0
    assert sorted(path.name for path in (data / "openimages/train").iterdir()) == sorted(
        f"{Path(name).name}.jpg" for name in chosen
    )
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
