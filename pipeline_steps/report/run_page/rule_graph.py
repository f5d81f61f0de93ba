"""The rules of a run as a layered drawing in SVG: what is made from what, top to bottom.

The drawing is the usual one of layered graphs: edges that a longer way implies are left out, every rule stands below
all that it needs, long edges pass through the layers between as invisible nodes, and each layer is ordered by the mean
place of its neighbours.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline_steps.common.progress import format_duration
from pipeline_steps.report.page import render

WIDTH, HEIGHT, GAP_X, GAP_Y = 158, 46, 18, 34
"""Size of a node and distances between nodes, in units of the drawing."""
THIN = 16
"""Width of an invisible node."""
SWEEPS = 16

STAGES = {
    "data": "Data",
    "train": "Training",
    "predict": "Box testing",
    "ensemble": "Ensemble and masks",
    "evaluate": "Evaluation",
    "submit": "Submission",
    "report": "Report",
}
"""Files of rules, in the order of the recipe."""


@dataclass(frozen=True)
class RuleGraph:
    """Rules and what they need of each other."""

    jobs: dict[str, int]
    """Number of jobs of each rule."""
    stages: dict[str, str]
    """Stage of each rule, a key of :data:`STAGES`."""
    edges: list[tuple[str, str]]
    """Pairs: a rule, and one that uses its outputs."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RuleGraph:
        """Read what the workflow has written: ``rules`` (name -> jobs, stage) and ``edges``."""
        rules = content["rules"]
        known = {name: rule for name, rule in rules.items() if rule.get("stage") in STAGES}
        edges = [(a, b) for a, b in content["edges"] if a in known and b in known and a != b]
        return cls({n: int(r["jobs"]) for n, r in known.items()}, {n: r["stage"] for n, r in known.items()}, edges)


def _reduced(names: Iterable[str], edges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Edges without those that a longer way implies."""
    after: dict[str, set[str]] = {name: set() for name in names}
    for a, b in edges:
        after[a].add(b)

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(after[start])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += after[name]
        return found

    below = {name: reachable(name) for name in after}
    return [(a, b) for a in after for b in sorted(after[a]) if not any(b in below[c] for c in after[a] if c != b)]


def _layers(names: Iterable[str], edges: list[tuple[str, str]]) -> dict[str, int]:
    """Layer of each node: below all that it needs; nodes that need nothing stand just above their first user."""
    before: dict[str, list[str]] = {name: [] for name in names}
    after: dict[str, list[str]] = {name: [] for name in before}
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    layer: dict[str, int] = {}

    def place(name: str) -> int:
        if name not in layer:
            layer[name] = 1 + max((place(other) for other in before[name]), default=-1)
        return layer[name]

    for name in before:
        place(name)
    for name in before:
        if not before[name] and after[name]:
            layer[name] = min(layer[other] for other in after[name]) - 1
    return layer


class _Drawing:
    """Places of all nodes, visible and invisible."""

    def __init__(self, graph: RuleGraph) -> None:
        self.graph = graph
        edges = _reduced(graph.jobs, graph.edges)
        layer = _layers(graph.jobs, edges)
        self.rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
        order = {stage: k for k, stage in enumerate(STAGES)}
        for name in sorted(graph.jobs, key=lambda n: (order[graph.stages[n]], n)):
            self.rows[layer[name]].append(name)
        self.chains: list[list[str]] = []
        self.above: dict[str, list[str]] = {name: [] for name in graph.jobs}
        self.below: dict[str, list[str]] = {name: [] for name in graph.jobs}
        for a, b in edges:
            between = [f"{a} {b} {row}" for row in range(layer[a] + 1, layer[b])]
            for row, name in enumerate(between, layer[a] + 1):
                self.rows[row].append(name)
                self.above[name], self.below[name] = [], []
            chain = [a, *between, b]
            self.chains.append(chain)
            for one, two in itertools.pairwise(chain):
                self.below[one].append(two)
                self.above[two].append(one)
        self.y = {name: k * (HEIGHT + GAP_Y) for k, row in enumerate(self.rows) for name in row}
        self.x: dict[str, float] = {}
        self._arrange()

    def width(self, name: str) -> int:
        return WIDTH if name in self.graph.jobs else THIN

    def _spread(self, row: list[str], wanted: Mapping[str, float]) -> None:
        """Places of a row in its order, as near to the wanted ones as the distances allow."""
        left: list[float] = []
        for k, name in enumerate(row):
            least = left[-1] + (self.width(row[k - 1]) + self.width(name)) / 2 + GAP_X if k else -float("inf")
            left.append(max(wanted[name], least))
        # What was pushed to the right comes back by half, together.
        shift = sum(wanted[name] - x for name, x in zip(row, left)) / len(row)
        for name, x in zip(row, left):
            self.x[name] = x + shift

    def _arrange(self) -> None:
        for row in self.rows:
            self._spread(row, dict.fromkeys(row, 0.0))
        for sweep in range(SWEEPS):  # upwards and downwards in turn, the last one downwards
            upwards = sweep % 2 == 0
            for row in self.rows[::-1] if upwards else self.rows:
                wanted = {}
                for name in row:
                    near = [self.x[other] for other in (self.below if upwards else self.above)[name]]
                    wanted[name] = sum(near) / len(near) if near else self.x[name]
                row.sort(key=wanted.__getitem__)
                self._spread(row, wanted)


def _edge(drawing: _Drawing, chain: list[str]) -> str:
    """A smooth line along a chain of nodes, as the path of an SVG."""
    points = [(drawing.x[name], drawing.y[name]) for name in chain]
    x, y = points[0][0], points[0][1] + HEIGHT
    parts = [f"M{x:.0f},{y:.0f}"]
    for k, (next_x, top) in enumerate(points[1:], 1):
        middle = (y + top) / 2
        parts.append(f"C{x:.0f},{middle:.0f} {next_x:.0f},{middle:.0f} {next_x:.0f},{top:.0f}")
        if k < len(points) - 1:
            parts.append(f"V{top + HEIGHT:.0f}")
        x, y = next_x, top + HEIGHT
    return "".join(parts)


def benchmark_seconds(folder: Path, rule: str) -> float | None:
    """Time of all jobs of a rule together, from the workflow's benchmark files; None if there are none."""
    files = [path for path in (folder / f"{rule}.tsv", *sorted((folder / rule).rglob("*.tsv"))) if path.is_file()]
    seconds = []
    for path in files:
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                try:
                    seconds.append(float(row["s"]))
                except (KeyError, TypeError, ValueError):
                    continue
    return sum(seconds) if seconds else None


def draw_graph(graph: RuleGraph, seconds: Mapping[str, float | None], caption: str) -> Markup:
    """The graph as HTML with inline SVG.

    Args:
        graph: at least one rule.
        seconds: time of all jobs of each rule, None if unknown.
        caption: what stands below it.
    """
    drawing = _Drawing(graph)
    left = min(drawing.x[name] - drawing.width(name) / 2 for name in drawing.x) - 4
    right = max(drawing.x[name] + drawing.width(name) / 2 for name in drawing.x) + 4
    nodes = []
    for name, count in graph.jobs.items():
        told = f"{count} jobs" if count > 1 else "1 job"
        if (spent := seconds.get(name)) is not None:
            told += f", {format_duration(spent)}"
        place = {"x": round(drawing.x[name]), "y": drawing.y[name]}
        nodes.append({"name": name, "told": told, "stage": graph.stages[name], **place})
    return render(
        "graph.html",
        box=[round(left), -4, round(right - left), len(drawing.rows) * (HEIGHT + GAP_Y) - GAP_Y + 8],
        edges=[_edge(drawing, chain) for chain in drawing.chains],
        nodes=nodes,
        width=WIDTH,
        height=HEIGHT,
        stages=[(stage, name) for stage, name in STAGES.items() if stage in graph.stages.values()],
        caption=caption,
    )
