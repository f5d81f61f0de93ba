"""Run benchmarks and print one table.

python -m tests.benchmarks                       all of them
python -m tests.benchmarks postprocess mask_rle  some
python -m tests.benchmarks evaluation --help     what can be set for one; its options follow its name
python -m tests.benchmarks --full                at the sizes of the real data sets; half an hour, 8 GB of memory
"""

from __future__ import annotations

import datetime
import importlib
import pkgutil
import platform
import sys
import traceback
from pathlib import Path

from tests.benchmarks.measure import Row, one_thread, table

FULL_SIZES = {
    "evaluation": ["--images", "5000", "--runs", "1"],  # LVIS val with 300 detections per image
    "openimages_boxes": ["--rows", "14600000", "--repeats", "1"],  # the train boxes
    "submission": ["--images", "20000"],  # LVIS test with 300 masks per image
    "training_iteration": ["--images", "57000"],  # LVIS train
}
"""Options of the benchmarks whose usual sizes are smaller than those of the real data sets."""


def names() -> list[str]:
    """Modules of this folder that are benchmarks: those with a ``main``."""
    found = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    texts = {name: Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in found}
    return sorted(name for name, text in texts.items() if not name.startswith("_") and "\ndef main(" in text)


def machine() -> str:
    """Class of this machine: processor and cores."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
        model += f", {len(lines)} cores" if lines else ""
    return model


def run(name: str, argv: list[str]) -> list[Row] | None:
    """Rows of one benchmark; None if it failed."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        return importlib.import_module(f"tests.benchmarks.{name}").main(argv) or []
    except Exception:
        traceback.print_exc()
        return None


def main(argv: list[str]) -> int:
    """Run what the command line names; the exit code says whether all ran and no result differs."""
    one_thread()
    position = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    wanted, options = argv[:position], argv[position:]
    full = options == ["--full"]
    options = [] if full else options
    known = names()
    if unknown := [name for name in wanted if name not in known]:
        print(f"error: no benchmark {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if options and len(wanted) != 1:
        if options[0] in ("-h", "--help"):
            print(f"{__doc__}\nBenchmarks: {', '.join(known)}")
            return 0
        print(f"error: {options[0]} needs the name of one benchmark before it", file=sys.stderr)
        return 2
    results = {name: run(name, FULL_SIZES.get(name, []) if full else options) for name in wanted or known}
    rows = [row for own in results.values() for row in own or []]
    if rows:
        print(f"\n{datetime.date.today()}, {machine()}; one thread\n\n{table(rows)}")
    failed = [name for name, own in results.items() if own is None]
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or any(row.equal is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
