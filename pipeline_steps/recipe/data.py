"""Configuration keys of the data stage: sources, mini world, category tables, OpenImages selection."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline_steps.recipe.base import Section


class MiniWorld(Section):
    """The embedded procedural data set (used when ``data.source`` is ``mini``)."""

    seed: int = 0
    """Seed of everything that is drawn; the same seed gives the same bytes everywhere."""
    image_size: int = Field(128, ge=64, le=512)
    """Edge of the square images, in pixels."""
    train_images: int = Field(900, ge=8)
    """Images of the train split."""
    val_images: int = Field(300, ge=4)
    """Images of the val split."""
    test_images: int = Field(200, ge=4)
    """Images of the test split (image information only, no annotations)."""
    openimages_images: int = Field(500, ge=8)
    """Images of the OpenImages analogue, before selection."""
    shapes: int = Field(12, ge=3, le=12)
    """Number of object shapes. Categories = shapes x hues."""
    hues: int = Field(8, ge=1, le=8)
    """Near-synonym hues of each shape: the categories of one shape differ in hue only."""
    objects_per_image: float = Field(6.5, gt=1, le=12)
    """Mean number of objects drawn in an image."""
    tail_ratio: float = Field(0.94, gt=0.5, lt=1)
    """Ratio of the probabilities of neighbouring categories by rank: the geometric long tail."""
    annotated_fraction: float = Field(0.75, gt=0, le=1)
    """Probability that a category present in a train image is annotated there (federated annotation)."""
    verified_negative_fraction: float = Field(0.25, ge=0, le=1)
    """Probability that a category absent from a val image is a verified negative there. It moves AP_r by points."""
    coco_matching: int = Field(12, ge=1)
    """Categories of the COCO analogue that match a frequent LVIS category one to one."""
    coco_only: int = Field(3, ge=0)
    """Categories of the COCO analogue that match no LVIS category."""


class OpenImagesSelection(Section):
    """How OpenImages images are chosen and turned into LVIS-format annotations (report, section 3.3)."""

    enabled: bool = True
    """Whether OpenImages is used at all."""
    max_images: int = Field(20000, ge=1)
    """Number of images to choose at most (report: about 20k)."""
    max_images_per_category: int = Field(1000, ge=1)
    """Cap on the chosen images that are taken for the sake of one category (ours)."""
    relations: list[Literal["equal", "narrower", "broader"]] = ["equal"]
    """Relations of the category table that are used; ``narrower``: the source is narrower than LVIS."""
    verdicts: list[Literal["use", "doubtful", "no"]] = ["use"]
    """Review verdicts of the category table that are used."""
    skip_rotated: bool = True
    """Leave out images whose metadata says that they are rotated."""


class Data(Section):
    """Where data come from and how they are read."""

    source: Literal["download", "mini"] = "download"
    """``download`` fetches the real data; ``mini`` renders the embedded mini world."""
    mini: MiniWorld = MiniWorld()
    """The mini world."""
    coco_to_lvis: str = "config/categories/coco_to_lvis.csv"
    """Category table COCO -> LVIS; ``{datasets_root}`` is replaced."""
    openimages_to_lvis: str = "config/categories/openimages_to_lvis.csv"
    """Category table OpenImages -> LVIS; ``{datasets_root}`` is replaced."""
    coco_relations: list[Literal["equal", "narrower", "broader"]] = ["equal"]
    """Relations of the COCO table through which a COCO expert's detections are mapped."""
    coco_verdicts: list[Literal["use", "doubtful", "no"]] = ["use"]
    """Review verdicts of the COCO table that are used."""
    openimages: OpenImagesSelection = OpenImagesSelection()
    """OpenImages selection."""
    max_unreadable_images: int = Field(10, ge=0)
    """Training skips and names this many unreadable images, then stops."""
