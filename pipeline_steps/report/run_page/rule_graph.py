"""The rules of a run as a layered drawing in SVG: what is made from what, top to bottom.

Edges that a longer way implies are left out, every rule stands below all that it needs, and long edges pass through the
layers between as invisible nodes. Sweeps up and down the layers bring each node near to the mean of its neighbours.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from markupsafe import Markup
from scipy.optimize import isotonic_regression

from pipeline_steps.analysis.benchmarks import job_seconds
from pipeline_steps.common.progress import format_duration
from pipeline_steps.report.page import render

WIDTH, HEIGHT, GAP_X, GAP_Y = 158, 46, 18, 34  # size of a node and distances between nodes, in units of the drawing
THIN = 16  # width of an invisible node
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


def read_graph(content: Mapping[str, Any]) -> nx.DiGraph:
    """The rules that the workflow has written: nodes with ``jobs`` and ``stage`` (a key of :data:`STAGES`).

    Args:
        content: ``rules`` (name -> jobs, stage) and ``edges`` (a rule, and one that uses its outputs).

    Raises:
        ValueError: the rules need each other in a circle; other errors of this kind if it is no such list.
    """
    graph: nx.DiGraph = nx.DiGraph()
    known = {name: rule for name, rule in content["rules"].items() if rule.get("stage") in STAGES}
    for name in sorted(known, key=lambda n: (list(STAGES).index(known[n]["stage"]), n)):
        graph.add_node(name, jobs=int(known[name]["jobs"]), stage=known[name]["stage"])
    graph.add_edges_from((a, b) for a, b in content["edges"] if a in known and b in known and a != b)
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError("the rules need each other in a circle")
    return graph


def _layers(graph: nx.DiGraph) -> dict[str, int]:
    """Layer of each node: below all that it needs; nodes that need nothing stand just above their first user."""
    layer = {name: row for row, names in enumerate(nx.topological_generations(graph)) for name in names}
    for name, users in graph.succ.items():
        if users and not graph.pred[name]:
            layer[name] = min(layer[user] for user in users) - 1
    return layer


def _arrange(graph: nx.DiGraph) -> tuple[dict[str, float], dict[str, int], list[list[str]]]:
    """Middles x and layers of all nodes, visible and invisible, and the chain of nodes of each edge."""
    reduced = nx.transitive_reduction(graph)
    layer = _layers(reduced)
    chains = []
    for a, b in reduced.edges:
        between = {f"{a} {b} {row}": row for row in range(layer[a] + 1, layer[b])}
        chains.append([a, *between, b])
        layer |= between
    linked = nx.DiGraph(itertools.chain.from_iterable(map(itertools.pairwise, chains)))
    linked.add_nodes_from(graph)
    rows = [[name for name in layer if layer[name] == row] for row in range(max(layer.values()) + 1)]
    x = dict.fromkeys(layer, 0.0)
    for sweep in range(SWEEPS):  # upwards and downwards in turn, the last one downwards
        near, order = (linked.pred, rows) if sweep % 2 else (linked.succ, rows[::-1])
        for row in order:
            wanted = {name: float(np.mean([x[other] for other in near[name]] or [x[name]])) for name in row}
            row.sort(key=wanted.__getitem__)
            # The places nearest to the wanted ones in this order that leave room between the middles.
            widths = np.array([WIDTH if name in graph else THIN for name in row])
            room = np.concatenate([[0], np.cumsum((widths[:-1] + widths[1:]) / 2 + GAP_X)])
            places = room + isotonic_regression(np.array([wanted[name] for name in row]) - room).x
            x |= dict(zip(row, places.tolist()))
    return x, layer, chains


def _edge(points: list[tuple[float, float]]) -> str:
    """A smooth line down a chain of nodes, given by the middles of their upper sides, as the path of an SVG."""
    path = f"M{points[0][0]:.0f},{points[0][1]:.0f}"  # the part behind a node does not show
    for (x, top), (next_x, next_top) in itertools.pairwise(points):
        middle = (top + HEIGHT + next_top) / 2
        path += f"V{top + HEIGHT:.0f}C{x:.0f},{middle:.0f} {next_x:.0f},{middle:.0f} {next_x:.0f},{next_top:.0f}"
    return path


def rule_seconds(folder: Path, rule: str) -> float | None:
    """Time of all jobs of a rule together, from the workflow's benchmark files; None if there are none."""
    files = [path for path in (folder / f"{rule}.tsv", *sorted((folder / rule).rglob("*.tsv"))) if path.is_file()]
    seconds, jobs = job_seconds(files, "s")
    return seconds if jobs else None


def draw_graph(graph: nx.DiGraph, seconds: Mapping[str, float | None], caption: str) -> Markup:
    """The graph as HTML with inline SVG.

    Args:
        graph: from :func:`read_graph`, at least one rule.
        seconds: time of all jobs of each rule, None if unknown.
    """
    x, layer, chains = _arrange(graph)
    top = {name: row * (HEIGHT + GAP_Y) for name, row in layer.items()}
    left, right = min(x.values()) - WIDTH / 2 - 4, max(x.values()) + WIDTH / 2 + 4
    nodes = []
    for name, rule in graph.nodes.items():
        told = f"{rule['jobs']} jobs" if rule["jobs"] > 1 else "1 job"
        if (spent := seconds.get(name)) is not None:
            told += f", {format_duration(spent)}"
        nodes.append({"name": name, "told": told, "stage": rule["stage"], "x": round(x[name]), "y": top[name]})
    used = {rule["stage"] for rule in graph.nodes.values()}
    return render(
        "graph.html",
        box=[round(left), -4, round(right - left), max(top.values()) + HEIGHT + 8],
        edges=[_edge([(x[name], top[name]) for name in chain]) for chain in chains],
        nodes=nodes,
        width=WIDTH,
        height=HEIGHT,
        stages=[(stage, name) for stage, name in STAGES.items() if stage in used],
        caption=caption,
    )
