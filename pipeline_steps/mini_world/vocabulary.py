"""What the mini world's things are called: LVIS, COCO and OpenImages categories, and how they relate.

Symbols: C = shapes x hues = number of LVIS categories. A *rank* orders categories from head to tail (0 = most common).
Each round of ranks takes one hue of every shape, so the head holds all shapes and every shape has a tail of hues.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from pipeline_steps.mini_world.randomness import stream
from pipeline_steps.mini_world.shapes import EXTRA_SHAPES, SHAPES
from pipeline_steps.recipe.data import MiniWorld

HUES = (
    ("crimson", "scarlet", 352),
    ("amber", "orange", 33),
    ("citron", "lemon", 62),
    ("emerald", "jade", 130),
    ("turquoise", "aqua", 174),
    ("cobalt", "azure", 218),
    ("violet", "purple", 268),
    ("magenta", "fuchsia", 314),
    # Between them, for worlds with more than eight.
    ("vermilion", "coral", 12),
    ("gold", "honey", 47),
    ("lime", "chartreuse", 96),
    ("mint", "seafoam", 152),
    ("cerulean", "sky", 196),
    ("indigo", "ultramarine", 243),
    ("orchid", "plum", 291),
    ("rose", "cerise", 333),
)
"""Name, second name (for synonyms) and angle in degrees on the colour circle."""

_WIDE_APART = 8
"""So many hues at the beginning of ``HUES`` are far apart."""

SHAPE_WORDS = {
    "disk": ("disc", "a flat round plate"),
    "square": ("block", "a plate with four equal sides"),
    "triangle": ("wedge", "a plate with three sides"),
    "star": ("pentagram", "a plate with five points"),
    "cross": ("plus", "two crossed beams of equal length"),
    "ring": ("annulus", "a round band with a hole in the middle"),
    "crescent": ("sickle", "a curved blade like the young moon"),
    "hexagon": ("hex", "a plate with six equal sides"),
    "heart": ("valentine", "a plate with two round lobes above a point"),
    "arrow": ("pointer", "a shaft with a pointed head"),
    "bar": ("rod", "a straight piece, much longer than wide"),
    "gear": ("cogwheel", "a toothed wheel"),
}
"""Second name and definition of each shape."""

FAMILIES = {
    "round shape": ("disk", "ring", "crescent", "gear"),
    "polygon": ("square", "triangle", "hexagon", "bar"),
    "symbol": ("star", "cross", "heart", "arrow"),
}
"""Classes of the OpenImages hierarchy above the shapes."""

FRAME = "picture frame"
"""OpenImages class of the frames in which depictions hang."""

_COCO_MISSING_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@dataclass(frozen=True)
class MiniCategory:
    """An LVIS category. ``key`` counts from 0 in the order of ids; ``hue`` is an index into HUES."""

    key: int
    shape: str
    hue: int
    rank: int

    @property
    def lvis_id(self) -> int:
        return self.key + 1

    @property
    def name(self) -> str:
        return f"{HUES[self.hue][0]}_{self.shape}"

    @property
    def synset(self) -> str:
        return f"{self.name}.n.01"

    @property
    def synonyms(self) -> list[str]:
        return [self.name, f"{HUES[self.hue][1]}_{SHAPE_WORDS[self.shape][0]}"]

    @property
    def definition(self) -> str:
        return f"{SHAPE_WORDS[self.shape][1]}, {HUES[self.hue][0]} in colour"


@dataclass(frozen=True)
class CocoCategory:
    """A category of the COCO analogue: one LVIS category (``key``), or an extra shape (``key`` None)."""

    coco_id: int
    name: str
    supercategory: str
    key: int | None
    shape: str


@dataclass(frozen=True)
class OpenImagesClass:
    """A boxable class of the OpenImages analogue.

    ``key``: the LVIS category that it equals, or None. ``shape``: shape of leaves and of shape classes, None for
    families. ``children``: MIDs below it.
    """

    mid: str
    name: str
    key: int | None
    shape: str | None
    children: tuple[str, ...] = ()


@dataclass(frozen=True)
class MiniVocabulary:
    """All categories of a world."""

    categories: tuple[MiniCategory, ...]
    coco: tuple[CocoCategory, ...]
    openimages: tuple[OpenImagesClass, ...]
    coco_extra: tuple[str, ...]
    openimages_extra: tuple[str, ...]

    def by_rank(self) -> list[MiniCategory]:
        """LVIS categories from head to tail."""
        return sorted(self.categories, key=lambda category: category.rank)


def _spread(count: int, among: int) -> list[int]:
    """``count`` of the numbers 0 .. ``among`` - 1, evenly."""
    return [index * among // count for index in range(count)]


def _categories(settings: MiniWorld) -> tuple[MiniCategory, ...]:
    rng = stream(settings.seed, "vocabulary")
    shapes = SHAPES[: settings.shapes]
    hues = _spread(min(settings.hues, _WIDE_APART), _WIDE_APART)
    hues += [_WIDE_APART + k for k in _spread(settings.hues - len(hues), len(HUES) - _WIDE_APART)]
    hue_orders = {shape: [hues[k] for k in rng.permutation(len(hues))] for shape in shapes}
    ranked = [
        (shapes[k], hue_orders[shapes[k]][round_]) for round_ in range(len(hues)) for k in rng.permutation(len(shapes))
    ]
    ranks = {pair: rank for rank, pair in enumerate(ranked)}
    alphabetical = sorted(ranked, key=lambda pair: f"{HUES[pair[1]][0]}_{pair[0]}")
    return tuple(MiniCategory(key, shape, hue, ranks[shape, hue]) for key, (shape, hue) in enumerate(alphabetical))


def _coco_ids(count: int) -> list[int]:
    """The first ``count`` ids with gaps where COCO has them."""
    ids = [value for value in range(1, count + len(_COCO_MISSING_IDS) + 1) if value not in _COCO_MISSING_IDS]
    return ids[:count]


def _coco(
    settings: MiniWorld, categories: tuple[MiniCategory, ...], extra: tuple[str, ...]
) -> tuple[CocoCategory, ...]:
    head = sorted(categories, key=lambda category: category.rank)[: settings.coco_matching]
    family_of = {shape: family for family, shapes in FAMILIES.items() for shape in shapes}
    entries: list[tuple[str, str, int | None, str]] = [
        (category.name.replace("_", " "), family_of[category.shape], category.key, category.shape) for category in head
    ]
    entries += [(shape, "object", None, shape) for shape in extra]
    return tuple(CocoCategory(coco_id, *entry) for coco_id, entry in zip(_coco_ids(len(entries)), entries, strict=True))


def _mid(number: int) -> str:
    """A machine id in the form of OpenImages: ``/m/0`` and letters and digits."""
    digits = "0123456789bcdfghjklmnpqrstvwxyz_"
    scattered = (number * 7_368_787 + 104_729) % (1 << 25)  # an odd factor: no two numbers meet
    return "/m/0" + "".join(digits[scattered >> shift & 31] for shift in (20, 15, 10, 5, 0))


def _shared(settings: MiniWorld, categories: tuple[MiniCategory, ...]) -> list[MiniCategory]:
    """The LVIS categories that OpenImages has too: the same share of every shape and of every round of ranks."""
    shapes, share = settings.shapes, settings.openimages_shared
    chosen = []
    for category in categories:
        # Rounds are counted off in steps of the share; each shape starts at another point of the step.
        start = Fraction(SHAPES.index(category.shape), shapes) + category.rank // shapes * Fraction(share)
        if math.floor(start + Fraction(share)) > math.floor(start):
            chosen.append(category)
    return chosen or [categories[0]]


def _openimages(
    settings: MiniWorld, categories: tuple[MiniCategory, ...], extra: tuple[str, ...]
) -> tuple[OpenImagesClass, ...]:
    """Leaves for a share of the LVIS categories spread over all ranks, then shapes, families, and unshared classes."""

    def entry(
        number: int, name: str, key: int | None, shape: str | None, children: Iterable[OpenImagesClass] = ()
    ) -> OpenImagesClass:
        return OpenImagesClass(_mid(number), name.capitalize(), key, shape, tuple(child.mid for child in children))

    leaves = [entry(c.key, c.name.replace("_", " "), c.key, c.shape) for c in _shared(settings, categories)]
    shapes = [
        entry(1000 + k, shape, None, shape, [leaf for leaf in leaves if leaf.shape == shape])
        for k, shape in enumerate(SHAPES[: settings.shapes])
    ]
    families = [
        entry(2000 + k, family, None, None, [shape for shape in shapes if shape.shape in members])
        for k, (family, members) in enumerate(FAMILIES.items())
    ]
    unshared = [entry(3000 + k, shape, None, shape) for k, shape in enumerate(extra)]
    return (*leaves, *shapes, *families, *unshared, entry(4000, FRAME, None, "frame"))


def build_vocabulary(settings: MiniWorld) -> MiniVocabulary:
    """The categories of the world that ``settings`` describe."""
    coco_extra = EXTRA_SHAPES[: settings.coco_only]
    openimages_extra = EXTRA_SHAPES[len(EXTRA_SHAPES) - settings.openimages_only :]
    categories = _categories(settings)
    return MiniVocabulary(
        categories=categories,
        coco=_coco(settings, categories, coco_extra),
        openimages=_openimages(settings, categories, openimages_extra),
        coco_extra=coco_extra,
        openimages_extra=openimages_extra,
    )
