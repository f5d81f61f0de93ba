"""Putting the tables of all shards of a prediction together into one."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.detections.table import TableReader, TableWriter
from pipeline_steps.inference.sharding import SHARD_KEY


def _common_metadata(readers: Sequence[TableReader]) -> dict[str, Any]:
    """Metadata of the whole table, if the tables are all the shards of one."""
    owner: dict[int, TableReader] = {}
    first = readers[0]
    rest = {key: value for key, value in first.metadata.items() if key not in (SHARD_KEY, "format_version")}
    for reader in readers:
        shard = reader.metadata.get(SHARD_KEY)
        if shard is None:
            raise UserError(f"{reader.path} is a complete table, not a shard: give the tables written with --shards")
        index, count = shard["index"], shard["count"]
        if count != first.metadata[SHARD_KEY]["count"]:
            raise UserError(
                f"{reader.path} is one of {count} shards, but {first.path} is one of "
                f"{first.metadata[SHARD_KEY]['count']}: predict the shards again with the same --shards"
            )
        if index in owner:
            raise UserError(f"shard {index} is given twice: {owner[index].path} and {reader.path}")
        owner[index] = reader
        for key in sorted({*rest, *reader.metadata} - {SHARD_KEY, "format_version"}):
            if reader.metadata.get(key) != rest.get(key):
                raise UserError(
                    f"{reader.path} and {first.path} are not of one prediction: {key} is {reader.metadata.get(key)} "
                    f"and {rest.get(key)}; predict the older shard again"
                )
    count = first.metadata[SHARD_KEY]["count"]
    if missing := sorted(set(range(count)) - set(owner)):
        raise UserError(f"{len(missing)} of {count} shards are missing: {listing(missing)}; predict them first")
    return rest


def gather_shards(inputs: Sequence[Path], output: Path) -> None:
    """Write the table ``output`` of all shards; streaming, images in ascending id.

    Raises:
        UserError: a table that is no shard; shards of different predictions; a shard missing or given twice.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(TableReader(path)) for path in inputs]
        metadata = _common_metadata(readers)
        for reader in readers:
            if reader.image_ids != sorted(reader.image_ids):
                raise UserError(f"{reader.path}: images are not ordered by id; predict this shard again")
        writer = stack.enter_context(TableWriter(output, metadata))
        last = None
        for detections in heapq.merge(*readers, key=lambda detections: detections.image_id):
            if detections.image_id == last:
                raise UserError(f"image {last} is in two shards; predict the shards again")
            last = detections.image_id
            writer.write_image(last, detections)
