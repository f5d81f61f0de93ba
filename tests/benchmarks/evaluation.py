"""LVIS evaluation of masks: the lvis package against ours, CPU time and peak memory of whole processes.

The ground truth has the shape of LVIS v0.5 val: 1,230 categories, about 10 annotations of 3 categories and 10 verified
negatives per image. 30 % of an image's detections are near an annotation, most with its category; the others are
anywhere, with categories drawn by frequency. The lvis package reads a results file (the only format it has) and
computes AP; ours reads a detections table or the same results file, and computes AP, or AP and AP_fixed; both also by
boundary IoU, the lvis package with the boundaries of the LVIS challenge 2021: of every mask, by eroding its image.
Results are equal if the precision arrays are equal in every bit.

``python -m tests.benchmarks evaluation --images 5000`` is the size of LVIS v0.5 val: 1.5 M masks. The official
boundaries are measured on ``--boundary-images`` images of the same kind, and compared by the time of a mask.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from lvis import LVIS, LVISEval, LVISResults
from pycocotools import mask as mask_utils

from pipeline_steps.detections.table import ImageDetections, TableWriter
from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.lvis_official import numpy_float_alias
from pipeline_steps.evaluation.results import read_results
from tests.benchmarks.measure import Cost, Row, in_process

CATEGORIES = 1230
PER_IMAGE = 300
HEIGHT, WIDTH = 480, 640
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def _outlines(centres: np.ndarray, radii: np.ndarray) -> list[list[float]]:
    """Closed outlines of 24 points around ``centres`` [k, 2] with ``radii`` [k, 2]."""
    points = centres[:, None] + radii[:, None] * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    return np.clip(points, 0, (WIDTH, HEIGHT)).round(2).reshape(len(centres), -1).tolist()


def _masks(outlines: list[list[float]]) -> list[bytes]:
    return [rle["counts"] for rle in mask_utils.frPyObjects(outlines, HEIGHT, WIDTH)]


class _Maker:
    """Draws ground truth and detections image by image."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        weights = 1 / np.arange(1, CATEGORIES + 1)
        self.weights = weights / weights.sum()
        self.pool = _masks(_outlines(*self._places(5000)))
        self.annotations: list[dict[str, Any]] = []

    def _places(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        centres = self.rng.uniform((0, 0), (WIDTH, HEIGHT), (count, 2))
        return centres, np.exp(self.rng.normal(2.8, 0.9, (count, 2))).clip(2, 300)

    def image(self, image_id: int) -> dict[str, Any]:
        """Image record; its annotations are appended."""
        present = self.rng.choice(CATEGORIES, 3, replace=False, p=self.weights) + 1
        negative = set((self.rng.choice(CATEGORIES, 10, replace=False) + 1).tolist()) - set(present.tolist())
        self.centres, self.radii = self._places(10)
        self.categories = self.rng.choice(present, 10)
        for outline, radius, category in zip(_outlines(self.centres, self.radii), self.radii, self.categories.tolist()):
            x, y = np.array(outline).reshape(-1, 2).min(axis=0).tolist()
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "segmentation": [outline],
                    "bbox": [x, y, *(2 * radius).tolist()],
                    "area": float(np.pi * radius.prod()),
                }
            )
        return {
            "id": image_id,
            "height": HEIGHT,
            "width": WIDTH,
            "neg_category_ids": sorted(negative),
            "not_exhaustive_category_ids": present[: int(self.rng.random() < 0.16)].tolist(),
        }

    def detections(self, image_id: int) -> Any:
        """Detections of the image made last."""
        near = PER_IMAGE * 3 // 10
        source = self.rng.integers(0, 10, near)
        centres = self.centres[source] + self.rng.normal(0, 0.15, (near, 2)) * self.radii[source]
        radii = self.radii[source] * np.exp(self.rng.normal(0, 0.15, (near, 2)))
        far = self.rng.integers(0, len(self.pool), PER_IMAGE - near)
        categories = self.rng.choice(CATEGORIES, PER_IMAGE, p=self.weights) + 1
        categories[:near] = np.where(self.rng.random(near) < 0.8, self.categories[source], categories[:near])
        scores = self.rng.beta(0.5, 4, PER_IMAGE).astype(np.float32)
        boxes = np.zeros((PER_IMAGE, 4))
        boxes[:, 2:] = 1
        masks = _masks(_outlines(centres, radii)) + [self.pool[k] for k in far.tolist()]
        return ImageDetections(image_id, categories, scores, scores, boxes, "model", masks).sorted()


def make_files(folder: Path, images: int, seed: int = 0) -> None:
    """Write truth.json, results.json and detections.parquet."""
    maker = _Maker(seed)
    records = []
    with (folder / "results.json").open("w") as file, TableWriter(folder / "detections.parquet", {}) as writer:
        file.write("[")
        for image_id in range(1, images + 1):
            records.append(maker.image(image_id))
            found = maker.detections(image_id)
            writer.write_image(image_id, found)
            rows = zip(found.category_ids.tolist(), found.rank_scores.tolist(), found.rles)
            lines = (
                {
                    "image_id": image_id,
                    "category_id": category,
                    "score": score,
                    "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts.decode()},
                }
                for category, score, counts in rows
            )
            file.write(",\n" * (image_id > 1) + ",\n".join(map(json.dumps, lines)))
        file.write("]")
    letters = ["f"] * 315 + ["c"] * 461 + ["r"] * 454
    categories = [{"id": k + 1, "name": f"thing_{k}", "frequency": letter} for k, letter in enumerate(letters)]
    truth = {"images": records, "annotations": maker.annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(truth))


def _digest(precision: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(precision)).hexdigest()


def run_lvis(folder: str) -> str:
    """AP by the lvis package; a digest of its precision array."""
    truth = LVIS(str(Path(folder, "truth.json")))
    with numpy_float_alias():
        run = LVISEval(truth, LVISResults(truth, str(Path(folder, "results.json"))), "segm")
        run.run()
    return _digest(run.eval["precision"])


def _boundary(mask: np.ndarray) -> np.ndarray:
    """The official ``mask_to_boundary``, uint8[H, W], with its ratio of 0.02."""
    d = max(1, round(0.02 * float(np.hypot(*mask.shape))))
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask - cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1]


class BoundaryEval(LVISEval):
    """The official evaluation by boundary IoU: every mask gets its boundary first."""

    def _prepare(self) -> None:
        super()._prepare()
        for one in (*chain.from_iterable(self._gts.values()), *self.lvis_dt.anns.values()):
            rle = one["segmentation"] if "counts" in one["segmentation"] else self.lvis_gt.ann_to_rle(one)
            one["boundary"] = mask_utils.encode(np.asfortranarray(_boundary(mask_utils.decode(rle))))

    def compute_iou(self, img_id: int, cat_id: int) -> Any:
        """The smaller one of both overlaps, float64[d, g]."""
        objects, found = self._get_gt_dt(img_id, cat_id)
        if not objects and not found:
            return []
        found = [found[k] for k in np.argsort([-d["score"] for d in found], kind="mergesort")]
        ious = [
            mask_utils.iou([d[name] for d in found], [o[name] for o in objects], [0] * len(objects))
            for name in ("segmentation", "boundary")
        ]
        return np.minimum(*ious) if objects and found else ious[0]


def run_official_boundary(folder: str) -> str:
    """Boundary AP by the lvis package with the official boundaries; a digest of its precision array."""
    truth = LVIS(str(Path(folder, "truth.json")))
    with numpy_float_alias():
        run = BoundaryEval(truth, LVISResults(truth, str(Path(folder, "results.json"))), "segm")
        run.evaluate()
        run.accumulate()
    return _digest(run.eval["precision"])


def run_our_boundary(folder: str) -> str:
    """AP and boundary AP by ours; a digest of the latter's precision array."""
    truth = read_ground_truth(Path(folder, "truth.json"), "segm")
    results = read_results(Path(folder, "detections.parquet"), "segm")
    evaluation = evaluate_lvis(truth, results, "segm", 300, int(ALL), boundary_ratio=0.02)
    return _digest(evaluation.boundaries()[0].precision)


def run_ours(folder: str, name: str, fixed_per_category: str) -> str:
    """AP and AP_fixed by ours. Where the caps leave out nothing, both are one evaluation."""
    truth = read_ground_truth(Path(folder, "truth.json"), "segm")
    results = read_results(Path(folder, name), "segm")
    return _digest(evaluate_lvis(truth, results, "segm", 300, int(fixed_per_category)).capped.precision)


ALL = str(10**9)
"""Cap per category that leaves out nothing."""

CONTENDERS = {
    "lvis": ("run_lvis",),
    "table": ("run_ours", "detections.parquet", ALL),
    "file": ("run_ours", "results.json", ALL),
    "both": ("run_ours", "detections.parquet", "10000"),
    "boundary": ("run_our_boundary",),
}


def _rows(runs: list[dict[str, Cost]], masks: str) -> list[Row]:
    def row(hot_path: str, name: str, key: str, unit: str) -> Row:
        pairs = [(getattr(run["lvis"], key), getattr(run[name], key)) for run in runs]
        equal = all(run["lvis"].value == run[name].value for run in runs)
        ratio = statistics.median(before / after for before, after in pairs)
        before, after = (statistics.median(values) for values in zip(*pairs))
        return Row(hot_path, "lvis, AP", before, after, unit, equal, len(runs), ratio)

    return [
        row(f"LVIS val AP, {masks} masks, from a table", "table", "seconds", "s"),
        row("the same, peak memory", "table", "peak_mib", "MiB"),
        row("the same from a results file", "file", "seconds", "s"),
        row("the same, peak memory", "file", "peak_mib", "MiB"),
        row("AP and AP_fixed, from a table", "both", "seconds", "s"),
    ]


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Measure all contenders in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="images, with 300 detections each")
    parser.add_argument("--runs", type=int, default=3, help="measured rounds")
    parser.add_argument("--boundary-images", type=int, default=40, help="images for the official boundaries")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as small:
        make_files(Path(folder), arguments.images)
        make_files(Path(small), arguments.boundary_images)
        runs = []
        for turn in range(arguments.runs):
            order = list(CONTENDERS.items())[:: 1 if turn % 2 == 0 else -1]
            runs.append(
                {
                    name: in_process(f"tests.benchmarks.evaluation:{call}", folder, *rest)
                    for name, (call, *rest) in order
                }
            )
        official, ours = (
            in_process(f"tests.benchmarks.evaluation:{call}", small)
            for call in ("run_official_boundary", "run_our_boundary")
        )
    count, few = arguments.images * PER_IMAGE, arguments.boundary_images * PER_IMAGE
    return [
        *_rows(runs, f"{count / 1e6:g} M" if count >= 1e6 else f"{count:,}"),
        Row(
            f"boundary AP and AP from a table, a mask of {count:,}",
            f"official boundaries, a mask of {few:,}",
            official.seconds / few,
            statistics.median(run["boundary"].seconds for run in runs) / count,
            equal=official.value == ours.value,
            runs=len(runs),
        ),
        Row(
            "the same, peak memory",
            f"official boundaries, {few:,} masks",
            official.peak_mib,
            statistics.median(run["boundary"].peak_mib for run in runs),
            "MiB",
            runs=len(runs),
        ),
    ]
