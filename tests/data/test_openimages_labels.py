"""Verified labels, rotation and image sizes: what counts, and what damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.openimages_classes import Vocabulary
from pipeline_steps.openimages.labels import read_rotated, read_sizes, read_verified_labels
from tests.data.openimages_files import CLASSES, image_id, write_csv, write_image

VOCABULARY = Vocabulary(CLASSES, {})
HEADER = ["ImageID", "Source", "LabelName", "Confidence"]


def labels_file(tmp_path: Path, *rows: list[object]) -> Path:
    return write_csv(tmp_path / "labels.csv", [HEADER, *rows])


def test_confidence_says_present_or_absent(tmp_path: Path):
    path = labels_file(
        tmp_path,
        ["a", "verification", "/m/bear", 1],
        ["a", "crowdsource-verification", "/m/car", 0],
        ["b", "verification", "/m/car", "1.0"],
        ["c", "verification", "/m/car", 1],
    )
    labels = read_verified_labels(path, ["a", "b", "d"], VOCABULARY)
    assert (labels["a"].present, labels["a"].absent) == ({"/m/bear"}, {"/m/car"})
    assert labels["b"].present == {"/m/car"}
    assert not labels["d"].present | labels["d"].absent
    assert "c" not in labels


def test_contradicting_and_unknown_labels_are_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = labels_file(
        tmp_path, ["a", "v", "/m/bear", 1], ["a", "v", "/m/bear", 0], ["a", "v", "/m/what", 1], ["a", "v", "/m/car", 0]
    )
    labels = read_verified_labels(path, ["a"], VOCABULARY)
    assert (labels["a"].present, labels["a"].absent) == (set(), {"/m/car"})
    assert "1 labels of classes that are not in the class descriptions" in caplog.text
    assert "1 labels say both present and absent" in caplog.text


@pytest.mark.parametrize("confidence", ["0.5", "yes", "", "-1"])
def test_other_confidences_are_refused(tmp_path: Path, confidence: str):
    path = labels_file(tmp_path, ["a", "v", "/m/bear", confidence])
    with pytest.raises(UserError, match="Confidence of a verified label must be 0 or 1: a /m/bear"):
        read_verified_labels(path, ["a"], VOCABULARY)


def test_missing_columns_of_labels_are_named(tmp_path: Path):
    path = write_csv(tmp_path / "labels.csv", [["ImageID", "Source", "LabelName"], ["a", "v", "/m/bear"]])
    with pytest.raises(UserError, match="missing columns: Confidence"):
        read_verified_labels(path, ["a"], VOCABULARY)


def test_an_empty_label_file_is_refused(tmp_path: Path):
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(UserError, match="is not a valid CSV file"):
        read_verified_labels(tmp_path / "labels.csv", ["a"], VOCABULARY)


def test_only_a_known_rotation_other_than_zero_counts(tmp_path: Path):
    rows = [
        ["ImageID", "Title", "Rotation"],
        ["a", "x, y", "0.0"],
        ["b", "", "90.0"],
        ["c", '"q"', ""],
        ["d", "", "180"],
    ]
    assert read_rotated(write_csv(tmp_path / "images.csv", rows)) == {"b", "d"}


def test_a_rotation_that_is_no_number_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="Rotation is not a number: left"):
        read_rotated(write_csv(tmp_path / "images.csv", [["ImageID", "Rotation"], ["a", "left"]]))


def test_sizes_come_from_the_headers_and_problems_are_sorted(tmp_path: Path):
    write_image(tmp_path, image_id(1), 60, 40)
    write_image(tmp_path, image_id(2), 33, 77, orientation=1)
    write_image(tmp_path, image_id(3), 30, 20, orientation=6)
    (tmp_path / f"{image_id(4)}.jpg").write_bytes(b"<html>not found</html>")
    (tmp_path / f"{image_id(5)}.jpg").write_bytes(b"")
    whole = write_image(tmp_path, image_id(6), 50, 50).read_bytes()
    (tmp_path / f"{image_id(6)}.jpg").write_bytes(whole[:30])
    found = read_sizes(tmp_path, [image_id(k) for k in range(1, 8)])
    assert found.sizes == {image_id(1): (60, 40), image_id(2): (33, 77)}
    assert found.turned == [image_id(3)]
    assert found.unreadable == [image_id(4), image_id(5), image_id(6)]
    assert found.missing == [image_id(7)]


def test_a_truncated_picture_has_a_size_all_the_same(tmp_path: Path):
    """Pixels are not decoded: a picture cut short is found by training, which names and counts it."""
    whole = write_image(tmp_path, "x", 200, 100).read_bytes()
    (tmp_path / "x.jpg").write_bytes(whole[:-40])
    assert read_sizes(tmp_path, ["x"]).sizes == {"x": (200, 100)}


def test_repeated_columns_are_refused(tmp_path: Path):
    labels = write_csv(tmp_path / "labels.csv", [[*HEADER, "Confidence"], ["a", "v", "/m/bear", 1, 0]])
    with pytest.raises(UserError, match="duplicate columns: Confidence"):
        read_verified_labels(labels, ["a"], VOCABULARY)
    rotation = write_csv(tmp_path / "rotation.csv", [["ImageID", "Rotation", "Rotation"], ["a", 0, 90]])
    with pytest.raises(UserError, match="duplicate columns: Rotation"):
        read_rotated(rotation)
