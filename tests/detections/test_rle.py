"""Areas and pixel counts of encodings against pycocotools, and malformed encodings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from pipeline_steps.detections.number_code import encode_run
from pipeline_steps.detections.run_lengths import PackedMasks


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    density=st.sampled_from([0, 0.001, 0.1, 0.5, 0.95, 1]),
    seed=st.integers(0, 2**20),
)
def test_areas_and_pixel_counts_are_those_of_the_masks(height, width, density, seed):
    masks = np.random.default_rng(seed).random((height, width, 3)) < density
    rles = [rle["counts"] for rle in mask_utils.encode(np.asfortranarray(masks, np.uint8))]
    areas, totals = PackedMasks.of(rles).measure()
    np.testing.assert_array_equal(areas, masks.sum(axis=(0, 1)))
    np.testing.assert_array_equal(totals, height * width)


@pytest.mark.parametrize("runs", [[6], [0, 6], [1, 2, 3], [2, 0, 1, 3], [0, 0, 0, 6], [70000, 1, 65, 40000, 99999]])
def test_runs_of_any_length_and_of_length_zero_count(runs):
    rle = mask_utils.frPyObjects({"counts": runs, "size": [sum(runs), 1]}, sum(runs), 1)["counts"]
    areas, totals = PackedMasks.of([rle]).measure()
    assert areas.tolist() == [sum(runs[1::2])]
    assert totals.tolist() == [sum(runs)]


def test_nothing_gives_nothing_and_no_runs_give_no_pixels():
    assert [part.tolist() for part in PackedMasks.of([]).measure()] == [[], []]
    assert [part.tolist() for part in PackedMasks.of([b""]).measure()] == [[0], [0]]


@pytest.mark.parametrize(
    "rle",
    [b"4 ", b"\xff", b"12\x002", b"PP", b"4P", b"@", b"14@", b"PPPPPPPPPPPPPP1", "ü".encode()],
    ids=["space", "byte", "zero", "unfinished", "unfinished2", "negative", "negative2", "too long", "not ascii"],
)
def test_malformed_encodings_are_told_apart_from_masks(rle):
    good = mask_utils.encode(np.ones((3, 2), np.uint8, order="F"))["counts"]
    areas, totals = PackedMasks.of([good, rle, good]).measure()
    assert totals.tolist() == [6, -1, 6]
    assert areas[[0, 2]].tolist() == [6, 6]


@given(st.binary(max_size=40))
def test_any_bytes_are_measured_or_called_malformed(text):
    areas, totals = PackedMasks.of([text]).measure()
    assert totals[0] == -1 or 0 <= areas[0] <= totals[0]


@given(height=st.integers(1, 2000), width=st.integers(1, 2000))
def test_the_first_run_of_an_empty_mask_is_its_whole_encoding(height, width):
    empty = mask_utils.frPyObjects({"counts": [height * width], "size": [height, width]}, height, width)
    assert encode_run(height * width) == empty["counts"]
