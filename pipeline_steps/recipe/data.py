"""Configuration keys of the data stage: sources, mini world, category tables, OpenImages selection."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline_steps.recipe.base import PathText, Section


class MiniWorld(Section):
    """The embedded procedural data set (used when ``data.source`` is ``mini``)."""

    seed: int = 0
    """Seed of all drawing; the same seed gives the same bytes on every machine."""
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
    hues: int = Field(8, ge=1, le=16)
    """Near-synonym hues of each shape: the categories of one shape differ in hue only."""
    objects_per_image: float = Field(6.5, gt=1, le=24)
    """Mean number of objects drawn in an image; objects that do not fit are left out."""
    smallest_object: float = Field(0.14, gt=0, lt=0.6)
    """Extent of the smallest objects as a part of the image's edge (at least 12 pixels)."""
    largest_object: float = Field(0.36, gt=0, lt=0.6)
    """The same for the largest; small objects are more frequent than large ones."""
    tail_ratio: float = Field(0.949, gt=0.5, lt=1)
    """Ratio of the probabilities of neighbouring categories by rank in train images: the geometric long tail."""
    val_tail_ratio: float = Field(0.99, gt=0.5, le=1)
    """The same for val and test images: flatter, so that rare categories have val instances to be measured on."""
    openimages_tail_ratio: float = Field(0.98, gt=0.5, le=1)
    """The same for OpenImages images: flatter too, so that OpenImages adds most to rare categories."""
    hue_jitter: int = Field(12, ge=0, le=60)
    """Greatest deviation of an object's hue from its category's, in degrees (up to 8 hues are 29 to 68 degrees apart,
    more than 8 come as close as 14)."""
    min_train_images: int = Field(2, ge=1)
    """Every category is annotated in at least this many train images (if there are enough images; never in none)."""
    min_val_images: int = Field(5, ge=0)
    """Every category is annotated in at least this many val images (fewer if there are too few images)."""
    rare_max_images: int = Field(10, ge=1)
    """Categories annotated in at most this many train images are rare (LVIS: 10)."""
    common_max_images: int = Field(100, ge=2)
    """Other categories annotated in at most this many train images are common, the rest frequent (LVIS: 100)."""
    annotated_fraction: float = Field(0.75, gt=0, le=1)
    """Probability that a category present in a train or val image is annotated there (federated annotation)."""
    not_exhaustive_fraction: float = Field(0.25, ge=0, le=1)
    """Probability that an annotated category with several objects in an image lacks some (listed not exhaustive)."""
    train_negative_fraction: float = Field(0.02, ge=0, le=1)
    """Probability that a category absent from a train image is a verified negative there."""
    train_sibling_negative_fraction: float = Field(0.2, ge=0, le=1)
    """The same for categories of a shape that the train image shows in another hue."""
    verified_negative_fraction: float = Field(0.25, ge=0, le=1)
    """Probability that a category absent from a val image is a verified negative there. It moves AP_r by points."""
    sibling_negative_fraction: float = Field(0.4, ge=0, le=1)
    """The same for categories of a shape that the val image shows in another hue."""
    coco_matching: int = Field(12, ge=1)
    """Categories of the COCO analogue that match a frequent LVIS category one to one."""
    coco_only: int = Field(3, ge=0, le=6)
    """Categories of the COCO analogue that match no LVIS category: shapes of their own."""
    crowd_fraction: float = Field(0.02, ge=0, le=1)
    """Probability that an image shows a cluster of one category: a crowd in COCO, not exhaustive in LVIS."""
    openimages_shared: float = Field(0.5, gt=0, le=1)
    """Share of the LVIS categories, spread over head and tail, that OpenImages has too."""
    openimages_only: int = Field(2, ge=0, le=6)
    """Shapes that OpenImages has and LVIS does not."""
    group_fraction: float = Field(0.12, ge=0, le=1)
    """Probability that an OpenImages image shows a cluster of one category, annotated as one group-of box."""
    depiction_fraction: float = Field(0.12, ge=0, le=1)
    """Probability that an OpenImages image shows a picture of an object in a frame, annotated as a depiction."""
    jpeg_quality: int = Field(93, ge=50, le=100)
    """Quality of the JPEG files."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.coco_matching > self.shapes * self.hues:
            raise ValueError(
                f"coco_matching is {self.coco_matching}, but there are {self.shapes * self.hues} categories"
            )
        if self.smallest_object > self.largest_object:
            raise ValueError("smallest_object must not exceed largest_object")
        if self.rare_max_images >= self.common_max_images:
            raise ValueError("rare_max_images must be below common_max_images")
        if 3 * self.train_images < self.shapes * self.hues:
            raise ValueError(
                f"{self.train_images} train_images cannot show all {self.shapes * self.hues} categories: "
                f"at least {-(-self.shapes * self.hues // 3)} are needed"
            )
        return self


class OpenImagesSelection(Section):
    """How OpenImages images are chosen and turned into LVIS-format annotations (paper, section 3.3).

    Results go to ``data.derived_root``: recipes that differ here need separate derived roots.
    """

    enabled: bool = True
    """Whether OpenImages is used at all."""
    max_images: int = Field(20000, ge=1)
    """Choose at most this many images (paper: about 20k)."""
    max_images_per_category: int = Field(1000, ge=1)
    """At most this many images are chosen for one category (ours)."""
    relations: list[Literal["equal", "narrower", "broader"]] = ["equal"]
    """Relations of the category table that are used, for training and for the detections of an OpenImages expert;
    ``narrower``: the source is narrower than LVIS."""
    verdicts: list[Literal["use", "doubtful", "no"]] = ["use"]
    """Review verdicts of the category table that are used."""
    frequency_groups: list[Literal["r", "c", "f"]] = ["r", "c", "f"]
    """LVIS groups of the categories taken from OpenImages: all share 326 of LVIS v0.5, ``[r, c]`` 165 (paper: 110)."""
    skip_rotated: bool = True
    """Leave out images whose metadata says that they are rotated, here and in ``openimages_own``."""


class OpenImagesOwn(Section):
    """Which OpenImages images an OpenImages expert is trained on, in OpenImages' own 601 classes (paper, section 5).

    The images are the first ones of a seeded order among those with a box, so that a larger number keeps the smaller
    selection. Results go to ``datasets_root``, for all recipes; images lie beside those of ``openimages``.
    """

    max_images: int | None = Field(200000, ge=1)
    """Number of images at most (ours): 200,000 are about 62 GB, and 7.2 epochs of the default schedule. ``null`` takes
    all 1.74 million train images with boxes: 540 GB, and 12 epochs of them are 14.5 times the default schedule."""
    seed: int = Field(0, ge=0)
    """Seed of the order."""


class Download(Section):
    """How the public data are fetched (used when ``data.source`` is ``download``).

    Existing files are checked, used in place and never replaced. OpenImages images are fetched over plain
    HTTP: unlike FiftyOne's downloader this lists failures, knows mirrors and costs a third of the CPU (measured in
    ``downloads/openimages_images.py``); FiftyOne's folder ``open-images-v7/train/data`` can be linked as
    ``openimages/train``.
    """

    sources: PathText = "config/sources.csv"
    """Table of sources: addresses, sizes, checksums, licences."""
    mirrors: dict[str, str] = {}
    """Address prefixes and their replacements: another server, or a local folder."""
    parallel_files: int = Field(3, ge=1, le=16)
    """Files downloaded in parallel."""
    parallel_images: int = Field(32, ge=1, le=256)
    """OpenImages images downloaded in parallel."""
    retries: int = Field(8, ge=0)
    """Attempts in a row without progress before a download gives up."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Seconds without data after which a connection counts as broken."""
    keep_archives: bool = False
    """Keep zip archives after unpacking."""
    check_room: bool = True
    """Refuse to start if the disk has no room for the whole recipe."""
    max_failed_images: int = Field(50, ge=0)
    """OpenImages images that may be missing; they are listed and left out of training."""
    on_this_machine: bool = True
    """Download where Snakemake runs (a login node) instead of in cluster jobs: compute nodes need no internet."""


class Data(Section):
    """Where data come from and how they are read."""

    source: Literal["download", "mini"] = "download"
    """``download`` fetches the real data; ``mini`` renders the embedded mini world."""
    derived_root: PathText = ""
    """Folder of derived files (manifests of checks, COCO boxes, OpenImages selection); recipes can share
    it. Empty: ``datasets_root``, or ``results/<name>/data`` where that is read-only; ``{datasets_root}`` is replaced
    in a value."""
    mini: MiniWorld = MiniWorld()
    """The mini world."""
    download: Download = Download()
    """Download."""
    coco_to_lvis: PathText = "config/categories/coco_to_lvis.csv"
    """Category table COCO -> LVIS; ``{datasets_root}`` is replaced."""
    openimages_to_lvis: PathText = "config/categories/openimages_to_lvis.csv"
    """Category table OpenImages -> LVIS; ``{datasets_root}`` is replaced."""
    parents: PathText = "config/categories/parents.csv"
    """Table of the parents of LVIS categories (columns ``category``, ``parent``): which confusions are near-synonyms.
    For LVIS the hypernyms of WordNet 3.0; ``{datasets_root}`` is replaced."""
    coco_relations: list[Literal["equal", "narrower", "broader"]] = ["equal"]
    """Relations of the COCO table through which a COCO expert's detections are mapped."""
    coco_verdicts: list[Literal["use", "doubtful", "no"]] = ["use"]
    """Review verdicts of the COCO table that are used."""
    openimages: OpenImagesSelection = OpenImagesSelection()
    """OpenImages selection."""
    openimages_own: OpenImagesOwn = OpenImagesOwn()
    """OpenImages in its own classes."""
    max_unreadable_images: int = Field(10, ge=0)
    """Training skips up to this many unreadable images, naming each, and stops at the next one."""
    max_unusable_annotations: float = Field(0.01, ge=0, le=1)
    """Share of a training file's annotations that training may leave out, and name, because they cannot be learned from
    (no extent, outside their image, damaged mask); ten always may be, more stop it. ``check_dataset`` lists them."""
