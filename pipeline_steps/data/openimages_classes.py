"""The boxable classes of OpenImages: names by MID, and the "is a kind of" hierarchy between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import csv_rows, read_json, require_file

REMEDY = "download OpenImages, or set data.openimages.enabled to false"


@dataclass(frozen=True)
class Vocabulary:
    """Boxable classes."""

    names: dict[str, str]  # display name by MID
    parents: dict[str, tuple[str, ...]]  # MIDs of the next broader classes by MID; classes at the top have no entry

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        """MIDs of the next narrower classes by MID."""
        children: defaultdict[str, list[str]] = defaultdict(list)
        for child, parents in self.parents.items():
            for parent in parents:
                children[parent].append(child)
        return {parent: tuple(sorted(found)) for parent, found in children.items()}

    @staticmethod
    def _closure(starts: Iterable[str], step: dict[str, tuple[str, ...]]) -> frozenset[str]:
        found, waiting = set(), list(starts)
        while waiting:
            mid = waiting.pop()
            if mid not in found:
                found.add(mid)
                waiting.extend(step.get(mid, ()))
        return frozenset(found)

    def with_ancestors(self, mid: str) -> frozenset[str]:
        """``mid`` and everything that it is a kind of."""
        return self._closure([mid], self.parents)

    def with_descendants(self, mid: str) -> frozenset[str]:
        """``mid`` and everything that is a kind of it."""
        return self._closure([mid], self.children)


def _walk(node: Any, parent: str | None, parents: defaultdict[str, set[str]], path: Path) -> None:
    if not isinstance(node, dict) or not isinstance(node.get("LabelName"), str):
        raise UserError(f"{path}: expected nested objects with LabelName and Subcategory")
    name = node["LabelName"]
    if not all(isinstance(node.get(key, []), list) for key in ("Subcategory", "Part")):
        raise UserError(f"{path}: Subcategory and Part of {name} must be lists")
    if parent is not None:
        parents[name].add(parent)
    for child in node.get("Subcategory", []):
        _walk(child, name, parents, path)
    for part in node.get("Part", []):  # a part of something is no kind of it
        _walk(part, None, parents, path)


def class_numbers(mids: Iterable[str]) -> dict[str, int]:
    """OpenImages' own category ids: place of each class in the class descriptions, from 1, by MID."""
    return {mid: number for number, mid in enumerate(mids, start=1)}


def read_class_names(classes: str | Path) -> dict[str, str]:
    """Read ``class-descriptions-boxable.csv`` (no header: MID, name): names by MID, in the order of the file.

    Raises:
        UserError: the file is missing or damaged, or a MID occurs twice.
    """
    classes = require_file(classes, "OpenImages class descriptions", REMEDY)
    names: dict[str, str] = {}
    repeated = []
    for number, cells in csv_rows(classes):
        if len(cells) != 2 or not cells[0]:
            raise UserError(f"{classes}: line {number} is not MID,name: {','.join(cells)!r:.80}")
        if cells[0] in names:
            repeated.append(cells[0])
        names[cells[0]] = cells[1]
    if repeated or not names:
        raise UserError(f"{classes}: {'duplicate MIDs: ' + listing(repeated) if repeated else 'no classes'}")
    return names


def read_vocabulary(classes: str | Path, hierarchy: str | Path) -> Vocabulary:
    """Read ``class-descriptions-boxable.csv`` and ``bbox_labels_600_hierarchy.json``.

    Raises:
        UserError: a file is missing or damaged, a MID occurs twice, or the hierarchy goes round in a circle.
    """
    names = read_class_names(classes)
    hierarchy = Path(hierarchy)
    found: defaultdict[str, set[str]] = defaultdict(set)
    _walk(read_json(hierarchy, "OpenImages hierarchy", REMEDY), None, found, hierarchy)
    # The root "Entity" (/m/0bl9f) is no boxable class.
    parents = {
        mid: tuple(sorted(parent for parent in above if parent in names))
        for mid, above in found.items()
        if mid in names
    }
    vocabulary = Vocabulary(names, {mid: above for mid, above in parents.items() if above})
    circular = [
        mid for mid in vocabulary.parents if mid in vocabulary._closure(vocabulary.parents[mid], vocabulary.parents)
    ]
    if circular:
        raise UserError(f"{hierarchy}: circular hierarchy: {listing(sorted(circular))}")
    return vocabulary
