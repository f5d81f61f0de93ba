"""Everything that is checked and measured on a GPU: the tests marked ``gpu``, then the benchmarks as one table.

make gpu                                   with the pinned environment
PYTHON=python3 make gpu ENV=none           with what is installed already
make gpu ARGS=--no-benchmarks              the tests alone

Exit codes: 0 all passed, 1 a test or benchmark failed, 2 a package or the GPU is missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.gpu.environment import ROOT, require

if TYPE_CHECKING:
    from tests.benchmarks.measure import Row

CASES = ["r50_fpn:800", "x101_dcn_fpn:800", "x101_dcn_fpn:1050", "se154_dcn_fpn:1050"]


def card() -> str:
    """GPU, its memory, driver and versions, for the head of the table."""
    import torch
    import torchvision

    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    gpu = torch.cuda.get_device_properties(0)
    return (
        f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, driver {driver}; CUDA {torch.version.cuda}, torch "
        f"{torch.__version__}, torchvision {torchvision.__version__}, Python {sys.version.split()[0]}"
    )


def goals(rows: list[Row]) -> list[str]:
    """What was to be reached, and whether it was."""
    from tests.benchmarks.gpu_training import images_per_second

    found = {row.hot_path: row for row in rows}

    def row_of(*words: str) -> Row | None:
        return next((row for name, row in found.items() if all(word in name for word in words)), None)

    train, test = row_of("train r50_fpn", "800", "images/s"), row_of("test r50_fpn", "1,230")
    many = row_of("five-scale", "640x480", "images/s")
    lines = []
    for name, row, least, value in (
        ("training R50 at 800 px, times detectron2", train, 1.3, train.ratio if train else 0),
        ("training R50 at 800 px, images/s (H200)", train, 60, images_per_second(train) if train else 0),
        ("LVIS testing R50 at 800 px, images/s", test, 40, images_per_second(test) if test else 0),
        ("five-scale testing, times GeneralizedRCNNWithTTA", many, 4, many.ratio if many else 0),
    ):
        if row is None:
            lines.append(f"  {name}: goal {least}, not measured")
        else:
            lines.append(f"  {name}: goal {least}, {value:.1f}{'' if value >= least else ': MISSED'}")
    return lines


def benchmarks(device: str) -> tuple[list[Row], bool]:
    """All rows, and whether all benchmarks ran."""
    from tests.benchmarks.__main__ import run

    small = device == "cpu"
    arguments = {
        "gpu_training": [
            *("--device", device, "--images", "1" if small else "8", "--rounds", "1" if small else "20"),
            *("--cases", *(["r50_fpn:64"] if small else CASES)),
        ],
        "gpu_testing": ["--device", device, "--images", "1" if small else "40"]
        + (["--edge", "64", "--categories", "30"] if small else []),
    }
    arguments["deformable"] = ["--device", device, *(["--small", "--runs", "1"] if small else [])]
    if not small:
        sizes = ["--images", "10", "--sizes", "640x480", "640x427"]
        arguments["multi_scale"] = ["--device", device, *sizes, "--detectors", "r50_fpn", "x101_dcn_fpn"]
    results = [run(name, options) for name, options in arguments.items()]
    return [row for rows in results for row in rows or []], None not in results


def main(argv: list[str] | None = None) -> int:
    """Run tests and benchmarks."""
    parser = argparse.ArgumentParser("make gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: the same, tiny, to try it")
    parser.add_argument("--no-benchmarks", action="store_true")
    parser.add_argument("--no-tests", action="store_true")
    options, more = parser.parse_known_args(argv)
    require()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: make gpu: torch sees no GPU here (nvidia-smi, CUDA_VISIBLE_DEVICES?)", file=sys.stderr)
        return 2
    print(card() if options.device == "cuda" else "on a CPU: nothing below was measured on a GPU", flush=True)
    passed = True
    if not options.no_tests:
        marks = "gpu" if options.device == "cuda" else "not gpu"
        command = [sys.executable, "-m", "pytest", "-q", "-m", marks, "tests/gpu", *more]
        passed = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode == 0
    if options.no_benchmarks:
        return 0 if passed else 1
    rows, ran = benchmarks(options.device)
    from tests.benchmarks.measure import table

    print(f"\n{card() if options.device == 'cuda' else 'CPU'}\n\n{table(rows)}\n\ngoals:")
    print("\n".join(goals(rows)))
    return 0 if passed and ran else 1


if __name__ == "__main__":
    raise SystemExit(main())
