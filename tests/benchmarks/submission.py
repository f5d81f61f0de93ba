"""Writing a submission: ``json.dump`` of a list of results against the streaming writer, CPU time and peak memory.

Both read the same detections table in a process of their own. The baseline is what evaluators do: one dict per
detection with image_id, category_id, bbox, score and segmentation, all in one list, then ``json.dump``. Equal means
that every image id, category id, score and mask is the same (the writer leaves the box out, on purpose).

``--images 20000`` is the size of the LVIS test set, 6 M masks; the baseline then needs about 20 GB and is measured on
--baseline-images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH, PER_IMAGE, CATEGORIES = 480, 640, 300, 1230
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def make_table(path: Path, images: int, seed: int = 0) -> float:
    """Write a table of ``images`` x 300 detections; returns the mean length of the encoded masks."""
    from pycocotools import mask as mask_utils

    from pipeline_steps.detections.table import ImageDetections, TableWriter

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


def _usual(table: Path, output: Path, images: int) -> None:
    from pipeline_steps.detections.table import read_table

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
    with output.open("w") as file:
        json.dump(results, file)


def _ours(table: Path, output: Path, images: int) -> None:
    from pipeline_steps.detections.submission import write_submission

    write_submission(table, output, dict.fromkeys(range(images), (HEIGHT, WIDTH)), range(1, CATEGORIES + 1))


CONTENDERS = {"usual": _usual, "ours": _ours}


def run_one(name: str, table: Path, images: int) -> None:
    """Body of the measured process: prints CPU seconds and peak memory."""
    import pipeline_steps.detections.submission  # noqa: F401 - imports are before the clock on both sides

    start = time.process_time()
    CONTENDERS[name](table, table.with_name(f"{name}.json"), images)
    seconds = time.process_time() - start
    # Not ru_maxrss: it starts from the peak of the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"cpu": seconds, "mib": int(status["VmHWM"].split()[0]) / 1024}))


def _measure(name: str, table: Path, images: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.submission", "--one", name, str(table), str(images)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _equal(folder: Path) -> bool:
    usual, ours = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("usual", "ours"))
    return ours == [{key: result[key] for key in result if key != "bbox"} for result in usual]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="images that ours writes")
    parser.add_argument("--baseline-images", type=int, default=1000, help="images that both write")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    small, large = arguments.baseline_images, max(arguments.images, arguments.baseline_images)
    runs: dict[str, list[dict[str, float]]] = {"usual": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        length = make_table(folder / "small.parquet", small)
        for _ in range(arguments.repeats):
            for contender, measured in runs.items():
                measured.append(_measure(contender, folder / "small.parquet", small))
        equal = _equal(folder)
        for leftover in folder.glob("*.json"):
            leftover.unlink()
        make_table(folder / "large.parquet", large)
        whole = _measure("ours", folder / "large.parquet", large)
    usual, ours = ({key: statistics.median(run[key] for run in own) for key in ("cpu", "mib")} for own in runs.values())
    print(
        f"submission of {small * PER_IMAGE:,} masks of {length:.0f} characters, median of {arguments.repeats}\n"
        f"json.dump  {usual['cpu']:8.2f} s CPU  {usual['mib']:6.0f} MiB\n"
        f"ours       {ours['cpu']:8.2f} s CPU  {ours['mib']:6.0f} MiB\n"
        f"ratio {usual['cpu'] / ours['cpu']:.1f}, {'equal' if equal else 'NOT equal'}\n"
        f"ours with {large * PER_IMAGE:,} masks: {whole['cpu']:.2f} s CPU, {whole['mib']:.0f} MiB"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run_one(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
