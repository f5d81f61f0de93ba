"""Which images go through the network together, and which job does them.

Results must not depend on the number of jobs, to the last bit, but rounding in the network may depend on which images
share a batch. So images are put into batches first, from the whole list and without regard to shards; a shard is then a
set of whole batches. Images go in ascending id, and batches are formed within a window of consecutive images,
so that a job writes its images in ascending id while it holds the results of one window only.
"""

from __future__ import annotations

import argparse
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.records import ImageRecord

SHARD_KEY = "shard"
"""Key of a shard's table metadata: {"index": 0-based, "count": number of shards}. A gathered table has none."""

WINDOW_BATCHES = 32
"""Images of a window, in units of the batch size."""


@dataclass(frozen=True)
class Part:
    """What one job predicts: its shard of the images of a split, of ``shards``, into the table ``output``."""

    split: Literal["val", "test"]
    shard: int
    shards: int
    output: Path

    @classmethod
    def from_options(cls, arguments: argparse.Namespace) -> Part:
        """From the options of :func:`add_part_options`."""
        return cls(arguments.split, arguments.shard, arguments.shards, arguments.output)


def add_part_options(parser: argparse.ArgumentParser, split: str) -> None:
    """The options of a prediction step that say which images are its own; ``split`` explains ``--split``."""
    parser.add_argument("--split", required=True, choices=("val", "test"), help=split)
    parser.add_argument("--shard", type=int, default=0, help="which share of the images, counted from 0")
    parser.add_argument("--shards", type=int, default=1, help="number of shares")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.parquet", help="detections table to write")


@dataclass(frozen=True)
class ImageBatch:
    """Images of one size, ascending ids, that go through the network together."""

    images: tuple[ImageRecord, ...]
    window: int
    """Number of the window of consecutive images that they are from."""


def plan_batches(images: Iterable[ImageRecord], batch_images: int) -> list[ImageBatch]:
    """Batches of at most ``batch_images`` images of equal size; ordered by window, then by their first image."""
    ordered = sorted(images, key=lambda image: image.id)
    length = WINDOW_BATCHES * batch_images
    batches = []
    for window, start in enumerate(range(0, len(ordered), length)):
        groups: dict[tuple[int, int], list[ImageRecord]] = defaultdict(list)
        for image in ordered[start : start + length]:
            groups[image.height, image.width].append(image)
        batches += sorted(
            (
                ImageBatch(tuple(group[first : first + batch_images]), window)
                for group in groups.values()
                for first in range(0, len(group), batch_images)
            ),
            key=lambda batch: batch.images[0].id,
        )
    return batches


def batches_of_shard(
    batches: Sequence[ImageBatch], cost: Callable[[ImageRecord], float], shard: int, shards: int
) -> list[ImageBatch]:
    """The batches of one of ``shards`` jobs, in the order of ``batches``; all jobs have about the same cost.

    Batches are dealt from the costliest down to the job with the least so far.

    Args:
        cost: of an image, such as the pixels of its views.
        shard: 0 .. shards - 1.

    Raises:
        UserError: no such shard.
    """
    if shards < 1 or not 0 <= shard < shards:
        raise UserError(f"--shard {shard} of --shards {shards}: shards are numbered from 0 to {max(shards, 1) - 1}")
    costs = [sum(map(cost, batch.images)) for batch in batches]
    load = [(0.0, index) for index in range(shards)]
    mine = set()
    for index in sorted(range(len(batches)), key=lambda index: (-costs[index], index)):
        total, owner = heapq.heappop(load)
        heapq.heappush(load, (total + costs[index], owner))
        if owner == shard:
            mine.add(index)
    return [batch for index, batch in enumerate(batches) if index in mine]
