"""From the OpenImages boxes file to a choice of images: pandas.read_csv against ours, CPU time and peak memory.

The synthetic file has the columns of ``oidv6-train-annotations-bbox.csv``, its sorted 16-digit image ids, 8.4 boxes in
an image, 601 classes of Zipf frequencies, 90 % of the boxes with four clicks. 326 classes stand for an LVIS category,
as in the reviewed table; ours also keeps the boxes of four frequent classes, as it must for ignore regions. Both sides
run in processes of their own, end with the same choice function, and must choose the same images. CPU time is counted
after the imports; peak memory is that of the whole process, about 100 MiB of which are there after the imports.

``python -m tests.benchmarks openimages_boxes --rows 14600000`` is the size of the real file (2.3 GB).
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

import numpy as np

from tests.benchmarks.measure import Row

CLASSES = [f"/m/0{index:04x}" for index in range(601)]
FIRST_SHARED, SHARED = 20, 326
MAX_IMAGES, MAX_PER_CATEGORY = 20_000, 1_000
FLAGS = {"IsOccluded": 0.6, "IsTruncated": 0.3, "IsGroupOf": 0.06, "IsDepiction": 0.05, "IsInside": 0.002}
_CHUNK = 1_000_000


def targets() -> dict[str, int]:
    """Position of the LVIS category of each shared class."""
    return {mid: position for position, mid in enumerate(CLASSES[FIRST_SHARED : FIRST_SHARED + SHARED])}


def lvis_images() -> np.ndarray:
    """LVIS train images of the shared categories: a long tail from 1,100 down to 1."""
    return np.geomspace(1100, 1, SHARED).astype(np.int64)


def make_file(path: Path, rows: int, seed: int = 0) -> None:
    """Write a boxes file of ``rows`` lines."""
    import polars

    random = np.random.default_rng(seed)
    share = 1 / np.arange(1, len(CLASSES) + 1) ** 1.1
    with path.open("wb") as file:
        for done in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - done)
            boxes = random.geometric(1 / 8.4, count)
            images = np.repeat(np.arange(count), boxes)[:count] + done  # ids ascend from chunk to chunk
            corners = [np.sort(random.random((count, 2)), axis=1).T for _ in "xy"]
            clicked = random.random(count) < 0.9
            columns = {
                "ImageID": np.char.mod("%016x", images.astype(np.uint64) * np.uint64(0xFFFFFFFF)),
                "Source": np.where(clicked, "xclick", "activemil"),
                "LabelName": np.array(CLASSES)[random.choice(len(CLASSES), count, p=share / share.sum())],
                "Confidence": np.ones(count, np.int8),
                **dict(zip(("XMin", "XMax", "YMin", "YMax"), (*corners[0], *corners[1]))),
                **{name: np.where(clicked, random.random(count) < p, -1) for name, p in FLAGS.items()},
                **{
                    f"XClick{k}{axis}": np.where(clicked, random.random(count), -1.0)
                    for axis in "XY"
                    for k in range(1, 5)
                },
            }
            polars.DataFrame(columns).write_csv(file, include_header=not done, float_precision=6)


def _choose(images: np.ndarray, categories: np.ndarray) -> np.ndarray:
    from pipeline_steps.openimages.choice import choose_images

    return choose_images(images, categories, lvis_images(), MAX_IMAGES, MAX_PER_CATEGORY).images


def _usual(path: Path) -> list[str]:
    import pandas

    boxes = pandas.read_csv(path)
    extent = (boxes.XMax > boxes.XMin) & (boxes.YMax > boxes.YMin)
    plain = (boxes.IsGroupOf != 1) & (boxes.IsDepiction != 1) & (boxes.IsInside != 1)
    boxes = boxes[boxes.LabelName.isin(targets()) & plain & extent]
    pairs = boxes[["ImageID", "LabelName"]].drop_duplicates()
    images, names = pandas.factorize(pairs.ImageID, sort=True)
    return sorted(names[_choose(images, pairs.LabelName.map(targets()).to_numpy())])


def _ours(path: Path) -> list[str]:
    from pipeline_steps.data.openimages_classes import Vocabulary
    from pipeline_steps.openimages.boxes import read_boxes

    table = read_boxes(path, Vocabulary(dict.fromkeys(CLASSES, ""), {}), targets(), CLASSES[2:6])
    chosen = _choose(table.pair_image, table.pair_category)
    return [name.decode() for name in table.image_ids[chosen]]


CONTENDERS = {"pandas": _usual, "ours": _ours}


def _peak_mib() -> float:
    """Peak memory of this program. ``ru_maxrss`` would also hold what the parent had when it started the process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run_one(name: str, path: Path) -> None:
    """Body of the measured process: choose, store the names, print CPU seconds and peak memory."""
    import pipeline_steps.openimages.choice  # imports stand before the clock

    if name == "pandas":
        import pandas  # noqa: F401
    else:
        import pipeline_steps.openimages.boxes  # noqa: F401

    start, wall = time.process_time(), time.perf_counter()
    chosen = CONTENDERS[name](path)
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    path.with_suffix(f".{name}").write_text("\n".join(chosen))
    print(json.dumps({"cpu": seconds, "wall": wall, "mib": _peak_mib(), "images": len(chosen)}))


def _measure(name: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.openimages_boxes", "--one", name, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Measure; rows of the common table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="lines of the synthetic file")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "boxes.csv"
        make_file(path.with_name("small.csv"), 1000)
        _measure("ours", path.with_name("small.csv"))  # compiles, once in the life of an installation
        make_file(path, arguments.rows)
        size = path.stat().st_size / 2**20
        runs = {contender: [_measure(contender, path) for _ in range(arguments.repeats)] for contender in CONTENDERS}
        equal = len({path.with_suffix(f".{contender}").read_text() for contender in CONTENDERS}) == 1
    usual, ours = ({key: statistics.median(run[key] for run in own) for key in own[0]} for own in runs.values())
    what = f"OpenImages boxes, {arguments.rows:,} lines ({size:,.0f} MiB) to {ours['images']:,.0f} images"
    runs_made = arguments.repeats
    return [
        Row(f"{what}; CPU", "pandas.read_csv", usual["cpu"], ours["cpu"], equal=equal, runs=runs_made),
        Row(f"{what}; peak memory", "pandas.read_csv", usual["mib"], ours["mib"], unit="MiB", runs=runs_made),
    ]


if __name__ == "__main__" and sys.argv[1:2] == ["--one"]:
    run_one(sys.argv[2], Path(sys.argv[3]))
