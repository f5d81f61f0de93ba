"""Small worlds for the tests of the mini world."""

from __future__ import annotations

from pathlib import Path

from pipeline_steps.make_mini import main, parser

SMALL = """
  mini:
    image_size: 96
    train_images: 60
    val_images: 24
    test_images: 10
    openimages_images: 50
    shapes: 4
    hues: 3
    rare_max_images: 9
    common_max_images: 18
    coco_matching: 4
    coco_only: 2
    crowd_fraction: 0.2
    group_fraction: 0.3
    depiction_fraction: 0.3
"""
"""All features in few images: crowds, groups and depictions are frequent."""


def write_recipe(path: Path, mini: str = SMALL, more: str = "") -> Path:
    """A recipe whose mini world is ``mini``."""
    path.write_text(f"extends: mini.yaml\nname: small\n{more}\ndata:{mini}", encoding="utf-8")
    return path


def make(folder: Path, mini: str = SMALL, more: str = "") -> Path:
    """Run the step for a small world; returns the root of its data set."""
    recipe = write_recipe(folder / "small.yaml", mini, more)
    root = folder / "world"
    main(parser.parse_args(["--recipe", str(recipe), "--output", str(root)]))
    return root
