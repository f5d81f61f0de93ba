"""Scores that rare objects get: whether a detection of their category matches them, and how sure it is.

Symbols: g objects of the group in the ground truth. AP_fixed compares scores within a category only; their height also
decides which categories get the places under the cap per image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.analysis.scenes import match_image, truth_masks
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.lvis import LvisDataset
from pipeline_steps.detections.table import iter_images


class GroupObjects:
    """The objects of one frequency group of a data set, as masks by image."""

    def __init__(self, dataset: LvisDataset, letter: str = "r") -> None:
        """
        Args:
            dataset: ground truth with masks.
            letter: frequency group.
        """
        of_group = set(dataset.categories.ids[dataset.categories.frequencies == letter].tolist())
        self.by_image: dict[int, tuple[np.ndarray, list[Any]]] = {}
        """Category ids and masks of an image's objects, by image id."""
        for image in dataset.images:
            chosen = [a for a in dataset.annotations[image.id] if a.category_id in of_group]
            masks = truth_masks(dataset, chosen, image)
            if any(mask is None for mask in masks):
                raise UserError(f"{dataset.path}: objects without masks in image {image.id}")
            if chosen:
                self.by_image[image.id] = np.array([a.category_id for a in chosen]), masks
        self.sizes = {image.id: [image.height, image.width] for image in dataset.images}

    def __len__(self) -> int:
        return sum(len(categories) for categories, _ in self.by_image.values())

    def matched_scores(self, table: str | Path) -> np.ndarray:
        """Score of the detection that each object is matched with (mask IoU of at least 0.5), float[g]; NaN if none.

        In the order of :attr:`by_image`.

        Args:
            table: detections table with masks; the model's own scores count.

        Raises:
            UserError: the table is damaged or has no masks.
        """
        scores = {image_id: np.full(len(categories), np.nan) for image_id, (categories, _) in self.by_image.items()}
        for image in iter_images(table):
            if image.image_id not in self.by_image:
                continue
            if image.rles is None:
                raise UserError(f"{table} has no masks")
            truth_categories, truth_masks = self.by_image[image.image_id]
            own = image.take(np.isin(image.category_ids, truth_categories))
            (matches,) = match_image(truth_categories, truth_masks, own, self.sizes[image.image_id])
            scores[image.image_id][matches[matches >= 0]] = own.scores[matches >= 0]
        return np.concatenate(list(scores.values())) if scores else np.zeros(0)
