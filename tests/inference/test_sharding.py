"""Batches and shards: every image once, balanced, and batches that do not depend on the number of shards."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.records import ImageRecord
from pipeline_steps.inference.sharding import WINDOW_BATCHES, batches_of_shard, plan_batches

SIZES = [(480, 640), (640, 480), (427, 640), (100, 100)]


def records(sizes: list[int]) -> list[ImageRecord]:
    return [
        ImageRecord(id=(7 * position) % 1009, height=SIZES[size][0], width=SIZES[size][1])
        for position, size in enumerate(sizes)
    ]


def pixels(image: ImageRecord) -> float:
    return float(image.height * image.width)


@given(sizes=st.lists(st.integers(0, 3), max_size=300), batch=st.integers(1, 8), shards=st.integers(1, 12))
def test_shards_share_all_batches_and_batches_do_not_depend_on_shards(sizes, batch, shards):
    batches = plan_batches(records(sizes), batch)
    parts = [batches_of_shard(batches, pixels, shard, shards) for shard in range(shards)]
    dealt = [(batch.window, batch.images[0].id) for part in parts for batch in part]
    assert sorted(dealt) == sorted((batch.window, batch.images[0].id) for batch in batches)
    images = [image for one in batches for image in one.images]
    assert sorted(image.id for image in images) == sorted(image.id for image in records(sizes))
    for one in batches:
        assert 1 <= len(one.images) <= batch
        assert len({(image.height, image.width) for image in one.images}) == 1
    for part in parts:
        assert [one.window for one in part] == sorted(one.window for one in part)
    for earlier, later in pairwise(batches):
        if earlier.window < later.window:  # windows are ranges of ids, so a window can be written when it is done
            assert max(i.id for i in earlier.images) < min(i.id for i in later.images)


def test_the_order_of_the_list_does_not_matter():
    images = records([0, 1, 2, 3] * 40)
    assert plan_batches(images, 4) == plan_batches(images[::-1], 4)


def test_shards_are_balanced_by_size_not_by_number():
    images = [ImageRecord(id=i, height=1000 if i < 10 else 100, width=1000) for i in range(100)]
    batches = plan_batches(images, 1)
    loads = [sum(pixels(b.images[0]) for b in batches_of_shard(batches, pixels, shard, 4)) for shard in range(4)]
    assert max(loads) <= 1.12 * min(loads)


def test_images_of_one_size_fill_whole_batches():
    batches = plan_batches(records([0] * (WINDOW_BATCHES * 8)), 8)
    assert [len(batch.images) for batch in batches] == [8] * WINDOW_BATCHES


@pytest.mark.parametrize(("shard", "shards"), [(3, 3), (-1, 3), (0, 0)])
def test_a_shard_that_does_not_exist_is_refused(shard, shards):
    with pytest.raises(UserError, match="numbered from 0"):
        batches_of_shard([], pixels, shard, shards)
