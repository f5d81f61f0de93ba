"""Validation of results files: every kind of violation, and what the official package really does with it."""

from __future__ import annotations

import io
import json
import math
import tracemalloc
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.detections import results_stream
from pipeline_steps.detections.results_report import CONSEQUENCES, NOTES
from pipeline_steps.detections.results_stream import DamagedResults, iter_items
from pipeline_steps.detections.submission_check import check_results
from tests.detections.results_samples import GOOD, HEIGHT, SIZES, VIOLATIONS, WIDTH, other, rectangle, result, without

STRUCTURAL = {"archive", "truncated", "syntax", "no_area"}
"""Kinds with tests of their own below."""


def check(tmp_path, content, iou_type="segm", cap=300):
    path = tmp_path / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return check_results(path, SIZES, [1, 2], iou_type, cap)


def test_a_good_file_is_valid_and_its_report_is_one_line(tmp_path):
    report = check(tmp_path, GOOD)
    assert report.valid
    assert report.text() == f"{tmp_path / 'results.json'}: 2 results (segm) for 2 of 2 images: valid"


@pytest.mark.parametrize("kind", VIOLATIONS)
def test_each_kind_of_violation_is_found_alone_counted_and_explained(tmp_path, kind):
    report = check(tmp_path, VIOLATIONS[kind])
    assert {found: count for found, count in report.counts.items() if found not in NOTES} == {kind: 1}
    assert not report.valid
    text = report.text()
    assert "INVALID" in text
    assert f"{CONSEQUENCES[kind][0]}: 1\n" in text
    assert report.examples[kind][0] in text
    assert f"evaluator: {CONSEQUENCES[kind][1]}" in text


def test_no_kind_is_without_a_test():
    assert set(VIOLATIONS) | STRUCTURAL == set(CONSEQUENCES)
    assert set(NOTES) == {"repeated", "bbox_beside_mask", "outside"}


@pytest.mark.parametrize(
    ("item", "kind", "example"),
    [
        (without(other(), "image_id"), "missing_key", "result 2: image_id"),
        (without(other(), "category_id"), "missing_key", "result 2: category_id"),
        (without(other(), "segmentation"), "missing_key", "result 2: segmentation"),
        (other(segmentation={"size": [HEIGHT, WIDTH]}), "missing_key", "result 2: segmentation.counts"),
        (other(segmentation={"counts": "04"}), "missing_key", "result 2: segmentation.size"),
        (other(image_id="1"), "wrong_type", "result 2: image_id is '1', not a whole number"),
        (other(image_id=1.5), "wrong_type", "result 2: image_id is 1.5, not a whole number"),
        (other(category_id=True), "wrong_type", "result 2: category_id is True, not a whole number"),
        (other(category_id=[1]), "wrong_type", "result 2: category_id is [1], not a whole number"),
        (other(score=None), "wrong_type", "result 2: score is None, not a number"),
        (other(score=True), "wrong_type", "result 2: score is True, not a number"),
        (other(segmentation="04"), "wrong_type", "result 2: segmentation is '04', not an object"),
        (other(segmentation={"size": [20], "counts": "04"}), "wrong_type", "size is [20], not [height, width]"),
        (other(segmentation={"size": [0, 30], "counts": "04"}), "wrong_type", "size is [0, 30]"),
        (other(segmentation={"size": [HEIGHT, WIDTH], "counts": None}), "wrong_type", "counts is None, not a string"),
        (other(segmentation={"size": [HEIGHT, WIDTH], "counts": "ü€"}), "broken_rle", "result 2: malformed"),
        (other(segmentation={"size": [HEIGHT, WIDTH], "counts": "\ud800"}), "broken_rle", "result 2: malformed"),
        (other(segmentation={"size": [HEIGHT, WIDTH], "counts": "04"}), "broken_rle", "4 pixels instead of 600"),
        (other(score=-math.inf), "infinite_score", "result 2: -inf"),
        (None, "not_object", "result 2 is None"),
    ],
)
def test_violations_name_the_result_and_the_place(tmp_path, item, kind, example):
    report = check(tmp_path, [*GOOD, item])
    assert dict(report.counts) == {kind: 1}
    assert example in report.examples[kind][0]


def test_all_kinds_at_once_are_all_listed_with_at_most_five_examples(tmp_path):
    kinds = [
        kind
        for kind, content in VIOLATIONS.items()
        if isinstance(content, list) and kind not in ("empty", "over_cap", "missing_bbox")
    ]
    report = check(tmp_path, GOOD + [VIOLATIONS[kind][-1] for kind in kinds for _ in range(7)])
    assert {kind: count for kind, count in report.counts.items() if kind != "repeated"} == dict.fromkeys(kinds, 7)
    assert all(len(examples) == 5 for examples in report.examples.values())


def test_repeated_results_and_boxes_beside_masks_are_noted_but_valid(tmp_path):
    report = check(tmp_path, [*GOOD, result(score=0.1, bbox=[2, 3, 10, 10]), result(2, 1)])
    assert dict(report.counts) == {"repeated": 1, "bbox_beside_mask": 1}
    assert report.examples["repeated"] == ["result 2 repeats 0"]
    assert report.valid
    assert "note: 1 results repeat another one" in report.text()


def test_results_beyond_the_cap_are_counted_per_image(tmp_path):
    report = check(tmp_path, [*VIOLATIONS["over_cap"], *GOOD], cap=297)
    assert report.counts["over_cap"] == 302 - 297
    assert report.examples["over_cap"] == ["image 1: 302"]


def test_repeats_are_found_across_batches(tmp_path):
    many = [result(2, 2, 0.5, rectangle(0, 0, 1 + i % 30, 1 + i // 30)) for i in range(600)]
    report = check(tmp_path, [result(), *(many * 8), result()], cap=10**6)
    assert report.counts["repeated"] == 7 * 600 + 1
    assert report.examples["repeated"][-1].startswith("result ")


def test_boxes_are_checked_as_boxes(tmp_path):
    def box(*bbox):
        return {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": list(bbox)}

    assert check(tmp_path, [box(1, 2, 5.5, 6)], "bbox").valid
    report = check(
        tmp_path,
        [box(1, 2, 0, 5), box(1, 2, 3), box(1, 2, 3, "4"), box(1, math.nan, 3, 4), box(1, 2, 50, 5), GOOD[0]],
        "bbox",
    )
    assert dict(report.counts) == {"no_area": 1, "wrong_type": 3, "outside": 1, "missing_key": 1}


def pack(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.json", content)
    return path


def test_a_zip_is_read_whatever_its_name(tmp_path):
    path = pack(tmp_path / "results.json", inner=json.dumps(GOOD))
    assert check_results(path, SIZES, [1, 2]).valid


def test_broken_archives_are_violations(tmp_path):
    two = pack(tmp_path / "two.zip", a="[]", b="[]")
    report = check_results(two, SIZES, [1, 2])
    assert report.examples["archive"] == ["the file holds 2 files, expected one: a.json, b.json"]
    whole = pack(tmp_path / "cut.zip", a=json.dumps(GOOD * 500)).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in check_results(tmp_path / "cut.zip", SIZES, [1, 2]).examples["archive"][0]
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    (tmp_path / "flipped.zip").write_bytes(flipped)
    assert not check_results(tmp_path / "flipped.zip", SIZES, [1, 2]).valid


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", "truncated", "is empty"),
        (b"  \n", "truncated", "is empty"),
        (b"[", "truncated", "ends after 0 results"),
        (b"[1,", "truncated", "ends after 1 results"),
        (b"[1, 2", "truncated", "after 2 results"),
        (b'[{"image_id": 1, "cat', "truncated", "ends inside result 0"),
        (b'[{"image_id": 1.', "truncated", "ends inside result 0"),
        (b'[{"image_id": tr', "truncated", "ends inside result 0"),
        (b"[1,]", "syntax", "result 1"),
        (b"[,1]", "syntax", "result 0"),
        (b"[1 2]", "syntax", "after 1 results"),
        (b"[1] 2", "syntax", "goes on after the end"),
        (b"[{'a': 1}]", "syntax", "result 0"),
        (b'[{"a": 1.x}]', "syntax", "result 0"),
        (b'["\\x"]', "syntax", "result 0"),
        (b"[\xff]", "syntax", "UTF-8"),
        (b"hello", "syntax", "starts with 'h'"),
        (b"\xef\xbb\xbf[1]", "syntax", "is not JSON"),
        (b"[" * 100000, "syntax", "nested too deeply"),
        (b'{"results": []}', "not_list", 'holds an object (with "results")'),
        (b"3", "not_list", "a single value"),
        (b"null", "not_list", "a single value"),
    ],
)
def test_files_that_are_no_complete_list_are_told_apart(tmp_path, content, kind, words):
    report = check(tmp_path, content)
    assert words in report.examples[kind][0]
    assert not report.valid


def test_results_before_the_damage_are_still_checked(tmp_path):
    text = json.dumps([result(image_id=99), *GOOD]).encode()
    report = check(tmp_path, text[:-3])
    assert dict(report.counts) == {"unknown_image": 1, "truncated": 1}
    assert report.results == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(items=st.lists(json_values, max_size=6), piece=st.integers(1, 40), ascii_=st.booleans(), indent=st.booleans())
def test_items_are_those_of_json_whatever_the_pieces(items, piece, ascii_, indent):
    text = json.dumps(items, ensure_ascii=ascii_, indent=1 if indent else None).encode("utf-8", "surrogatepass")
    try:
        expected = json.loads(text)
    except UnicodeDecodeError:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_stream, "PIECE_BYTES", piece)
        if expected is None:
            with pytest.raises(DamagedResults, match="UTF-8"):
                list(iter_items(io.BytesIO(text)))
        else:
            assert repr(list(iter_items(io.BytesIO(text)))) == repr(expected)


@given(cut=st.integers(0, 10**6), piece=st.integers(1, 60))
def test_a_file_cut_anywhere_is_truncated(cut, piece):
    text = json.dumps([result(score=math.nan), {"a": [True, None, -1.5e-7, "\\ü\n"]}, *GOOD]).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_stream, "PIECE_BYTES", piece)
        with pytest.raises(DamagedResults) as caught:
            list(iter_items(io.BytesIO(text[: cut % len(text)])))
    assert caught.value.kind == "truncated"


@given(content=st.binary(max_size=60))
def test_no_bytes_bring_the_validator_down(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "results.json"
    for text in (content, b"[" + content, b"PK\x03\x04" + content):
        path.write_bytes(text)
        report = check_results(path, SIZES, [1, 2])
        assert report.text()


HUGE = 10**400


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (other(score=HUGE), "infinite_score"),
        (other(image_id=HUGE), "unknown_image"),
        (other(category_id=-HUGE), "unknown_category"),
        (other(segmentation={"size": [HUGE, HUGE], "counts": "04"}), "wrong_type"),
        (other(segmentation={"size": [2**31, 2**31], "counts": "04"}), "wrong_type"),
    ],
)
def test_integers_that_no_number_holds_are_violations(tmp_path, item, kind):
    report = check(tmp_path, [*GOOD, item])
    assert report.counts[kind] == 1
    assert len(report.text()) < 2000


def test_boxes_of_integers_that_no_float_holds_are_violations(tmp_path):
    boxes = [{"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 2, HUGE, HUGE]}]
    assert dict(check(tmp_path, boxes, "bbox").counts) == {"wrong_type": 1}
    beside = check(tmp_path, [result(bbox=[1, 2, HUGE, HUGE])])
    assert beside.counts["no_area"] == 1


def test_integers_of_more_digits_than_python_reads_are_no_traceback(tmp_path):
    report = check(tmp_path, b'[{"image_id": ' + b"9" * 5000 + b"}]")
    assert "cannot be read in result 0" in report.examples["syntax"][0]


@pytest.mark.parametrize(("at", "value"), [("flags", 1), ("method", 99), ("method", 97)])
def test_encrypted_archives_and_unknown_methods_are_violations(tmp_path, at, value):
    """The bytes of both headers are set by hand: Python writes neither."""
    path = pack(tmp_path / "results.zip", a=json.dumps(GOOD))
    content = bytearray(path.read_bytes())
    offset = {"flags": (6, 8), "method": (8, 10)}[at]
    for signature, place in ((b"PK\x03\x04", offset[0]), (b"PK\x01\x02", offset[1])):
        start = content.index(signature) + place
        content[start : start + 2] = (int.from_bytes(content[start : start + 2], "little") | value if at == "flags"
                                      else value).to_bytes(2, "little")  # fmt: skip
    path.write_bytes(content)
    report = check_results(path, SIZES, [1, 2])
    assert "cannot be unpacked" in report.examples["archive"][0]


def test_memory_is_bounded_by_bytes_and_not_by_masks(tmp_path):
    """240 masks of 300 kB: as a batch of masks they would be 72 MB at once."""
    counts = "11" * 150_000
    path = tmp_path / "results.json"
    with path.open("w") as file:
        file.write("[")
        for number in range(240):
            item = {
                "image_id": 1,
                "category_id": 1,
                "score": 0.5,
                "segmentation": {"size": [1000, 1], "counts": counts},
            }
            file.write("," * (number > 0) + json.dumps(item))
        file.write("]")
    tracemalloc.start()
    try:
        report = check_results(path, {1: (1000, 1)}, [1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.counts["broken_rle"] == 240
    assert peak < 60e6
