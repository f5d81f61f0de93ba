"""What the benchmarks share: one row of the table, fair timing of two contenders, peak memory of a function.

Times are CPU seconds of this process, so that waiting for a busy machine does not count. The contenders take turns on
the same inputs, the one that begins alternating, and the ratio is the median over the pairs: load that slows both
alike cancels out.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table of benchmarks.

    Attributes:
        hot_path: what is measured, with its size.
        baseline_name: what people use today.
        baseline, ours: median cost of one run, in ``unit``.
        unit: ``s`` (CPU seconds) or ``MiB`` (peak memory); smaller is better.
        equal: whether the results are identical; None where that does not apply.
        runs: measured pairs.
        ratio: baseline / ours, the median over pairs if given, else of the medians.
    """

    hot_path: str
    baseline_name: str
    baseline: float
    ours: float
    unit: str = "s"
    equal: bool | None = None
    runs: int = 1
    ratio: float = 0.0

    def __post_init__(self) -> None:
        if not self.ratio:
            object.__setattr__(self, "ratio", self.baseline / self.ours)

    def cells(self) -> list[str]:
        """The texts of the table's columns."""
        verdict = {True: "equal", False: "DIFFERENT", None: "-"}[self.equal]
        values = (format_value(self.baseline, self.unit), format_value(self.ours, self.unit))
        return [self.hot_path, self.baseline_name, *values, f"{self.ratio:.3g}x", verdict, str(self.runs)]


COLUMNS = ("hot path", "baseline", "costs", "ours", "ratio", "results", "runs")


def format_value(value: float, unit: str) -> str:
    """``0.00412 s`` -> ``4.12 ms``."""
    if unit == "s" and value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table with aligned columns."""
    lines = [list(COLUMNS), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    texts = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts)


@dataclass(frozen=True)
class Pairs:
    """Outcome of :func:`in_turns`: medians of CPU seconds, median ratio, and whether all results were equal."""

    baseline: float
    ours: float
    ratio: float
    equal: bool | None
    runs: int

    def row(self, hot_path: str, baseline_name: str) -> Row:
        """As a row of the table."""
        return Row(hot_path, baseline_name, self.baseline, self.ours, "s", self.equal, self.runs, self.ratio)


def in_turns(
    baseline: Callable[..., Any],
    ours: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    same: Callable[[Any, Any], bool] | None = None,
    clock: Callable[[], float] = time.process_time,
    first: tuple[Any, ...] | None = None,
) -> Pairs:
    """Measure two functions on the same inputs, in turns.

    Args:
        baseline, ours: called with each input's arguments.
        inputs: one measured pair for each.
        same: compares their results.
        clock: seconds.
        first: arguments of a first call of both that is not measured; by default the first of ``inputs``.
    """
    for function in (baseline, ours):
        function(*(inputs[0] if first is None else first))
    seconds: dict[Callable[..., Any], list[float]] = {baseline: [], ours: []}
    equal = True
    for turn, arguments in enumerate(inputs):
        results = {}
        for function in (baseline, ours) if turn % 2 == 0 else (ours, baseline):
            gc.disable()  # its pauses come when they like, and would hit one of the two
            start = clock()
            results[function] = function(*arguments)
            seconds[function].append(clock() - start)
            gc.enable()
        equal &= same is None or bool(same(results[baseline], results[ours]))
    ratios = [before / after for before, after in zip(seconds[baseline], seconds[ours])]
    return Pairs(
        statistics.median(seconds[baseline]),
        statistics.median(seconds[ours]),
        statistics.median(ratios),
        equal if same is not None else None,
        len(inputs),
    )


@dataclass(frozen=True)
class Cost:
    """CPU seconds and peak memory of a function in a process of its own, and what it returned."""

    seconds: float
    peak_mib: float
    value: Any


def in_process(function: str, *arguments: str) -> Cost:
    """Call ``package.module:function`` with texts in a new interpreter. Its import of the module is not timed.

    Args:
        function: its result must be a JSON value.
    """
    command = [sys.executable, "-m", "tests.benchmarks.measure", function, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def peak_mib() -> float:
    """Peak memory of this process in MiB (``getrusage`` would count the peak of the process that forked it, too)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmHWM"].split()[0]) / 1024


def _serve() -> None:
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    start = time.process_time()
    value = function(*sys.argv[2:])
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib(), "value": value}))


def one_thread() -> None:
    """Make numerical libraries use one thread, here and in child processes; call before they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(name, "1")


if __name__ == "__main__":
    _serve()
