"""Federated labels: of what a picture shows, LVIS annotates some categories and verifies the absence of some others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline_steps.mini_world.randomness import chance
from pipeline_steps.mini_world.scene import DrawnScene
from pipeline_steps.mini_world.vocabulary import MiniVocabulary


@dataclass(frozen=True)
class Rates:
    """Probabilities of one split. ``sibling_negative``: for categories of a shape that is shown in another hue."""

    annotated: float
    not_exhaustive: float
    negative: float
    sibling_negative: float


@dataclass(frozen=True)
class Labels:
    """LVIS labels of one picture."""

    annotated: list[int]  # positions in ``scene.objects`` of the annotated objects
    negative: list[int]  # 0-based categories verified to be absent, sorted
    not_exhaustive: list[int]  # 0-based annotated categories of which some objects are not annotated, sorted


def federate(scene: DrawnScene, vocabulary: MiniVocabulary, rates: Rates, rng: np.random.Generator) -> Labels:
    """Choose what LVIS says about ``scene``.

    A category is annotated with probability ``rates.annotated``, and always if the picture was made for it. Categories
    with a cluster, and some others with several objects, are annotated in part and listed as not exhaustive. Only
    absent categories become negatives, those that are easily mistaken (siblings) more often.
    """
    objects = scene.objects
    annotated: list[int] = []
    not_exhaustive: list[int] = []
    for key in sorted(scene.present):
        own = [k for k, item in enumerate(objects) if item.wish.key == key]
        certain = any(objects[k].wish.certain for k in own)
        if not (chance(rng, rates.annotated) or certain):
            continue
        clustered = any(objects[k].wish.group for k in own)
        if len(own) > 1 and (clustered or chance(rng, rates.not_exhaustive)):
            # The certain object stays; of the rest, at least one is left out.
            own.sort(key=lambda k: not objects[k].wish.certain)
            own = own[: max(1, len(own) // 2 if clustered else len(own) - 1)]
            not_exhaustive.append(key)
        annotated += own
    present = scene.present
    shapes = {vocabulary.categories[key].shape for key in present}
    negative = [
        category.key
        for category in vocabulary.categories
        if category.key not in present
        and chance(rng, rates.sibling_negative if category.shape in shapes else rates.negative)
    ]
    return Labels(sorted(annotated), negative, not_exhaustive)
