"""The detections table: round trips, order, damage, and tables of other data sets."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.common.errors import UserError
from pipeline_steps.detections import table_writer
from pipeline_steps.detections.record import METADATA_KEY
from pipeline_steps.detections.table import (
    SCHEMA,
    ImageDetections,
    TableReader,
    TableWriter,
    checked_images,
    iter_images,
    read_metadata,
    read_table,
    table_metadata,
)
from tests.detections.samples import HEIGHT, WIDTH, assert_same, random_image, write_table


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(table_writer, "ROWS_PER_GROUP", 16)


def raw_table(path: Path, rows_per_group: int = 1000, **columns) -> Path:
    """A table as a foreign program might write it: nothing is checked or sorted."""
    count = len(columns["image_id"])
    values = {
        "category_id": [1] * count,
        "score": [0.5] * count,
        "rank_score": [0.5] * count,
        "x1": [0.0] * count,
        "y1": [0.0] * count,
        "x2": [5.0] * count,
        "y2": [5.0] * count,
        "source": ["a"] * count,
        "rle": [None] * count,
        **columns,
    }
    arrays = [pa.array(values[field.name], field.type) for field in SCHEMA]
    schema = SCHEMA.with_metadata({METADATA_KEY: b'{"format_version": 1}'})
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, row_group_size=rows_per_group)
    return path


@given(counts=st.lists(st.integers(0, 40), max_size=12), masks=st.booleans(), seed=st.integers(0, 2**20))
def test_what_is_written_is_read_whatever_the_row_groups(counts, masks, seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng, 100 - i, count, masks=masks) for i, count in enumerate(counts)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_writer, "ROWS_PER_GROUP", 16)
        path = write_table(Path(folder, "t.parquet"), images)
        read = list(iter_images(path))
        filled = [image for image in images if len(image)]
        assert len(read) == len(filled)
        for image, back in zip(filled, read):
            assert_same(image.sorted(), back)
        assert read_table(path).num_rows == sum(counts)
        with TableReader(path) as reader:
            for position in rng.permutation(len(images)):
                assert_same(images[position].sorted(), reader.image(images[position].image_id))


def test_same_content_gives_same_bytes(tmp_path, small_groups):
    first, second = (
        write_table(tmp_path / name, [random_image(np.random.default_rng(i), i, 30, masks=True) for i in range(5)])
        for name in ("a.parquet", "b.parquet")
    )
    assert first.read_bytes() == second.read_bytes()


def test_column_types_are_those_of_the_contract(tmp_path):
    path = write_table(tmp_path / "t.parquet", [random_image(np.random.default_rng(0), 3, 4, masks=True)])
    types = {field.name: str(field.type) for field in pq.read_schema(path)}
    assert types == {
        "image_id": "int64",
        "category_id": "int32",
        **dict.fromkeys(("score", "rank_score", "x1", "y1", "x2", "y2"), "float"),
        "source": "dictionary<values=string, indices=int32, ordered=0>",
        "rle": "binary",
    }
    compressions = {
        pq.ParquetFile(path).metadata.row_group(0).column(column).compression for column in range(len(types))
    }
    assert compressions == {"ZSTD"}


def test_rows_are_sorted_by_rank_score_and_ties_keep_their_order(tmp_path):
    image = ImageDetections(1, [1, 2, 3, 4], [0.9] * 4, [0.1, 0.5, 0.5, 0.7], np.ones((4, 4)), list("abcd"))
    (read,) = iter_images(write_table(tmp_path / "t.parquet", [image]))
    assert read.sources.tolist() == ["d", "b", "c", "a"]


def test_many_ties_keep_their_order(tmp_path):
    ranks = np.tile([0.25, 0.5], 100)
    image = ImageDetections(1, np.arange(200), ranks, ranks, np.ones((200, 4)), "a")
    (read,) = iter_images(write_table(tmp_path / "t.parquet", [image]))
    assert read.category_ids.tolist() == [*range(1, 200, 2), *range(0, 200, 2)]


def test_images_without_detections_have_no_rows_and_read_as_empty(tmp_path):
    images = [ImageDetections.empty(1), random_image(np.random.default_rng(0), 2, 3), ImageDetections.empty(3)]
    path = write_table(tmp_path / "t.parquet", images)
    assert [image.image_id for image in iter_images(path)] == [2]
    with TableReader(path) as reader:
        assert [len(reader.image(image_id)) for image_id in (1, 2, 3)] == [0, 3, 0]
        assert reader.image(1).boxes.shape == (0, 4)


def test_a_table_without_any_detection_is_a_table(tmp_path):
    path = write_table(tmp_path / "t.parquet", [])
    assert list(iter_images(path)) == []
    assert read_table(path).schema.names == SCHEMA.names
    with TableReader(path) as reader:
        assert list(checked_images(reader, {1: (HEIGHT, WIDTH)}, [1])) == []


def test_reading_holds_one_row_group_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(table_writer, "ROWS_PER_GROUP", 300)
    image = random_image(np.random.default_rng(0), 0, 300, masks=True)
    for count in (4, 40):
        images = (
            ImageDetections(
                i, image.category_ids, image.scores, image.rank_scores, image.boxes, image.sources, image.rles
            )
            for i in range(count)
        )
        write_table(tmp_path / f"{count}.parquet", images)
    peaks = []
    for count in (4, 40):
        before, peak = pa.total_allocated_bytes(), 0
        for _ in iter_images(tmp_path / f"{count}.parquet"):
            peak = max(peak, pa.total_allocated_bytes() - before)
        peaks.append(peak)
    assert peaks[1] <= 1.5 * peaks[0]


def test_leaving_masks_unread_gives_the_same_without_them(tmp_path):
    image = random_image(np.random.default_rng(0), 7, 9, masks=True)
    path = write_table(tmp_path / "t.parquet", [image])
    (read,) = iter_images(path, masks=False)
    assert read.rles is None
    assert_same(image.sorted().take(slice(None)), next(iter_images(path)))
    np.testing.assert_array_equal(read.boxes, image.sorted().boxes)


def test_metadata_tells_version_recipe_step_and_input_digests(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"abc")
    metadata = table_metadata("mini", "predict_boxes", {"split": "val"}, {"weights": tmp_path / "model.pth"})
    with TableWriter(tmp_path / "t.parquet", metadata):
        pass
    assert read_metadata(tmp_path / "t.parquet") == {
        "format_version": 1,
        "recipe": "mini",
        "step": "predict_boxes",
        "arguments": {"split": "val"},
        "inputs": {"weights": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    }


def test_a_failed_writer_leaves_nothing_behind(tmp_path):
    def write_and_fail():
        with TableWriter(tmp_path / "t.parquet", {}) as writer:
            writer.write_image(1, random_image(np.random.default_rng(0), 1, 4))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_writer_refuses_an_image_twice_and_mixed_masks(tmp_path):
    rng = np.random.default_rng(0)
    with TableWriter(tmp_path / "t.parquet", {}) as writer:
        writer.write_image(1, random_image(rng, 1, 4, masks=True))
        with pytest.raises(ValueError, match="second time"):
            writer.write_image(1, random_image(rng, 1, 4, masks=True))
        with pytest.raises(ValueError, match="no masks"):
            writer.write_image(2, random_image(rng, 2, 4))
        with pytest.raises(ValueError, match="detections of image 4"):
            writer.write_image(3, random_image(rng, 4, 4, masks=True))


@pytest.mark.parametrize("field", ["scores", "rank_scores", "boxes"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_writer_refuses_values_that_are_not_finite(tmp_path, field, value):
    image = random_image(np.random.default_rng(0), 5, 4)
    getattr(image, field).flat[2] = value
    with pytest.raises(UserError, match=rf"image 5 has {field}"), TableWriter(tmp_path / "t.parquet", {}) as writer:
        writer.write_image(5, image)


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="3 scores but 2 category_ids"):
        ImageDetections(1, [1, 2], [0.1] * 3, [0.1] * 3, np.zeros((3, 4)), "a")


def test_an_image_in_two_row_groups_is_read_whole(tmp_path):
    ranks = np.linspace(1, 0.1, 10, dtype=np.float32)
    path = raw_table(tmp_path / "t.parquet", 3, image_id=[1] * 4 + [2] * 6, rank_score=np.r_[ranks[:4], ranks[4:]])
    assert [len(image) for image in iter_images(path)] == [4, 6]
    np.testing.assert_array_equal(list(iter_images(path))[1].rank_scores, ranks[4:])


@pytest.mark.parametrize("rows_per_group", [1000, 2])
def test_an_image_in_two_places_is_refused(tmp_path, rows_per_group):
    path = raw_table(tmp_path / "t.parquet", rows_per_group, image_id=[1, 1, 2, 2, 1])
    with pytest.raises(UserError, match="image 1 are not contiguous"):
        list(iter_images(path))


@pytest.mark.parametrize("ranks", [[0.5, 0.6], [np.nan, 0.5], [0.5, np.nan]])
def test_rows_out_of_order_are_refused(tmp_path, ranks):
    path = raw_table(tmp_path / "t.parquet", image_id=[8, 8], rank_score=ranks)
    with pytest.raises(UserError, match="image 8 are not sorted"):
        list(iter_images(path))


def test_masks_on_some_detections_only_are_refused(tmp_path):
    path = raw_table(tmp_path / "t.parquet", image_id=[8, 8], rle=[b"04", None])
    with pytest.raises(UserError, match="some detections have no mask"):
        list(iter_images(path))


@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_table_is_named(tmp_path, part):
    path = write_table(tmp_path / "t.parquet", [random_image(np.random.default_rng(0), 1, 200, masks=True)])
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    for read in (lambda: list(iter_images(path)), lambda: read_metadata(path), lambda: read_table(path)):
        with pytest.raises(UserError, match=r"t\.parquet is truncated, damaged or not a Parquet file"):
            read()


def test_damage_inside_the_table_is_an_error_and_never_other_detections(tmp_path):
    images = [random_image(np.random.default_rng(0), 1, 200, masks=True)]
    path = write_table(tmp_path / "t.parquet", images)
    content = path.read_bytes()
    pages = int(0.8 * len(content))
    for position in range(100, pages, pages // 50):
        flipped = bytes([content[position] ^ 1])
        path.write_bytes(content[:position] + flipped + content[position + 1 :])
        try:
            (read,) = iter_images(path)
        except UserError as error:
            assert "t.parquet" in str(error)  # noqa: PT017
        else:
            assert_same(read, images[0].sorted())


def test_other_versions_and_foreign_files_are_named(tmp_path):
    other = tmp_path / "v2.parquet"
    pq.write_table(SCHEMA.with_metadata({METADATA_KEY: b'{"format_version": 2}'}).empty_table(), other)
    with pytest.raises(UserError, match="format version 2, this program reads 1"):
        list(iter_images(other))
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(UserError, match="not a detections table of this pipeline"):
        read_table(foreign)
    columns = tmp_path / "columns.parquet"
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({METADATA_KEY: b'{"format_version": 1}'}), columns)
    with pytest.raises(UserError, match=r"has columns \[a int64\] instead of \[image_id int64"):
        read_metadata(columns)
    with pytest.raises(UserError, match="not found"):
        read_metadata(tmp_path / "missing.parquet")


def test_a_table_of_the_data_set_passes(tmp_path):
    path = write_table(tmp_path / "t.parquet", [random_image(np.random.default_rng(i), i, 20) for i in range(3)])
    with TableReader(path) as reader:
        assert len(list(checked_images(reader, dict.fromkeys(range(10), (HEIGHT, WIDTH)), range(1, 6)))) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_id": [1, 77]}, r"1 of 2 image ids are not in the data set \(77\)"),
        ({"image_id": [1], "category_id": [99]}, r"image 1 has category ids that the data set does not have \(99\)"),
        ({"image_id": [1], "score": [np.nan]}, "image 1 has scores that are NaN"),
        ({"image_id": [1], "rank_score": [np.inf]}, "image 1 has rank_scores that are NaN or infinite"),
        ({"image_id": [1], "x2": [np.nan]}, "image 1 has boxes that are NaN"),
        ({"image_id": [1], "x1": [6.0]}, "boxes with x2 < x1"),
        ({"image_id": [1], "y1": [6.0]}, "y2 < y1"),
        ({"image_id": [1], "x1": [-0.5]}, r"a box \[-0.5, 0.0, 5.0, 5.0\] outside the image of 60 x 40"),
        ({"image_id": [1], "x2": [60.5]}, "outside the image"),
        ({"image_id": [1], "y2": [40.5]}, "outside the image"),
    ],
)
def test_a_table_of_another_data_set_is_refused(tmp_path, columns, message):
    path = raw_table(tmp_path / "t.parquet", **columns)
    with TableReader(path) as reader, pytest.raises(UserError, match=message):
        list(checked_images(reader, {1: (HEIGHT, WIDTH), 2: (HEIGHT, WIDTH)}, [1, 2, 3]))
