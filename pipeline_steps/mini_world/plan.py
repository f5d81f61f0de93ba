"""What every picture is to show: category draws along the tail, and the guarantee that no category goes without.

The plan of a split is made before anything is drawn. Categories are drawn by rank from a geometric tail; then every
category gets a few *certain* images, in which it is placed first and always annotated, taken from the images that show
it anyway as far as there are any. Symbols: C categories, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline_steps.mini_world.layout import Wish
from pipeline_steps.mini_world.randomness import chance, geometric_weights, pick, stream
from pipeline_steps.mini_world.vocabulary import HUES, MiniCategory, MiniVocabulary
from pipeline_steps.recipe.data import MiniWorld

MAX_CERTAIN = 3
"""Certain objects in one image: so few always find room in an empty picture."""
REPEAT = 0.15
"""Probability that an object repeats the category before it: things of one kind often stand together."""
HEAD_BONUS = 1.15
"""COCO's categories are those that people photograph most: a step in the tail behind them, in train images."""
EXTRA = 0.6
"""Probability that an image shows an object that LVIS has no category for."""

Plan = list[list[Wish]]


def wish_for(category: MiniCategory, group: int = 0, depicted: bool = False) -> Wish:
    """An object of an LVIS category."""
    return Wish(category.shape, HUES[category.hue][2], category.key, group=group, depicted=depicted)


def _draw_categories(
    rng: np.random.Generator, ranked: Sequence[MiniCategory], cumulative: np.ndarray, mean: float
) -> list[MiniCategory]:
    """Categories of one image: one plus a binomial number of draws, ``mean`` in the mean."""
    trials = max(1, round(2 * mean))
    count = 1 + int(np.count_nonzero(rng.random(trials) < (mean - 1) / trials))
    drawn: list[MiniCategory] = []
    for rank in pick(rng, cumulative, count):
        drawn.append(drawn[-1] if drawn and chance(rng, REPEAT) else ranked[rank])
    return drawn


def _cluster(rng: np.random.Generator, category: MiniCategory) -> list[Wish]:
    return [wish_for(category, group=1)] * int(rng.integers(5, 9))


def _extra(rng: np.random.Generator, shapes: Sequence[str]) -> list[Wish]:
    if shapes and chance(rng, EXTRA):
        return [Wish(shapes[int(rng.integers(len(shapes)))], None, None)]
    return []


def _make_certain(plan: Plan, categories: Sequence[MiniCategory], wanted: int, rng: np.random.Generator) -> None:
    """Mark or add certain objects in place: every category in ``wanted`` different images, evenly over the images."""
    load = np.zeros(len(plan), np.int64)
    shows: dict[int, list[int]] = {category.key: [] for category in categories}
    for index, wishes in enumerate(plan):
        for key in sorted({wish.key for wish in wishes if wish.key is not None and not wish.group}):
            shows[key].append(index)
    for category in sorted(categories, key=lambda c: (len(shows[c.key]), c.key)):
        natural = set(shows[category.key])
        # Images that show it anyway first, then those with the fewest certain objects; random among equals.
        order = sorted(
            (int(index) for index in rng.permutation(len(plan)) if load[index] < MAX_CERTAIN),
            key=lambda index: (index not in natural, load[index]),
        )
        for index in order[:wanted]:
            load[index] += 1
            wishes = plan[index]
            for position, wish in enumerate(wishes):
                if wish.key == category.key and not wish.group:
                    wishes[position] = replace(wish, certain=True)
                    break
            else:
                wishes.append(replace(wish_for(category), certain=True))


def plan_split(settings: MiniWorld, vocabulary: MiniVocabulary, split: str) -> Plan:
    """Wishes of each image of ``train``, ``val`` or ``test``.

    Train follows ``tail_ratio``, val and test the flatter ``val_tail_ratio``. Train and val guarantee images to every
    category; ``MiniWorld`` has checked that there are enough train images for one each.
    """
    images = {"train": settings.train_images, "val": settings.val_images, "test": settings.test_images}[split]
    ratio = settings.tail_ratio if split == "train" else settings.val_tail_ratio
    wanted = {"train": settings.min_train_images, "val": settings.min_val_images, "test": 0}[split]
    ranked = vocabulary.by_rank()
    head = settings.coco_matching if split == "train" else 0
    cumulative = geometric_weights(len(ranked), ratio, head, HEAD_BONUS)
    matching = [category.key for category in vocabulary.coco if category.key is not None]
    plan: Plan = []
    for index in range(images):
        rng = stream(settings.seed, "plan", split, index)
        wishes = [wish_for(c) for c in _draw_categories(rng, ranked, cumulative, settings.objects_per_image)]
        wishes += _extra(rng, vocabulary.coco_extra)
        if chance(rng, settings.crowd_fraction):
            wishes = wishes[:3] + _cluster(rng, vocabulary.categories[matching[int(rng.integers(len(matching)))]])
        plan.append(wishes)
    affordable = MAX_CERTAIN * images // len(ranked)
    _make_certain(plan, ranked, min(wanted, affordable), stream(settings.seed, "certain", split))
    return plan


def plan_openimages(settings: MiniWorld, vocabulary: MiniVocabulary) -> Plan:
    """Wishes of each image of the OpenImages analogue: mostly shared categories, a few that only LVIS has."""
    leaves = {entry.key for entry in vocabulary.openimages if entry.key is not None}
    shared = [category for category in vocabulary.by_rank() if category.key in leaves]
    others = [category for category in vocabulary.by_rank() if category.key not in leaves]
    cumulative = geometric_weights(len(shared), settings.openimages_tail_ratio)
    plan: Plan = []
    for index in range(settings.openimages_images):
        rng = stream(settings.seed, "plan", "openimages", index)
        wishes = [
            wish_for(c) for c in _draw_categories(rng, shared, cumulative, max(1.5, settings.objects_per_image - 2))
        ]
        if others and chance(rng, 0.4):
            wishes.append(wish_for(others[int(rng.integers(len(others)))]))
        wishes += _extra(rng, vocabulary.openimages_extra)
        if chance(rng, settings.group_fraction):
            wishes = wishes[:3] + _cluster(rng, shared[pick(rng, cumulative, 1)[0]])
        if chance(rng, settings.depiction_fraction):
            wishes = [*wishes[:-1], wish_for(shared[pick(rng, cumulative, 1)[0]], depicted=True)]
        plan.append(wishes)
    return plan
