"""Writing a submission: ``json.dump`` of a list of results against the streaming writer, CPU time and peak memory.

Both read the same detections table in a process of their own. The baseline is what evaluators do: one dict per
detection with image_id, category_id, bbox, score and segmentation, all in one list, then ``json.dump``. Equal means
that every image id, category id, score and mask is the same (the writer leaves the box out, on purpose).

``--images 20000`` is the size of the LVIS test set, 6 M masks, where the baseline would need about 12 GB; it is
measured on --baseline-images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.detections.submission import write_submission
from pipeline_steps.detections.table import ImageDetections, TableWriter, read_table
from tests.benchmarks.measure import Cost, Row, in_process

HEIGHT, WIDTH, PER_IMAGE, CATEGORIES = 480, 640, 300, 1230
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def make_table(path: Path, images: int, seed: int = 0) -> float:
    """Write a table of ``images`` x 300 detections; returns the mean length of the encoded masks."""
    from pycocotools import mask as mask_utils  # not needed in the measured processes

    rng = np.random.default_rng(seed)
    centres = rng.uniform((0, 0), (WIDTH, HEIGHT), (4000, 1, 2))
    radii = np.exp(rng.normal(3.0, 0.9, (4000, 1, 2))).clip(3, 200) * rng.uniform(0.8, 1.2, (4000, 24, 1))
    points = centres + radii * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    outlines = points.clip(0, (WIDTH, HEIGHT)).reshape(4000, -1).tolist()
    pool = [rle["counts"] for rle in mask_utils.frPyObjects(outlines, HEIGHT, WIDTH)]
    with TableWriter(path, {"recipe": "benchmark"}) as writer:
        for image_id in range(images):
            corners = rng.uniform(0, 0.5, (PER_IMAGE, 2)) * (WIDTH, HEIGHT)
            boxes = np.concatenate([corners, corners * 1.8 + 5], axis=1).astype(np.float32)
            scores = rng.beta(0.5, 4, PER_IMAGE).astype(np.float32)
            categories = rng.integers(1, CATEGORIES + 1, PER_IMAGE)
            masks = [pool[k] for k in rng.integers(0, len(pool), PER_IMAGE)]
            writer.write_image(image_id, ImageDetections(image_id, categories, scores, scores, boxes, "m", masks))
    return float(np.mean([len(mask) for mask in pool]))


def usual(table: str, images: str) -> None:
    """List of dicts, then json.dump."""
    columns = ("image_id", "category_id", "rank_score", "x1", "y1", "x2", "y2", "rle")
    content = read_table(table, columns)
    results: list[dict[str, Any]] = [
        {
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle.decode()},
        }
        for image_id, category_id, score, x1, y1, x2, y2, rle in zip(*(content[name].to_pylist() for name in columns))
    ]
    with Path(table).with_name("usual.json").open("w") as file:
        json.dump(results, file)


def ours(table: str, images: str) -> None:
    """The streaming writer."""
    sizes = dict.fromkeys(range(int(images)), (HEIGHT, WIDTH))
    write_submission(table, Path(table).with_name("ours.json"), sizes, range(1, CATEGORIES + 1))


def _equal(folder: Path) -> bool:
    usual, ours = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("usual", "ours"))
    return ours == [{key: result[key] for key in result if key != "bbox"} for result in usual]


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Measure."""
    parser = argparse.ArgumentParser("submission", description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="images that ours writes to show its memory")
    parser.add_argument("--baseline-images", type=int, default=1000, help="images that both write")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    small, large = arguments.baseline_images, arguments.images
    runs: dict[str, list[Cost]] = {"usual": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_table(folder / "small.parquet", small)
        for _ in range(arguments.repeats):
            for contender, costs in runs.items():
                costs.append(in_process(f"{__name__}:{contender}", str(folder / "small.parquet"), str(small)))
        equal = _equal(folder)
        for leftover in folder.glob("*.json"):
            leftover.unlink()
        make_table(folder / "large.parquet", large)
        whole = in_process(f"{__name__}:ours", str(folder / "large.parquet"), str(large))
    before, after = ([cost.seconds for cost in costs] for costs in runs.values())
    usual_mib, ours_mib = (statistics.median(cost.peak_mib for cost in costs) for costs in runs.values())
    ratio = statistics.median(first / second for first, second in zip(before, after))
    what = f"submission of {small * PER_IMAGE:,} masks"
    medians = statistics.median(before), statistics.median(after)
    return [
        Row(what, "json.dump", *medians, "s", equal, arguments.repeats, ratio),
        Row(f"{what}, peak memory", "json.dump", usual_mib, ours_mib, "MiB", equal, arguments.repeats),
        Row(
            f"peak memory, ours with {large * PER_IMAGE:,} masks, baseline as above",
            "json.dump",
            usual_mib,
            whole.peak_mib,
            "MiB",
        ),
    ]


if __name__ == "__main__":
    from tests.benchmarks.__main__ import main as run

    raise SystemExit(run(["submission", *sys.argv[1:]]))
