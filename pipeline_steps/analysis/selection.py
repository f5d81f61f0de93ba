"""Which images show something: good and bad examples of each frequency group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline_steps.analysis.scenes import MISSED, Scene
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.evaluation.matching import FALSE, TRUE


@dataclass(frozen=True)
class Section:
    """Examples of one kind."""

    letter: str
    """Frequency group."""
    good: bool
    """Found well, or missed and mistaken."""
    image_ids: list[int]
    """Best examples first."""

    @property
    def title(self) -> str:
        """Heading."""
        return f"{GROUPS[self.letter].capitalize()} categories: {'found' if self.good else 'missed or mistaken'}"

    @property
    def anchor(self) -> str:
        """Name within the page."""
        return f"{GROUPS[self.letter]}-{'found' if self.good else 'missed'}"


Rankings = dict[tuple[str, bool], list[int]]
"""Image ids by how well they show each kind (frequency letter, good or bad), best first."""


def rank_scenes(scenes: Iterable[Scene]) -> Rankings:
    """Rank all images for each kind, in one pass; ties go by image id."""
    keys: dict[tuple[str, bool], list[tuple[float, int]]] = {(g, good): [] for g in GROUPS for good in (True, False)}
    for scene in scenes:
        for letter in GROUPS:
            found, missed, wrong = (scene.count(letter, verdict) for verdict in (TRUE, MISSED, FALSE))
            if found:
                keys[letter, True].append((found - 2.0 * (missed + wrong), scene.image.id))
            if missed or wrong:
                keys[letter, False].append((missed + 0.5 * wrong - 0.25 * found, scene.image.id))
    return {key: [image_id for _, image_id in sorted(v, key=lambda e: (-e[0], e[1]))] for key, v in keys.items()}


def choose_examples(rankings: Rankings, count: int) -> list[Section]:
    """At most ``count`` images, shared evenly by the six sections; none is shown twice.

    Rare groups choose first, because they have the fewest images to choose from.
    """
    chosen: dict[tuple[str, bool], list[int]] = {key: [] for key in rankings}
    used: set[int] = set()
    while len(used) < count:
        before = len(used)
        for key, ranking in rankings.items():
            free = next((image_id for image_id in ranking if image_id not in used), None)
            if free is not None and len(used) < count:
                chosen[key].append(free)
                used.add(free)
        if len(used) == before:
            break
    return [Section(letter, good, image_ids) for (letter, good), image_ids in chosen.items()]
