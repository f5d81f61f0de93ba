"""Running a detector over the images of a split: batches, shards, reading ahead, writing in order.

Memory holds the batch in work, the next one (read and resized by another thread meanwhile), and the results of one
window of images; see :mod:`pipeline_steps.inference.sharding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline_steps.common.progress import Progress
from pipeline_steps.data.records import ImageRecord
from pipeline_steps.detections.table import ImageDetections, TableWriter
from pipeline_steps.inference.sharding import SHARD_KEY, ImageBatch, Part, batches_of_shard, plan_batches
from pipeline_steps.inference.views import RenderedImages, load_image, plan_views, render_images
from pipeline_steps.recipe.testing import Testing
from pipeline_steps.run.data_files import DatasetPaths


class Work:
    """The share of a job of ``images``, which are those of the whole split."""

    def __init__(
        self, paths: DatasetPaths, images: Sequence[ImageRecord], scales: Sequence[int], testing: Testing, part: Part
    ) -> None:
        self.paths, self.scales, self.testing, self.part = paths, scales, testing, part

        def pixels(image: ImageRecord) -> float:
            views = plan_views(image.height, image.width, scales, testing.longer_edge, testing.horizontal_flip)
            return float(sum(view.height * view.width for view in views))

        self.batches = batches_of_shard(plan_batches(images, testing.batch_images), pixels, part.shard, part.shards)

    def _render(self, batch: ImageBatch) -> RenderedImages:
        pictures = [
            load_image(self.paths.image_path(image), image.height, image.width, image.id) for image in batch.images
        ]
        return render_images(pictures, self.scales, self.testing.longer_edge, self.testing.horizontal_flip)

    def rendered(self) -> Iterator[tuple[ImageBatch, RenderedImages]]:
        """Each batch with its pixels; the next batch is read while the caller works on this one."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reading") as pool:
            ahead = [pool.submit(self._render, batch) for batch in self.batches[:1]]
            for position, batch in enumerate(self.batches):
                pixels = ahead.pop().result()
                if position + 1 < len(self.batches):
                    ahead.append(pool.submit(self._render, self.batches[position + 1]))
                yield batch, pixels

    def run(
        self,
        metadata: dict[str, Any],
        what: str,
        predict: Callable[[ImageBatch, RenderedImages], list[ImageDetections]],
    ) -> int:
        """Predict all batches and write the table of this shard, images in ascending id.

        Args:
            metadata: of the table; the shard is added.
            predict: detections of each image of a batch.

        Returns:
            Number of detections.
        """
        progress = Progress(what, sum(len(batch.images) for batch in self.batches), "images")
        shard = {"index": self.part.shard, "count": self.part.shards}
        rows, window = 0, None
        pending: list[ImageDetections] = []
        with TableWriter(self.part.output, {**metadata, SHARD_KEY: shard}) as writer:

            def flush() -> None:
                for detections in sorted(pending, key=lambda detections: detections.image_id):
                    writer.write_image(detections.image_id, detections)
                pending.clear()

            for batch, pixels in self.rendered():
                if batch.window != window:
                    flush()
                    window = batch.window
                found = predict(batch, pixels)
                rows += sum(map(len, found))
                pending += found
                progress.advance(len(batch.images))
            flush()
        return rows
