"""Which images show something: good and bad examples of each frequency group, and stories for a few pictures."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pycocotools import mask as mask_utils

from pipeline_steps.analysis.scenes import MATCH_IOU, MISSED, Scene
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.evaluation.matching import FALSE, TRUE


@dataclass(frozen=True)
class ExampleGroup:
    """Examples of one kind."""

    letter: str  # frequency group
    good: bool  # found well, or missed and mistaken
    image_ids: list[int]  # best examples first

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


def choose_examples(rankings: Rankings, count: int) -> list[ExampleGroup]:
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
    return [ExampleGroup(letter, good, image_ids) for (letter, good), image_ids in chosen.items()]


@dataclass(frozen=True)
class Story:
    """An image with a message: one object and what became of it."""

    title: str  # the message
    clarity: float  # how well the image shows it
    scene: Scene
    truth: int  # the object, by its position in the scene; -1: no object in particular
    detection: int | None = None  # what was said of it, by its position in the scene


def _kind(name: str) -> str:
    """What siblings share, the last word of their names: ``table`` of ``coffee_table`` and ``kitchen_table``."""
    return re.split(r"[\W_]+", name.partition("(")[0].strip(" _").lower())[-1]


def _stories(scene: Scene) -> Iterator[tuple[str, Story]]:
    """All stories of an image by kind: a rare object found, a rare one missed, siblings confused."""
    finders = {found: k for k, found in enumerate(scene.matches[0].tolist()) if found >= 0}
    boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (shape.box for shape in scene.detections)]
    for position, truth in enumerate(scene.truths):
        x1, y1, x2, y2 = truth.box
        size = (x2 - x1) * (y2 - y1) / (scene.image.width * scene.image.height)
        clarity = min(size, 0.05) * 10 - 0.02 * len(scene.truths)  # large, and not in a crowd
        if truth.verdict == TRUE and truth.letter == "r":
            finder = finders[position]
            title = f"A rare object is found: {truth.name}"
            yield "found", Story(title, clarity + (scene.detections[finder].score or 0), scene, position, finder)
        elif truth.verdict == MISSED:
            overlaps = mask_utils.iou(boxes, [[x1, y1, x2 - x1, y2 - y1]], [0])[:, 0].tolist() if boxes else []
            on_it = [k for k, overlap in enumerate(overlaps) if overlap >= MATCH_IOU]
            if not on_it and truth.letter == "r":
                yield "missed", Story(f"A rare object is missed: {truth.name}", clarity, scene, position)
            for k in on_it:
                said = scene.detections[k]
                if (
                    said.verdict == FALSE
                    and said.category_id != truth.category_id
                    and _kind(said.name) == _kind(truth.name)
                ):
                    title = f"Siblings are confused: {truth.name} is taken for {said.name}"
                    yield "confused", Story(title, clarity + (said.score or 0), scene, position, k)


def choose_stories(scenes: Iterable[Scene]) -> list[list[Story]]:
    """Stories of each kind, the clearest first; ties go by image id."""
    kinds: dict[str, list[Story]] = {"found": [], "missed": [], "confused": []}
    for scene in scenes:
        for kind, story in _stories(scene):
            kinds[kind].append(story)
    return [sorted(stories, key=lambda s: (-s.clarity, s.scene.image.id)) for stories in kinds.values()]
