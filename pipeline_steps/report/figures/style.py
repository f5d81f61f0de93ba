"""One look for all figures; matplotlib without a display."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GROUP_COLOURS = {"all": "#4d4d4d", "r": "#c8402f", "c": "#c98a00", "f": "#1f6fb4"}
"""Colours of the frequency groups. Red-blind readers see red as dark grey: see the next two."""

GROUP_LINES = {"all": "-", "r": (0, (4, 1.2)), "c": "-", "f": "-"}  # line styles of the groups: rare ones are dashed

GROUP_HATCHES = {"all": "", "r": "////", "c": "", "f": ""}
"""Hatching of bars: rare ones are hatched, with :data:`BAR` as the colour of the edges."""

BAR: dict[str, Any] = {"edgecolor": "white", "linewidth": 0}  # how bars are drawn beside their colour

GROUP_NAMES = {"all": "all", "r": "rare", "c": "common", "f": "frequent"}

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7ea",
    "axes.edgecolor": "#8b949e",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.14,
    "svg.hashsalt": "figures",  # the same figure gives the same bytes
    "savefig.facecolor": "white",
}


def new_figure(columns: int = 1, rows: int = 1, width: float = 7.2, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """An empty figure and its axes in reading order; sizes in inches."""
    mpl.rcParams.update(_STYLE)  # before the figure, which reads some of them when it is made
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


def panels(count: int, width: float, height: float, least: float = 4.2) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels in rows of three (four: two rows of two), unused places left empty.

    Args:
        count: at least 1.
        width, height: of one panel, in inches.
        least: width of the whole figure at least.
    """
    columns = 2 if count == 4 else min(3, count)
    rows = -(-count // columns)
    figure, axes = new_figure(columns, rows, width=max(least, width * columns), height=height * rows + 0.4)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``name``.svg and ``name``.png into ``folder``."""
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})
