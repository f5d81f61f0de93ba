"""One training sample: image, objects and the facts about what was judged, augmented together.

A sample is a dict with

=================  ==================================================================================================
image              uint8 Tensor[3, H, W], BGR, after resizing and flipping (its memory is laid out H, W, 3)
height, width      size of the image file
image_id           id in its annotation file
file_name          path, for messages
position           position in the data order
sampling_seed      seeds the draw of this image's anchors and proposals, so that the result is the same for every
                   number of GPUs and after a restart
has_masks          False on box-only images
instances          detectron2 Instances: gt_boxes, gt_classes (0-based positions), gt_masks (not on box-only images)
judged             bool Tensor[C]: S_P united with S_N (paper, equation 4)
known              bool Tensor[C]: False where the image says nothing about a category: no loss at all
region_boxes       float Tensor[n, 4], x1 y1 x2 y2 in the augmented image
region_weights     float Tensor[n], weight of background proposals that hit the region
region_groups      bool Tensor[n]: the region holds many objects (group-of box, crowd), not one
unreadable         [(file name, reason), ...]: images that this one stands in for
=================  ==================================================================================================
"""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from pycocotools import mask as mask_tools

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.images import UnreadableImageError, fit_size, read_image, resize_image
from pipeline_steps.data.packed import PackedImages
from pipeline_steps.data.sampling import DataOrder
from pipeline_steps.recipe.training import Augmentation

_AUGMENTATION_STREAM = 2
"""Separates the random numbers of the augmentation from those of the data order."""

CACHE_BYTES = 256 * 2**20
"""Decoded images are kept in memory if all of them together fit into this; then each file is read once."""


class TrainingMapper:
    """Makes samples. The augmentation depends on the seed and the position only, not on process or worker."""

    def __init__(self, images: PackedImages, augmentation: Augmentation, mask_format: str, seed: int) -> None:
        """``mask_format`` is ``polygon`` or ``bitmask``.

        Raises:
            UserError: RLE masks with the polygon format, or bounds that do not make a range.
        """
        if mask_format == "polygon" and len(images.rles):
            raise UserError("the annotations hold RLE masks: set training.mask_format to 'bitmask'")
        edges = augmentation.shorter_edge
        if augmentation.shorter_edge_sampling == "range" and (len(edges) != 2 or edges[0] > edges[1]):
            raise UserError(f"training.augmentation.shorter_edge: a range needs two ascending bounds, not {edges}")
        if not edges:
            raise UserError("training.augmentation.shorter_edge is empty")
        self.images, self.augmentation, self.mask_format, self.seed = images, augmentation, mask_format, seed
        fits = 3 * int(images.sizes.astype(np.int64).prod(axis=1).sum()) <= CACHE_BYTES
        self._cache: dict[int, np.ndarray] | None = {} if fits else None

    def _read(self, index: int) -> np.ndarray:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        image = read_image(self.images.path(index), *self.images.sizes[index].tolist())
        if self._cache is not None:
            self._cache[index] = image
        return image

    def draw(self, position: int, height: int, width: int) -> tuple[int, int, bool, int]:
        """What is random about the image at ``position`` of the order.

        Returns:
            augmented height and width, whether to flip, seed for drawing anchors and proposals (63 bits).
        """
        generator = np.random.default_rng([self.seed, _AUGMENTATION_STREAM, position])
        settings = self.augmentation
        if settings.shorter_edge_sampling == "range":
            edge = int(generator.integers(settings.shorter_edge[0], settings.shorter_edge[1], endpoint=True))
        else:
            edge = settings.shorter_edge[int(generator.integers(len(settings.shorter_edge)))]
        flip = settings.horizontal_flip and bool(generator.random() < 0.5)
        sampling_seed = int(generator.integers(2**63 - 1))
        return *fit_size(height, width, edge, settings.longer_edge), flip, sampling_seed

    def __call__(self, index: int, position: int) -> dict[str, Any]:
        """The sample of image ``index`` at ``position`` of the order.

        Raises:
            UnreadableImageError: the file cannot be used.
        """
        images = self.images
        pixels = self._read(index)
        original = pixels.shape[:2]
        height, width, flip, sampling_seed = self.draw(position, *original)
        pixels = resize_image(pixels, height, width)
        pixels = cv2.flip(pixels, 1) if flip else pixels
        geometry = _Geometry(height, width, height / original[0], width / original[1], flip)
        first, last = images.objects_offsets[index : index + 2].tolist()
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(geometry.boxes(images.boxes[first:last])))
        instances.gt_classes = torch.from_numpy(images.classes[first:last].astype(np.int64))
        box_only = bool(images.box_only[index])
        if not box_only:
            instances.gt_masks = self._masks(range(first, last), geometry)
        regions = slice(*images.regions_offsets[index : index + 2].tolist())
        return {
            # A view with the axes in the network's order; copying it costs as much as decoding a third of the file.
            "image": torch.from_numpy(pixels).permute(2, 0, 1),
            "height": original[0],
            "width": original[1],
            "image_id": int(images.image_ids[index]),
            "file_name": images.path(index),
            "position": position,
            "sampling_seed": sampling_seed,
            "has_masks": not box_only,
            "instances": instances,
            "judged": torch.from_numpy(images.judged(index)),
            "known": torch.from_numpy(images.known(index)),
            "region_boxes": torch.from_numpy(geometry.boxes(images.regions[regions])),
            "region_weights": torch.from_numpy(images.region_weights[regions].copy()),
            "region_groups": torch.from_numpy(images.region_groups[regions].copy()),
        }

    def _masks(self, objects: range, geometry: _Geometry) -> PolygonMasks | BitMasks:
        if self.mask_format == "polygon":
            return PolygonMasks([geometry.polygons(self.images.polygons(item)) for item in objects])
        masks = torch.zeros((len(objects), geometry.height, geometry.width), dtype=torch.bool)
        for row, item in zip(masks.numpy(), objects, strict=True):
            polygons = self.images.polygons(item)
            if polygons:
                row[:] = geometry.filled(polygons)
            else:
                size = self.images.sizes[np.searchsorted(self.images.objects_offsets, item, side="right") - 1]
                row[:] = geometry.mask(mask_tools.decode({"size": size.tolist(), "counts": self.images.rle(item)}))
        return BitMasks(masks)


class _Geometry:
    """Resize by (``scale_y``, ``scale_x``) to ``height`` x ``width``, then mirror if ``flip``."""

    def __init__(self, height: int, width: int, scale_y: float, scale_x: float, flip: bool) -> None:
        self.height, self.width, self.flip = height, width, flip
        self.scale = np.array([scale_x, scale_y])

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """float32[n, 4] x1 y1 x2 y2 of the original image -> the same in the augmented image, clipped to it."""
        result = (boxes.reshape(-1, 2, 2) * self.scale).reshape(-1, 4)
        if self.flip:
            result[:, [0, 2]] = self.width - result[:, [2, 0]]
        limits = [self.width, self.height, self.width, self.height]
        return np.clip(result, 0, limits).astype(np.float32)

    def polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Polygons x y x y ... as float64, transformed."""
        result = []
        for polygon in polygons:
            points = polygon.reshape(-1, 2) * self.scale
            if self.flip:
                points[:, 0] = self.width - points[:, 0]
            result.append(points.reshape(-1))
        return result

    def filled(self, polygons: list[np.ndarray]) -> np.ndarray:
        """uint8[H, W], 1 inside the union of the transformed polygons (COCO's rule for pixels on the border)."""
        runs = mask_tools.frPyObjects(self.polygons(polygons), self.height, self.width)
        return mask_tools.decode(mask_tools.merge(runs) if len(runs) > 1 else runs[0])

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """uint8[H, W] of a mask in the original image (nearest neighbour)."""
        if mask.shape != (self.height, self.width):
            mask = cv2.resize(mask, (self.width, self.height), interpolation=cv2.INTER_NEAREST_EXACT)
        return mask[:, ::-1] if self.flip else mask


class TrainingSamples(torch.utils.data.Dataset[dict[str, Any]]):
    """Samples by position in the data order, for a DataLoader.

    An unreadable image is replaced by the next readable one of the order (which comes again at its own position). The
    stand-in keeps the position's augmentation, so that the result does not depend on the number of workers.
    """

    def __init__(self, mapper: TrainingMapper, order: DataOrder, max_unreadable_images: int) -> None:
        self.mapper, self.order, self.max_unreadable_images = mapper, order, max_unreadable_images

    def __len__(self) -> int:
        return sys.maxsize  # the order has no end

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The sample at ``position``. If more images than allowed are unreadable in a row, a dict with nothing but
        ``unreadable``: an exception out of a worker process would lose its type and gain a traceback."""
        unreadable: dict[str, str] = {}
        place = position
        while len(unreadable) <= self.max_unreadable_images:
            try:
                sample = self.mapper(self.order[place], position)
            except UnreadableImageError as error:
                unreadable[error.path] = error.reason
                place += 1
                if place - position > 10 * (self.max_unreadable_images + 1):
                    break
                continue
            return sample | {"unreadable": list(unreadable.items())}
        return {"unreadable": list(unreadable.items())}
