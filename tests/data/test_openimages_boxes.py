"""The compiled scan of the boxes file against Python's csv module and float()."""

from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.openimages_classes import Vocabulary, read_vocabulary
from pipeline_steps.openimages import boxes as boxes_module
from pipeline_steps.openimages.box_kernels import DEPICTION_FLAG, GROUP_FLAG, INSIDE_FLAG, parse_number
from pipeline_steps.openimages.boxes import BoxTable, read_boxes
from tests.data.openimages_files import (
    BOX_HEADER,
    CLASSES,
    HIERARCHY,
    box_line,
    image_id,
    write_boxes,
    write_vocabulary,
)

MIDS = [f"/m/0{index:x}" for index in range(40)]
FLAGS = {GROUP_FLAG: "IsGroupOf", DEPICTION_FLAG: "IsDepiction", INSIDE_FLAG: "IsInside"}
VOCABULARY = Vocabulary({mid: mid for mid in MIDS}, {})


def slow_read(path: Path, targets: dict[str, int], wanted: set[str]) -> dict:
    """What must be kept, line by line."""
    rows, pairs, problems = [], set(), Counter()
    with path.open(newline="") as file:
        for cells in csv.DictReader(file):
            mid = cells["LabelName"]
            if mid not in VOCABULARY.names:
                problems["unknown class"] += 1
                continue
            if mid not in targets and mid not in wanted:
                continue
            if cells["IsInside"] is None:
                problems["too few cells"] += 1
                continue
            if len(cells["ImageID"]) != 16:
                problems["ImageID not of 16 characters"] += 1
                continue
            try:
                x1, x2, y1, y2 = (float(cells[key]) for key in ("XMin", "XMax", "YMin", "YMax"))
            except ValueError:
                problems["not a number"] += 1
                continue
            if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
                problems["empty or outside box"] += 1
                continue
            flags = sum(bit for bit, key in FLAGS.items() if cells[key] == "1")
            rows.append((cells["ImageID"], mid, tuple(np.float32([x1, y1, x2, y2]).tolist()), flags))
            if not flags and mid in targets:
                pairs.add((cells["ImageID"], targets[mid]))
    return {"rows": rows, "pairs": pairs, "problems": dict(problems)}


def as_rows(table: BoxTable) -> list[tuple]:
    return [
        (table.image_ids[image].decode(), table.mids[code], tuple(box), flags)
        for image, code, box, flags in zip(
            table.image.tolist(), table.code.tolist(), table.box.tolist(), table.flags.tolist(), strict=True
        )
    ]


def as_pairs(table: BoxTable) -> list[tuple[str, int]]:
    return [
        (table.image_ids[image].decode(), category)
        for image, category in zip(table.pair_image.tolist(), table.pair_category.tolist(), strict=True)
    ]


def random_lines(random: np.random.Generator, count: int, grouped: bool) -> list[str]:
    images = [image_id(int(number)) for number in random.integers(0, 1 << 60, max(count // 5, 1))]
    picked = [images[k] for k in random.integers(0, len(images), count)]
    lines = []
    for image in sorted(picked) if grouped else picked:
        xs, ys = np.sort(random.random((2, 2)), axis=1).round(int(random.integers(2, 8)))
        flags = [str(random.choice([0, 1, -1], p=[0.85, 0.1, 0.05])) for _ in range(3)]
        cells = [image, "xclick", str(random.choice(MIDS)), "1", *map(repr, map(float, (*xs, *ys))), "0", "-1", *flags]
        lines.append(",".join(cells))
    return lines


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_scan_keeps_what_the_csv_module_keeps(
    tmp_path: Path, seed: int, grouped: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(boxes_module, "BLOCK_BYTES", 700)  # lines are cut at many block borders
    random = np.random.default_rng(seed)
    path = write_boxes(tmp_path / "boxes.csv", random_lines(random, 400, grouped))
    targets = {mid: k % 7 for k, mid in enumerate(MIDS[:15])}
    wanted = set(MIDS[15:20])
    monkeypatch.setattr(boxes_module, "MAX_PROBLEM_SHARE", 1.0)
    table, expected = read_boxes(path, VOCABULARY, targets, wanted), slow_read(path, targets, wanted)
    by_image = sorted(expected["rows"], key=lambda row: row[0])  # stable: file order within an image
    assert as_rows(table) == by_image
    assert sorted(as_pairs(table)) == sorted(expected["pairs"])
    assert {kind: many for kind, (many, _) in table.problems.items()} == expected["problems"]
    assert table.lines == 400
    for image in range(len(table.image_ids)):
        rows = table.rows_of(image)
        assert as_rows(table)[rows] == [r for r in by_image if r[0] == table.image_ids[image].decode()]


def test_columns_may_stand_in_any_order_with_any_line_end(tmp_path: Path):
    lines = [
        box_line(image_id(k), MIDS[k % 3], (0.125, 0.5, 0.25, 0.75), "010"[k % 3 :] + "0" * (k % 3)) for k in range(30)
    ]
    plain = read_boxes(write_boxes(tmp_path / "a.csv", lines), VOCABULARY, {MIDS[0]: 0, MIDS[1]: 1})
    order = [12, 4, 0, 7, 5, 11, 2, 6, 10, 1, 3, 8, 9]
    shuffled = [",".join(np.array(line.split(","))[order]) for line in [BOX_HEADER, *lines]]
    (tmp_path / "b.csv").write_bytes("\r\n".join(shuffled).encode())  # the last line has no end
    other = read_boxes(tmp_path / "b.csv", VOCABULARY, {MIDS[0]: 0, MIDS[1]: 1})
    assert as_rows(plain) == as_rows(other)
    assert as_pairs(plain) == as_pairs(other)
    assert len(as_rows(plain)) == 20


def test_bad_lines_are_counted_by_kind_and_left_out(tmp_path: Path):
    good = [box_line(image_id(k), MIDS[0], (0.1, 0.2, 0.1, 0.2)) for k in range(2000)]
    bad = {
        "unknown class": box_line(image_id(1), "/m/nothing", (0.1, 0.2, 0.1, 0.2)),
        "not a number": box_line(image_id(1), MIDS[0], (0.1, "much", 0.1, 0.2)),
        "empty or outside box": box_line(image_id(1), MIDS[0], (0.3, 0.2, 0.1, 0.2)),
        "ImageID not of 16 characters": box_line("abc", MIDS[0], (0.1, 0.2, 0.1, 0.2)),
        "too few cells": f"{image_id(1)},xclick,{MIDS[0]},1,0.1,0.2",
    }
    table = read_boxes(write_boxes(tmp_path / "boxes.csv", [*good, *bad.values()]), VOCABULARY, {MIDS[0]: 0})
    assert table.problems == {kind: (1, 2002 + k) for k, kind in enumerate(bad)}
    assert len(table.image) == 2000
    assert "1 lines: not a number (first: line 2003)" in table.describe_problems()


@pytest.mark.parametrize(
    "corners", [("nan", 0.5, 0.1, 0.2), (-0.5, 0.5, 0.1, 0.2), (0.1, 1.5, 0.1, 0.2), (0.1, 0.1, 0.1, 0.2)]
)
def test_boxes_outside_or_without_extent_are_left_out(tmp_path: Path, corners: tuple):
    lines = [box_line(image_id(k), MIDS[0], (0.1, 0.2, 0.1, 0.2)) for k in range(200)]
    path = write_boxes(tmp_path / "boxes.csv", [*lines, box_line(image_id(9), MIDS[0], corners)])
    assert len(read_boxes(path, VOCABULARY, {MIDS[0]: 0}).image) == 200


def test_a_file_of_mostly_bad_lines_is_refused(tmp_path: Path):
    lines = [box_line(image_id(k), MIDS[0], (0.1, 0.2 if k % 10 else 0.0, 0.1, 0.2)) for k in range(100)]
    path = write_boxes(tmp_path / "boxes.csv", lines)
    with pytest.raises(UserError, match=r"more than 1% of 100 lines cannot be used: 10 lines: empty or outside box"):
        read_boxes(path, VOCABULARY, {MIDS[0]: 0})


def test_missing_columns_are_named(tmp_path: Path):
    path = write_boxes(tmp_path / "boxes.csv", [], header="ImageID,LabelName,XMin,XMax,YMin,IsDepiction,IsInside")
    with pytest.raises(UserError, match="missing columns: YMax, IsGroupOf"):
        read_boxes(path, VOCABULARY, {MIDS[0]: 0})


@pytest.mark.parametrize("content", [b"", (BOX_HEADER + "\n").encode()])
def test_files_without_boxes_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "boxes.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"missing columns|has no boxes"):
        read_boxes(tmp_path / "boxes.csv", VOCABULARY, {MIDS[0]: 0})


def test_binary_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(boxes_module, "BLOCK_BYTES", 5000)
    (tmp_path / "boxes.csv").write_bytes((BOX_HEADER + "\n").encode() + b"\x00" * 20000)
    with pytest.raises(UserError, match=r"boxes.csv: line 2 is longer than 5000 bytes: this is not a CSV file"):
        read_boxes(tmp_path / "boxes.csv", VOCABULARY, {MIDS[0]: 0})


@given(st.floats(-1e6, 1e6, allow_nan=False))
def test_numbers_are_read_as_float_reads_them(value: float):
    for text in (repr(value), f"{value:.6f}", f"{value:e}", f"+{abs(value)}"):
        buffer = np.frombuffer(text.encode(), np.uint8)
        found, correct = parse_number(buffer, 0, len(buffer))
        assert correct
        assert math.isclose(found, float(text), rel_tol=1e-14, abs_tol=1e-200)


@pytest.mark.parametrize("text", ["", "-", ".", "e5", "1e", "1.2.3", "0x1", "1 ", "nan", "inf", "--1", "1e+"])
def test_what_is_no_decimal_number_is_refused(text: str):
    buffer = np.frombuffer(text.encode() + b",", np.uint8)
    assert not parse_number(buffer, 0, len(buffer) - 1)[1]


@given(st.text("0123456789+-.eE", max_size=12))
def test_numbers_are_refused_where_float_refuses_them(text: str):
    buffer = np.frombuffer(text.encode() + b",", np.uint8)
    try:
        float(text)
        expected = True
    except ValueError:
        expected = False
    assert parse_number(buffer, 0, len(buffer) - 1)[1] == expected


def test_vocabulary_knows_kinds_and_not_parts(tmp_path: Path):
    write_vocabulary(tmp_path)
    vocabulary = read_vocabulary(
        tmp_path / "class-descriptions-boxable.csv", tmp_path / "bbox_labels_600_hierarchy.json"
    )
    assert vocabulary.names == CLASSES
    assert vocabulary.with_ancestors("/m/polar") == {"/m/polar", "/m/bear", "/m/animal"}  # the root is no class
    assert vocabulary.with_descendants("/m/bear") == {"/m/bear", "/m/polar", "/m/brown"}
    assert vocabulary.with_descendants("/m/car") == {"/m/car", "/m/van"}  # trees are parts of cars here, no kinds
    assert HIERARCHY["Subcategory"][1]["Part"] == [{"LabelName": "/m/tree"}]


@pytest.mark.parametrize(
    ("classes", "hierarchy", "message"),
    [
        ("/m/a,A\n/m/a,B\n", "{}", "duplicate MIDs: /m/a"),
        ("", "{}", "no classes"),
        ("/m/a,A,extra\n", "{}", "line 1 is not MID,name"),
        ("/m/a,A\n", "[]", "expected nested objects"),
        ("/m/a,A\n", '{"LabelName": "x"', "is not complete JSON"),
        (
            "/m/a,A\n/m/b,B\n",
            '{"LabelName":"x","Subcategory":[{"LabelName":"/m/a","Subcategory":[{"LabelName":"/m/b",'
            '"Subcategory":[{"LabelName":"/m/a"}]}]}]}',
            "circular hierarchy: /m/a, /m/b",
        ),
    ],
)
def test_damaged_vocabularies_are_refused(tmp_path: Path, classes: str, hierarchy: str, message: str):
    (tmp_path / "classes.csv").write_text(classes)
    (tmp_path / "hierarchy.json").write_text(hierarchy)
    with pytest.raises(UserError, match=message):
        read_vocabulary(tmp_path / "classes.csv", tmp_path / "hierarchy.json")


@pytest.mark.parametrize(("cell", "flag"), [("1", 1), ("1.0", 1), ("0", 0), ("0.0", 0), ("-1", 0), ("-1.0", 0)])
def test_flags_are_numbers_however_they_are_written(tmp_path: Path, cell: str, flag: int):
    line = box_line(image_id(1), MIDS[0], (0.1, 0.5, 0.1, 0.5))
    path = write_boxes(tmp_path / "boxes.csv", [line.removesuffix("0,0,0") + f"{cell},0,0"])
    table = read_boxes(path, VOCABULARY, {MIDS[0]: 0})
    assert table.flags.tolist() == [flag * GROUP_FLAG]
    assert not table.problems


@pytest.mark.parametrize("cell", ["True", "true", '"1"', "yes", "", "2", "0.5", "1.0.0", "nan"])
@pytest.mark.parametrize("place", range(3))
def test_flags_that_are_no_flags_are_refused_and_a_few_counted(tmp_path: Path, cell: str, place: int):
    flags = ["0", "0", "0"]
    flags[place] = cell
    good = [box_line(image_id(number), MIDS[0], (0.1, 0.5, 0.1, 0.5)) for number in range(200)]
    bad = box_line(image_id(900), MIDS[0], (0.1, 0.5, 0.1, 0.5)).removesuffix("0,0,0") + ",".join(flags)
    table = read_boxes(write_boxes(tmp_path / "boxes.csv", [*good, bad]), VOCABULARY, {MIDS[0]: 0})
    assert len(table.box) == 200
    assert table.describe_problems() == (
        "1 lines: IsGroupOf, IsDepiction or IsInside is not 1, 0 or -1 (first: line 202)"
    )
    with pytest.raises(UserError, match="IsGroupOf, IsDepiction or IsInside is not 1, 0 or -1"):
        read_boxes(write_boxes(tmp_path / "boxes.csv", [bad]), VOCABULARY, {MIDS[0]: 0})


def test_repeated_columns_are_refused(tmp_path: Path):
    line = box_line(image_id(1), MIDS[0], (0.1, 0.5, 0.1, 0.5))
    path = write_boxes(tmp_path / "boxes.csv", [f"{line},1"], header=f"{BOX_HEADER},IsGroupOf")
    with pytest.raises(UserError, match="duplicate columns: IsGroupOf"):
        read_boxes(path, VOCABULARY, {MIDS[0]: 0})
