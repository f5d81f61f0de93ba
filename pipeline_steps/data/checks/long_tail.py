"""How uneven a data set is: figures and a plot of the category distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline_steps.data.categories import GROUPS, frequency_letter
from pipeline_steps.data.checks.check import Checked

_COLORS = {"r": "#c44e52", "c": "#dd8452", "f": "#4c72b0"}


def _letters(checked: Checked) -> np.ndarray:
    """Letters of the categories by id order: the file's, or from the images in this file."""
    return np.array(
        [
            category.frequency or frequency_letter(category.image_count or checked.images_of[category_id])
            for category_id, category in sorted(checked.categories.items())
        ],
        dtype="<U1",
    )


def summary_lines(checked: Checked) -> list[str]:
    """Size of the data set and figures of its long tail."""
    split = f", {checked.split}" if checked.split else ""
    lines = [
        f"{checked.path}: {checked.style}{split}: {len(checked.images)} images, "
        f"{'no' if checked.annotation_count is None else checked.annotation_count} annotations, "
        f"{len(checked.categories)} categories"
    ]
    if not checked.annotation_count or not checked.instances_of:
        return lines
    ids = sorted(checked.categories)
    images = np.array([checked.images_of[category_id] for category_id in ids])
    instances = np.array([checked.instances_of[category_id] for category_id in ids])
    letters = _letters(checked)
    lines.append(f"  {'group':10} {'categories':>10} {'with images':>12} {'images':>9} {'annotations':>12}")
    for letter, group in GROUPS.items():
        of = letters == letter
        shown = np.count_nonzero(images[of])
        lines.append(f"  {group:10} {of.sum():10d} {shown:12d} {images[of].sum():9d} {instances[of].sum():12d}")
    descending = np.sort(instances)[::-1]
    half = int(np.searchsorted(np.cumsum(descending), descending.sum() / 2)) + 1
    low, middle, high = np.percentile(images, (10, 50, 90))
    lines.append(f"  half of the annotations belong to {half} categories")
    lines.append(f"  images of a category: 10th percentile {low:.0f}, median {middle:.0f}, 90th percentile {high:.0f}")
    lines.append(f"  annotations in an image: {checked.annotation_count / max(len(checked.images), 1):.1f}")
    return lines


def plot_distribution(checked: Checked, path: Path) -> None:
    """Write a figure: images of each category, most first, on a logarithmic axis; the suffix decides the format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    ids = sorted(checked.categories)
    images = np.array([checked.images_of[category_id] for category_id in ids])
    letters = _letters(checked)
    order = np.argsort(-images, kind="stable")
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for letter, group in GROUPS.items():
        shown = np.flatnonzero((letters[order] == letter) & (images[order] > 0))
        axes.scatter(
            shown, images[order][shown], s=6, color=_COLORS[letter], label=f"{group} ({(letters == letter).sum()})"
        )
    empty = int(np.count_nonzero(images == 0))
    axes.set(
        yscale="log",
        xlabel="category, most images first",
        ylabel="images with the category",
        title=f"{checked.path.name}: {len(ids)} categories" + (f", {empty} without an image here" if empty else ""),
    )
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(ticker.LogFormatter(minor_thresholds=(1, 0.5)))  # few images: below one decade
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
