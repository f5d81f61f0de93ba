"""What is wrong with a results file: kinds of violation, counts, examples and consequences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

IouType = Literal["segm", "bbox"]
EXAMPLES = 5

_IGNORES_MASK = "never matches an object of the image: a false positive"

CONSEQUENCES = {
    "archive": ("zip archive", "cannot be opened by the server"),
    "truncated": ("truncated file", "cannot be read: nothing is evaluated"),
    "syntax": ("not JSON", "cannot be read: nothing is evaluated"),
    "not_list": ("not a list", "refused: 'results is not a list'"),
    "empty": ("empty list", "the evaluator stops with IndexError"),
    "not_object": ("result that is not an object", "the evaluator stops with TypeError"),
    "missing_key": ("missing key", "the evaluator stops with KeyError"),
    "missing_bbox": ("mask without the bbox that the first result has", "the evaluator stops with KeyError: 'bbox'"),
    "wrong_type": ("value of the wrong type", "the evaluator stops, or the result counts nowhere"),
    "unknown_image": ("unknown image id", "the whole file is refused: 'Results do not correspond to current LVIS set'"),
    "unknown_category": ("unknown category id", "not evaluated, but counts towards the limit per image"),
    "nan_score": ("score is NaN", "cannot be ranked: limit and precision become arbitrary, without any message"),
    "infinite_score": ("score is infinite", "ranks before or after all others"),
    "polygon": ("polygons instead of compressed RLE", "the evaluator stops (results are read as compressed RLE only)"),
    "uncompressed_rle": ("uncompressed RLE", "the evaluator stops (results are read as compressed RLE only)"),
    "wrong_size": ("mask size is not the image's", _IGNORES_MASK),
    "broken_rle": ("RLE whose runs are malformed or do not add up to its size", "decoded to an arbitrary mask"),
    "empty_mask": ("empty mask", "dropped, but counts towards the limit per image"),
    "no_area": ("box without area", "dropped, but counts towards the limit per image"),
    "over_cap": ("more results for an image than the limit", "those with the lowest scores are dropped"),
}
"""By kind of violation: its name, and what the evaluator does with it."""

NOTES = {
    "repeated": "results repeat another one (image, category, shape): false positives that count towards the limit",
    "bbox_beside_mask": "results have a bbox beside the mask: if the first result has one, areas (and AP by size) are "
    "taken from the boxes",
    "outside": "boxes extend beyond their image by more than a pixel: accepted as they are",
}
"""Legal, but perhaps not meant. A repeat is no violation: small masks of different boxes may come out the same."""


@dataclass
class ResultsReport:
    """What was found in a results file."""

    path: Path
    iou_type: IouType
    images_expected: int
    results: int = 0
    images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Number of violations by kind."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """The first examples by kind."""

    @property
    def valid(self) -> bool:
        """Whether there is no violation; notes do not count."""
        return not any(kind in CONSEQUENCES for kind in self.counts)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count a violation or note of a kind."""
        self.counts[kind] += count
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(example)

    def text(self) -> str:
        """The report as lines for people."""
        lines = [
            f"{self.path}: {self.results:,} results ({self.iou_type}) for {self.images:,} of "
            f"{self.images_expected:,} images: {'valid' if self.valid else 'INVALID'}"
        ]
        for kind, (name, consequence) in CONSEQUENCES.items():
            if kind in self.counts:
                lines += [
                    f"  {name}: {self.counts[kind]:,}",
                    f"    e.g. {'; '.join(self.examples[kind])}",
                    f"    evaluator: {consequence}",
                ]
        for kind, note in NOTES.items():
            if kind in self.counts:
                lines.append(f"  note: {self.counts[kind]:,} {note} (e.g. {'; '.join(self.examples[kind])})")
        return "\n".join(lines)
