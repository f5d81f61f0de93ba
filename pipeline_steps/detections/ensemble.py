"""The re-scored ensemble: members' boxes merged per category, ranked by score and frequency, capped per image.

Decisions where the paper (section 5) is silent:

- A member's scores are multiplied by its weight divided by the largest weight, so that equal weights change nothing and
  alpha keeps its meaning. (ensemble-boxes divides by the sum: the same order, all scores smaller.) Weighted-box fusion
  is normalised by the sum of weights already and takes the weights as they are.
- In weighted-box fusion a cluster's score is lowered for members that did not find it; only members that know the
  category count. An expert of 78 categories lowers nothing elsewhere.
- ``score`` in the table is the score after weights and fusion, ``rank_score`` adds alpha to it. With NMS and equal
  weights ``score`` is the member's own. ``source`` of a fused box is the member of the cluster's best box.
- Boxes without area are left out before merging, as ensemble-boxes does: they have no mask and the evaluator would drop
  them after they took a place under the cap.
- Among equal scores the member that the recipe names first goes first.

Symbols: n detections of all members of one image; own id: category id of the data set a member was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.detections import fusion
from pipeline_steps.detections.record import ImageDetections
from pipeline_steps.detections.rescoring import keep_top, rank_scores
from pipeline_steps.detections.table import TableReader
from pipeline_steps.recipe.testing import Ensemble


@dataclass(frozen=True)
class EnsembleMember:
    """One member of the ensemble: its boxes and the weight of its scores."""

    name: str
    table: TableReader
    lvis_ids: Mapping[int, int]
    """LVIS category id by own id. Detections of others are left out for an expert, and an error for an LVIS model."""
    expert: bool = False
    """Whether it was trained on another data set."""
    weight: float = 1.0


def check_members(members: Sequence[EnsembleMember], split: str) -> None:
    """Refuse tables that were not written for this ensemble.

    Raises:
        UserError: a table says that it is of another split or another model; two tables were predicted from different
            annotation files, or share no image.
    """
    origins: dict[str, EnsembleMember] = {}
    for member in members:
        arguments = member.table.metadata.get("arguments") or {}
        for key, expected in (("split", split), ("model", member.name)):
            if arguments.get(key, expected) != expected:
                raise UserError(
                    f"member {member.name}: {member.table.path} was written for {key} {arguments[key]!r}, "
                    f"not {expected!r}: give the table of that {key}"
                )
        digest = (member.table.metadata.get("inputs") or {}).get("annotations")
        if digest is not None:
            origins.setdefault(digest, member)
    if len(origins) > 1:
        first, second, *_ = origins.values()
        raise UserError(
            f"{first.table.path} ({first.name}) and {second.table.path} ({second.name}) were predicted from different "
            "annotation files: one of them belongs to another data set or version; predict it again"
        )
    filled = [member for member in members if member.table.image_ids]
    if not filled:
        raise UserError(f"none of the members' tables has a detection ({listing(m.table.path for m in members)})")
    reference = max(filled, key=lambda member: len(member.table.image_ids))
    for member in filled:
        if set(reference.table.image_ids).isdisjoint(member.table.image_ids):
            raise UserError(
                f"{member.table.path} ({member.name}) and {reference.table.path} ({reference.name}) have no image in "
                "common: one of them belongs to another split or data set"
            )


class EnsembleMerger:
    """Merges the members' detections image by image; memory does not grow with the number of images.

    Args:
        members: in the recipe's order.
        alphas: :func:`pipeline_steps.detections.rescoring.alpha_by_category`.
        keep: detections kept per image.

    Attributes:
        used, unmapped: number of detections by member name that took part, and that have no LVIS category.
    """

    def __init__(self, members: Sequence[EnsembleMember], settings: Ensemble, alphas: np.ndarray, keep: int) -> None:
        self.members, self.settings, self.alphas, self.keep = members, settings, alphas, keep
        self._lookup = [_lookup_table(member.lvis_ids) for member in members]
        weights = np.array([member.weight for member in members])
        self._factors = weights if settings.fusion == "wbf" else weights / weights.max()
        knows = np.zeros((len(members), len(alphas)), bool)
        for row, member in zip(knows, members):
            row[list(member.lvis_ids.values())] = True
        self._member_count = knows.sum(axis=0)
        self._total_weight = weights @ knows
        self.used = dict.fromkeys((member.name for member in members), 0)
        self.unmapped = dict(self.used)

    @property
    def image_ids(self) -> list[int]:
        """Ids of all images in which some member has detections, ascending: the order of the merged table."""
        return sorted(set().union(*(member.table.image_ids for member in self.members)))

    def __iter__(self) -> Iterator[ImageDetections]:
        return (self.merge_image(image_id) for image_id in self.image_ids)

    def _read(self, member: EnsembleMember, lookup: np.ndarray, image_id: int) -> ImageDetections:
        """A member's detections in LVIS categories, boxes without area left out."""
        own = member.table.image(image_id)
        inside = (own.category_ids >= 0) & (own.category_ids < len(lookup))
        lvis_ids = np.where(inside, lookup[np.where(inside, own.category_ids, 0)], -1).astype(np.int32)
        mapped = lvis_ids >= 0
        if not member.expert and not mapped.all():
            raise UserError(
                f"member {member.name}: {member.table.path} has categories that the data set does not have "
                f"({listing(np.unique(own.category_ids[~mapped]).tolist())}) in image {image_id}; is it the "
                "table of an expert or of another LVIS version?"
            )
        self.used[member.name] += int(mapped.sum())
        self.unmapped[member.name] += int((~mapped).sum())
        x1, y1, x2, y2 = own.boxes.T
        taken = mapped & (x2 > x1) & (y2 > y1)
        return ImageDetections(
            image_id, lvis_ids[taken], own.scores[taken], own.scores[taken], own.boxes[taken],
            member.name,  # type: ignore[arg-type]  # one name for all
        )  # fmt: skip

    def merge_image(self, image_id: int) -> ImageDetections:
        """Merged, re-scored and capped detections of one image, in the table's order; without masks."""
        parts = [self._read(member, lookup, image_id) for member, lookup in zip(self.members, self._lookup)]
        boxes = np.concatenate([part.boxes for part in parts]).astype(np.float64)
        scores = np.concatenate([part.scores * factor for part, factor in zip(parts, self._factors)], dtype=np.float64)
        categories = np.concatenate([part.category_ids for part in parts])
        sources = np.concatenate([part.sources for part in parts])
        merged = self._fuse(boxes, scores, categories)
        final = merged.scores.astype(np.float32)
        ranks = rank_scores(final, categories[merged.index], self.alphas)
        top = keep_top(final, ranks, self.keep)
        index = merged.index[top]
        return ImageDetections(image_id, categories[index], final[top], ranks[top], merged.boxes[top], sources[index])

    def _fuse(self, boxes: np.ndarray, scores: np.ndarray, categories: np.ndarray) -> fusion.Merged:
        settings = self.settings
        if settings.fusion == "nms":
            return fusion.nms(boxes, scores, categories, settings.iou)
        if settings.fusion == "soft_nms":
            return fusion.soft_nms(boxes, scores, categories, settings.soft_nms_sigma)
        fused = fusion.weighted_fusion(boxes, scores, categories, settings.iou, self._member_count, self._total_weight)
        if len(boxes) == 0:
            return fused
        # A weighted average can leave the range of its terms by a rounding error, and with it the image.
        return fused._replace(boxes=fused.boxes.clip(boxes.min(axis=0), boxes.max(axis=0)))


def _lookup_table(lvis_ids: Mapping[int, int]) -> np.ndarray:
    """int64[largest own id + 1 (at least 1)]: LVIS id by own id, -1 without one."""
    table = np.full(max(lvis_ids, default=0) + 1, -1, np.int64)
    table[list(lvis_ids)] = list(lvis_ids.values())
    return table
