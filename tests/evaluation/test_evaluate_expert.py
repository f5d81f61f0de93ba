"""Box AP of an expert of another data set, in the categories that it shares with LVIS."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_steps.common.cli import call_step
from pipeline_steps.evaluate import main, parser
from tests.evaluation.worlds import make_world, write_table

SHARED = 4


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Any]:
    """A world whose detections are of an expert with OpenImages' classes: own category k is class k of its file.

    Every second LVIS category is shared; the classes in between stand for nothing in LVIS.
    """
    truth, results = make_world(3, most=60)
    for category in truth["categories"]:
        category["synset"] = f"{category['name']}.n.01"
    ids = sorted(category["id"] for category in truth["categories"])
    shared = ids[: 2 * SHARED : 2]
    own = {lvis_id: 3 * place + 2 for place, lvis_id in enumerate(shared)}
    unshared = {lvis_id: 3 * place + 1 for place, lvis_id in enumerate(set(ids) - set(shared), start=50)}
    found = [
        {**result, "category_id": (own | unshared).get(result["category_id"], 1)}
        for result in results
        if result["category_id"] in own or result["score"] > 0.5
    ]
    root = tmp_path / "data"
    for folder in ("categories", "openimages"):
        (root / folder).mkdir(parents=True)
    classes = "".join(f"/m/{number},Class {number}\n" for number in range(1, 300))
    (root / "openimages/class-descriptions-boxable.csv").write_text(classes)
    names = {category["id"]: category["synset"] for category in truth["categories"]}
    rows = [f"/m/{number},x,{names[lvis_id]},equal,use,\n" for lvis_id, number in own.items()]
    header = "source_id,source_name,lvis_synset,relation,verdict,note\n"
    (root / "categories/openimages_to_lvis.csv").write_text(header + "".join(rows))
    (tmp_path / "recipe.yaml").write_text(f"extends: mini.yaml\nname: small\ndatasets_root: {root}\n")
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    write_table(tmp_path / "own.parquet", found)
    back = {number: lvis_id for lvis_id, number in own.items()}
    return {"folder": tmp_path, "truth": truth, "found": found, "back": back}


def run(folder: Path, *options: str) -> int:
    common = [
        "--iou-type",
        "bbox",
        "--output",
        str(folder / "metrics.json"),
        "--per-category",
        str(folder / "rows.csv"),
    ]
    return call_step(parser, main, [*common, *options, "--max-detections", "9", "--fixed-per-category", "40"])


def expert(folder: Path, name: str = "openimages_expert") -> list[str]:
    files = ["--annotations", str(folder / "truth.json"), "--detections", str(folder / "own.parquet")]
    return [*files, "--recipe", str(folder / "recipe.yaml"), "--expert", name]


def test_figures_are_the_official_ones_of_shared_categories_and_mapped_detections(world: dict[str, Any]) -> None:
    """By hand: ground truth of nothing but the shared categories, and detections that have LVIS ids already."""
    folder, truth, back = world["folder"], world["truth"], world["back"]
    assert run(folder, *expert(folder)) == 0
    ours = json.loads((folder / "metrics.json").read_text())
    rows = list(csv.DictReader((folder / "rows.csv").open()))
    shared = set(back.values())
    small = {
        "images": [
            image | {key: [c for c in image[key] if c in shared] for key in image if key.endswith("category_ids")}
            for image in truth["images"]
        ],
        "annotations": [a for a in truth["annotations"] if a["category_id"] in shared],
        "categories": [category for category in truth["categories"] if category["id"] in shared],
    }
    (folder / "small.json").write_text(json.dumps(small))
    mapped = [{**r, "category_id": back[r["category_id"]]} for r in world["found"] if r["category_id"] in back]
    assert 0 < len(mapped) < len(world["found"])
    table = write_table(folder / "mapped.parquet", mapped)
    assert (
        run(folder, "--annotations", str(folder / "small.json"), "--detections", str(table), "--evaluator", "official")
        == 0
    )
    theirs = json.loads((folder / "metrics.json").read_text())
    same = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AP_fixed", "APr_fixed", "APf_fixed", "AR")
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    assert ours["AP"] > 1
    assert ours["shared_categories"] == SHARED
    assert rows == list(csv.DictReader((folder / "rows.csv").open()))
    assert {int(row["category_id"]) for row in rows} == shared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda folder: expert(folder, "basic"), "has no expert 'basic'; it has coco_expert, openimages_expert"),
        (lambda folder: [*expert(folder)[:4], "--expert", "openimages_expert"], "--expert needs --recipe"),
        (lambda folder: [*expert(folder), "--format", "coco"], "--expert needs --recipe"),
    ],
)
def test_what_cannot_be_mapped_is_refused(
    world: dict[str, Any], capsys: pytest.CaptureFixture[str], options: Any, message: str
) -> None:
    folder = world["folder"]
    assert run(folder, *options(folder)) == 2
    assert message in capsys.readouterr().err


def test_an_expert_without_shared_detections_is_refused(
    world: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world["folder"]
    write_table(folder / "own.parquet", [r for r in world["found"] if r["category_id"] not in world["back"]])
    assert run(folder, *expert(folder)) == 2
    assert "no detection of a category that is shared" in capsys.readouterr().err
