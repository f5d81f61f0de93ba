"""The submission: what is written, what is left out, and that it reads back as the same ranking."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lvis import LVIS, LVISResults
from pycocotools import mask as mask_utils

from pipeline_steps import write_submission as step
from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import UserError
from pipeline_steps.detections import table_writer
from pipeline_steps.detections.submission import write_submission
from pipeline_steps.detections.submission_check import check_results
from pipeline_steps.detections.table import ImageDetections
from tests.detections.samples import HEIGHT, WIDTH, random_image, random_masks, write_table

SIZES = dict.fromkeys(range(1, 9), (HEIGHT, WIDTH))
CATEGORIES = range(1, 6)
EMPTY = mask_utils.encode(np.zeros((HEIGHT, WIDTH), np.uint8, order="F"))["counts"]


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    images = [random_image(rng, image_id, count, masks=True) for image_id, count in ((4, 12), (2, 30), (7, 1), (8, 0))]
    return write_table(tmp_path / "detections.parquet", images), images


def written(path, output, **options):
    counts = write_submission(path, output, SIZES, CATEGORIES, **options)
    return json.loads(Path(output).read_text()), counts


def test_every_detection_is_written_with_its_rank_score_and_mask_and_no_box(table, tmp_path):
    path, images = table
    results, counts = written(path, tmp_path / "out.json")
    expected = [
        {
            "image_id": image.image_id,
            "category_id": int(category_id),
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle.decode()},
            "score": float(rank),
        }
        for image in (image.sorted() for image in images)
        for category_id, rank, rle in zip(image.category_ids, image.rank_scores, image.rles)
    ]
    assert results == expected
    assert (counts.images, counts.detections, counts.empty_masks, counts.over_cap) == (3, 43, 0, 0)
    assert check_results(tmp_path / "out.json", SIZES, CATEGORIES).valid


@given(scores=st.lists(st.floats(0, 2, width=32), min_size=1, max_size=30))
def test_written_scores_read_back_as_the_same_numbers(scores):
    count = len(scores)
    masks = random_masks(np.random.default_rng(0), 1) * count
    image = ImageDetections(1, [1] * count, [0.5] * count, scores, np.tile([0, 0, 5, 5], (count, 1)), "a", masks)
    with tempfile.TemporaryDirectory() as folder:
        path = write_table(Path(folder, "t.parquet"), [image])
        results, _ = written(path, Path(folder, "out.json"))
    np.testing.assert_array_equal(np.float32([r["score"] for r in results]), -np.sort(-np.float32(scores)))


def test_masks_with_backslashes_and_every_other_character_survive(tmp_path):
    # Checkerboards of all run lengths use the whole alphabet.
    masks = [
        mask_utils.frPyObjects(
            {"counts": [first, 1, last, HEIGHT * WIDTH - first - last - 1], "size": [HEIGHT, WIDTH]}, 1, 1
        )
        for first in range(0, 1200, 7)
        for last in (3, 700)
    ]
    rles = [mask["counts"] for mask in masks]
    assert b"\\" in b"".join(rles)
    count = len(rles)
    image = ImageDetections(1, [1] * count, [0.5] * count, [0.5] * count, np.tile([0, 0, 5, 5], (count, 1)), "a", rles)
    results, _ = written(write_table(tmp_path / "t.parquet", [image]), tmp_path / "out.json", max_detections=1000)
    assert [result["segmentation"]["counts"].encode() for result in results] == rles


def test_the_highest_written_scores_of_an_image_are_kept(table, tmp_path):
    path, images = table
    results, counts = written(path, tmp_path / "out.json", max_detections=10)
    for image in images:
        scores = [result["score"] for result in results if result["image_id"] == image.image_id]
        assert scores == sorted(map(float, image.rank_scores), reverse=True)[:10]
    assert counts.over_cap == 2 + 20


def test_empty_masks_take_no_place_under_the_cap(tmp_path):
    rles = [EMPTY, *random_masks(np.random.default_rng(0), 2)]
    image = ImageDetections(1, [1, 2, 3], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7], np.tile([0, 0, 5, 5], (3, 1)), "a", rles)
    results, counts = written(write_table(tmp_path / "t.parquet", [image]), tmp_path / "out.json", max_detections=2)
    assert [result["category_id"] for result in results] == [2, 3]
    assert counts.empty_masks == 1


def test_an_image_with_empty_masks_only_is_left_out(table, tmp_path):
    image = ImageDetections(1, [1], [0.9], [0.9], [[0, 0, 5, 5]], "a", [EMPTY])
    path = write_table(tmp_path / "t.parquet", [image, table[1][0]])
    results, counts = written(path, tmp_path / "out.json")
    assert {result["image_id"] for result in results} == {4}
    assert counts.images == 1


def test_the_zip_holds_the_same_json_and_the_same_results_give_the_same_archive(table, tmp_path):
    path, _ = table
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_submission(path, tmp_path / name / "out.json", SIZES, CATEGORIES, zip_output=tmp_path / name / "out.zip")
    with zipfile.ZipFile(tmp_path / "a" / "out.zip") as archive:
        assert [(entry.filename, entry.date_time) for entry in archive.infolist()] == [
            ("out.json", (1980, 1, 1, 0, 0, 0))
        ]
        assert archive.read("out.json") == (tmp_path / "a" / "out.json").read_bytes()
    assert (tmp_path / "a" / "out.zip").read_bytes() == (tmp_path / "b" / "out.zip").read_bytes()


def test_the_official_package_loads_the_file(table, tmp_path):
    path, images = table
    written(path, tmp_path / "out.json")
    truth = {
        "images": [{"id": image_id, "height": HEIGHT, "width": WIDTH} for image_id in SIZES],
        "categories": [{"id": category_id} for category_id in CATEGORIES],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    loaded = LVISResults(LVIS(str(tmp_path / "truth.json")), str(tmp_path / "out.json"))
    areas = [int(annotation["area"]) for annotation in loaded.dataset["annotations"]]
    expected = [
        int(mask_utils.area({"size": [HEIGHT, WIDTH], "counts": rle}))
        for image in images
        for rle in image.sorted().rles or []
    ]
    assert areas == expected


@pytest.mark.parametrize(
    ("images", "sizes", "categories", "message"),
    [
        (
            [random_image(np.random.default_rng(0), 4, 3)],
            SIZES,
            CATEGORIES,
            "no masks: give the table that predict_masks",
        ),
        ([], SIZES, CATEGORIES, "no detections to write"),
        ([random_image(np.random.default_rng(0), 99, 3, masks=True)], SIZES, CATEGORIES, r"not in the data set \(99\)"),
        (
            [random_image(np.random.default_rng(0), 4, 30, masks=True)],
            SIZES,
            [1],
            "category ids that the data set does",
        ),
        ([random_image(np.random.default_rng(0), 4, 30, masks=True)], {4: (9, 9)}, CATEGORIES, "outside the image"),
    ],
)
def test_what_cannot_be_submitted_is_refused_and_nothing_is_written(tmp_path, images, sizes, categories, message):
    path = write_table(tmp_path / "t.parquet", images)
    with pytest.raises(UserError, match=message):
        write_submission(path, tmp_path / "out.json", sizes, categories, zip_output=tmp_path / "out.zip")
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]


def test_damage_found_in_the_middle_leaves_nothing_half_written(tmp_path, monkeypatch):
    monkeypatch.setattr(table_writer, "ROWS_PER_GROUP", 10)
    rng = np.random.default_rng(0)
    path = write_table(tmp_path / "t.parquet", [random_image(rng, i, 20, masks=True) for i in SIZES])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"t\.parquet is truncated, damaged"):
        write_submission(path, tmp_path / "out.json", SIZES, CATEGORIES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]


@pytest.fixture
def info(tmp_path):
    truth = {
        "images": [{"id": image_id, "height": HEIGHT, "width": WIDTH} for image_id in SIZES],
        "categories": [{"id": category_id, "name": f"thing{category_id}"} for category_id in CATEGORIES],
    }
    path = tmp_path / "info.json"
    path.write_text(json.dumps(truth))
    return str(path)


def run(*argv):
    return call_step(step.parser, step.main, list(map(str, argv)))


def test_the_step_writes_a_file_that_its_own_check_accepts(table, info, tmp_path, capsys):
    path, _ = table
    files = ("--output", tmp_path / "out.json", "--zip", tmp_path / "out.zip")
    assert run("--annotations", info, "--detections", path, *files) == 0
    for name in ("out.json", "out.zip"):
        assert run("--check", tmp_path / name, "--annotations", info) == 0
        assert f"{name}: 43 results (segm) for 3 of 8 images: valid" in capsys.readouterr().out


def test_the_step_exits_non_zero_on_an_invalid_file(info, tmp_path, capsys):
    (tmp_path / "bad.json").write_text('[{"image_id": 77, "category_id": 1, "score": NaN}]')
    assert run("--check", tmp_path / "bad.json", "--annotations", info) == 2
    output = capsys.readouterr()
    assert "INVALID" in output.out
    assert "unknown image id: 1" in output.out
    assert "bad.json is not a valid results file" in output.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--output", "x.json"], "give --detections and --output to write a file, or --check to validate one"),
        (["--check", "x.json", "--zip", "x.zip"], "remove --zip"),
        (["--check", "missing.json"], "results file not found: missing.json"),
        (["--check", "x.json", "--max-detections", "0"], "must be at least 1"),
    ],
)
def test_command_lines_that_make_no_sense_are_explained(info, capsys, argv, message):
    assert run("--annotations", info, *argv) == 2
    assert message in capsys.readouterr().err


def test_writing_needs_neither_the_network_nor_the_compiler_in_memory():
    program = "import sys, pipeline_steps.write_submission, pipeline_steps.rescore_ensemble; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "detectron2", "pandas"} & set(loaded)
    program = "import sys, pipeline_steps.write_submission; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "numba" not in loaded
