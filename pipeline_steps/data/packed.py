"""Training images of one or several data sets as a few flat numpy arrays (made by ``packing.pack``).

As Python objects the LVIS train set takes gigabytes, and every loader process would copy them page by page, because
reading a Python object writes its reference count. Flat arrays are shared by all loader processes after a fork, and by
all training processes of a node through a memory-mapped folder (:meth:`PackedImages.save`, :meth:`PackedImages.load`).

Symbols: N images; A annotations (objects); P polygons; C categories; *ragged* values of all items one after the other,
with offsets [items + 1]. Categories are 0-based positions everywhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class PackedImages:
    """The arrays. Attributes ending in ``_offsets`` are int64 and delimit the ragged array of the same name."""

    image_ids: np.ndarray  # int64[N]
    sizes: np.ndarray  # int32[N, 2], height and width as annotated
    box_only: np.ndarray  # bool[N], no masks in this image
    exhaustive: np.ndarray  # bool[N], every category is judged (COCO)
    judged_only: np.ndarray  # bool[N], nothing is known of categories that are not judged
    known_set: np.ndarray  # int32[N], row of ``known_sets``; for other images
    known_sets: np.ndarray  # bool[K, C], categories of which an image says anything
    paths: np.ndarray  # uint8, UTF-8 file names; ragged over images
    paths_offsets: np.ndarray
    positives: np.ndarray  # int32, categories annotated in an image (S_P), each once; ragged over images
    positives_offsets: np.ndarray
    negatives: np.ndarray  # int32, verified absent categories (S_N); ragged over images
    negatives_offsets: np.ndarray
    regions: np.ndarray  # float32[n, 4], x1 y1 x2 y2 of down-weighted regions; ragged over images
    region_weights: np.ndarray  # float32[n]
    region_groups: np.ndarray  # bool[n], regions around many objects (group-of boxes, crowds)
    regions_offsets: np.ndarray
    objects_offsets: np.ndarray  # of the A indices of ``boxes`` and ``classes``; ragged over images
    boxes: np.ndarray  # float32[A, 4], x1 y1 x2 y2, clipped to the image
    classes: np.ndarray  # int32[A]
    polygons_offsets: np.ndarray  # int64[A + 1], polygons of an object
    points: np.ndarray  # float32, x y x y ... of a polygon
    points_offsets: np.ndarray  # int64[P + 1], delimits polygons
    rles: np.ndarray  # uint8, compressed run lengths; ragged over objects; empty where the mask is made of polygons
    rles_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def category_count(self) -> int:
        """C."""
        return self.known_sets.shape[1]

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def path(self, index: int) -> str:
        """File name of an image."""
        return bytes(self.paths[self.paths_offsets[index] : self.paths_offsets[index + 1]]).decode()

    def judged(self, index: int) -> np.ndarray:
        """bool[C]: S_P united with S_N of an image (paper, equation 4)."""
        if self.exhaustive[index]:
            return np.ones(self.category_count, dtype=bool)
        judged = np.zeros(self.category_count, dtype=bool)
        for name in ("positives", "negatives"):
            offsets = getattr(self, f"{name}_offsets")
            judged[getattr(self, name)[offsets[index] : offsets[index + 1]]] = True
        return judged

    def known(self, index: int) -> np.ndarray:
        """bool[C]: categories of which an image says anything; False means no loss at all."""
        return self.judged(index) if self.judged_only[index] else self.known_sets[self.known_set[index]].copy()

    def polygons(self, annotation: int) -> list[np.ndarray]:
        """Polygons of an object, views of float32 x y x y ...; empty for box-only and RLE objects."""
        start, end = self.polygons_offsets[annotation : annotation + 2]
        cuts = self.points_offsets[start : end + 1]
        return [self.points[a:b] for a, b in pairwise(cuts)]

    def rle(self, annotation: int) -> bytes:
        """Compressed run lengths of an object's mask; empty if it has polygons or no mask."""
        return bytes(self.rles[self.rles_offsets[annotation] : self.rles_offsets[annotation + 1]])

    def digest(self) -> str:
        """Digest of everything but masks and file names: tells whether two runs would see the same data."""
        value = hashlib.sha256()
        names = ("image_ids", "sizes", "objects_offsets", "boxes", "classes", "negatives", "regions", "region_groups")
        for name in (*names, "judged_only", "known_set"):
            value.update(np.ascontiguousarray(getattr(self, name)).view(np.uint8).data)
        return value.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write every array as ``folder/<name>.npy``."""
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> PackedImages:
        """Map the arrays of :meth:`save` into memory, read-only; the files may be removed afterwards."""
        return cls(**{field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in fields(cls)})
