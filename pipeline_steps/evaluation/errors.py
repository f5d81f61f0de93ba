"""Which errors cost how much AP: TIDE in the federated protocol.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", section 2, as the reference package
tidecv has it: every wrong detection has one of five errors, every object that nothing explains is missed, and the cost
of an error is the gain in AP50 if it alone is fixed. Here only detections that the data can call wrong have errors:
those of a category that is annotated in their image or verified to be absent, and not those that are unmatched where
a category is not exhaustively annotated.

======================  ==========================================  ==============================================
error                   what it is (IoU with objects)               what fixes it
======================  ==========================================  ==============================================
localisation            its category: 0.1 to 0.5                    it matches that object
classification          another category: at least 0.5              it gets that category and matches
duplicate               its category: at least 0.5, object taken    it goes
background              nothing above 0.1                           it goes
both                    the rest: another category, 0.1 to 0.5      it goes
missed                  an object without match, which no           it does not count
                        detection of the first two would match
======================  ==========================================  ==============================================

The first line that holds decides. Of several detections that would match one object the highest score does, the others
go; an object that is matched already is matched by none. Near-synonyms are the classification errors between categories
that share a parent (:mod:`pipeline_steps.data.category_parents`).

Symbols: m detections, g objects, C categories.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pipeline_steps.evaluation.bootstrap import group_means
from pipeline_steps.evaluation.ground_truth import FREQUENCIES, GroundTruth
from pipeline_steps.evaluation.matched import MatchedDetections, precision_at_recalls

BACKGROUND_IOU = 0.1  # TIDE's lower threshold; the upper one is 0.5

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""Names of the errors; positions are the codes of the first five."""

NEAR_SYNONYM = "near_synonym"  # classification errors between categories that share a parent
CONFUSIONS = 50  # pairs of categories in the list of confusions at most


def error_codes(false: np.ndarray, same: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The error of each detection: int8[m], position in :data:`ERRORS`, -1 for none.

    Args:
        false: bool[m], wrong at IoU 0.5.
        same: float64[m], greatest IoU with an object of its category, taken or not.
        other: float64[m], greatest IoU with an object of another category.
    """
    cases = [
        ~false,
        (same >= BACKGROUND_IOU) & (same <= 0.5),
        other >= 0.5,
        same >= 0.5,
        np.maximum(same, other) <= BACKGROUND_IOU,
    ]
    names = ("localisation", "classification", "duplicate", "background")
    return np.select(cases, [-1, *map(ERRORS.index, names)], ERRORS.index("both")).astype(np.int8)


@dataclass(frozen=True)
class ErrorAnalysis:
    """Errors of the detections that count for AP."""

    table: MatchedDetections  # matched with ``least`` = BACKGROUND_IOU
    frequencies: np.ndarray  # letters of the C categories, "" for those that do not count
    related: np.ndarray | None = None  # bool[C, C], pairs that share a parent; None if parents are not known

    @cached_property
    def codes(self) -> np.ndarray:
        """int8[m], see :func:`error_codes`."""
        return error_codes(self.table.at(0)[1], *self.table.best)

    @cached_property
    def used(self) -> np.ndarray:
        """bool[g], objects that are matched."""
        used = np.zeros(len(self.table.objects.images), bool)
        used[self.table.targets[self.table.targets >= 0]] = True
        return used

    @cached_property
    def aims(self) -> np.ndarray:
        """int64[m], the object that a classification or localisation error is about, or -1."""
        same, other = self.table.best_objects
        return np.select([self.codes == ERRORS.index("localisation"), self.codes == 0], [same, other], -1)

    @cached_property
    def fixed(self) -> np.ndarray:
        """bool[m], detections that match their aim once their error is fixed: the highest score of each free one."""
        rows = np.flatnonzero((self.aims >= 0) & ~self.used[self.aims])
        rows = rows[np.lexsort((self.table.rows[rows], -self.table.scores[rows]))]
        fixed = np.zeros(len(self.table), bool)
        fixed[rows[np.unique(self.aims[rows], return_index=True)[1]]] = True
        return fixed

    @cached_property
    def missed(self) -> np.ndarray:
        """bool[g], objects that are neither matched nor the aim of an error."""
        missed = ~self.used & ~self.table.objects.crowd
        missed[self.aims[self.aims >= 0]] = False
        return missed

    @cached_property
    def near_synonyms(self) -> np.ndarray:
        """bool[m], classification errors between related categories."""
        chosen = self.codes == 0
        if self.related is not None:
            chosen &= self.related[self.table.categories, self.table.objects.categories[self.aims]]
        return chosen & (self.related is not None)

    def _aps(self, chosen: np.ndarray, counts: np.ndarray | None = None) -> list[float]:
        """AP50 over all categories and by group if the chosen errors, bool[m], are fixed; under other counts."""
        table, moved = self.table, np.flatnonzero(chosen & self.fixed)
        true, false = table.at(0)
        categories = table.categories.copy()
        categories[moved] = table.objects.categories[self.aims[moved]]
        true[moved] = True
        false &= ~chosen
        kept = np.flatnonzero(true | false)
        if (categories[moved] != table.categories[moved]).any():
            kept = kept[np.lexsort((table.rows[kept], table.images[kept], -table.scores[kept], categories[kept]))]
        bounds = np.searchsorted(categories[kept], np.arange(table.shape[1] + 1))
        true, false = true[kept], false[kept]
        counts = table.object_counts if counts is None else counts
        aps = np.where((table.object_counts > 0) & (self.frequencies != ""), 0.0, -1.0)
        for category in np.flatnonzero((aps == 0) & (counts > 0)):
            part = slice(*bounds[category : category + 2])
            aps[category] = precision_at_recalls(true[part], false[part], counts[category]).mean()
        return group_means(aps, self.frequencies)

    def summary(self) -> dict[str, Any]:
        """AP50 and its costs by group, as metrics files hold them; None where a group has no objects.

        ``count``: detections by the group of their category, for ``missed`` objects. ``none_left``: categories of which
        every object is missed; nothing is left to rank there, and they stay at 0 as in the reference package.
        """
        none = np.zeros(len(self.table), bool)
        counts = np.bincount(self.table.objects.categories[self.missed], minlength=self.table.shape[1])
        left = self.table.object_counts - counts
        base = self._aps(none)
        chosen = {name: self.codes == code for code, name in enumerate(ERRORS[:-1])}
        chosen |= {NEAR_SYNONYM: self.near_synonyms} if self.related is not None else {}
        after = {name: self._aps(rows) for name, rows in chosen.items()} | {"missed": self._aps(none, left)}
        groups = {"all": FREQUENCIES, **{letter: (letter,) for letter in FREQUENCIES}}
        members = {name: np.isin(self.frequencies, letters) for name, letters in groups.items()}
        summary: dict[str, Any] = {}
        for k, (name, own) in enumerate(members.items()):
            if np.isnan(base[k]):
                summary[name] = None
                continue
            tally = {e: int(own[self.table.categories[rows]].sum()) for e, rows in chosen.items()}
            tally |= {"missed": int(counts[own].sum())}
            summary[name] = {
                "AP50": round(base[k], 4),
                "none_left": int((own & (left == 0) & (counts > 0)).sum()),
                "errors": {e: {"cost": round(after[e][k] - base[k], 4), "count": tally[e]} for e in after},
            }
        return summary

    def confusions(self, truth: GroundTruth) -> list[dict[str, Any]]:
        """Pairs of categories that are taken for each other, worst first: at most :data:`CONFUSIONS`.

        A pair weighs as much as the highest scores of the wrong category on its objects add up to: hundreds of
        detections with a score of 0.01 are one doubt, not hundreds. ``objects``: how many, ``not_found``: those of
        them without a match. The example is the object with the highest score.
        """
        table, rows = self.table, np.flatnonzero(self.codes == 0)
        rows = rows[np.argsort(-table.scores[rows], kind="stable")]
        objects = table.objects
        frame = pd.DataFrame(
            {
                "true": objects.categories[self.aims[rows]],
                "predicted": table.categories[rows],
                "object": self.aims[rows],
                "score": table.scores[rows],
                "near_synonym": self.near_synonyms[rows],
                "not_found": ~self.used[self.aims[rows]],
            }
        ).drop_duplicates(["object", "predicted"])
        pairs = frame.groupby(["true", "predicted"], sort=False).agg(
            objects=("object", "size"),
            not_found=("not_found", "sum"),
            weight=("score", "sum"),
            near_synonym=("near_synonym", "first"),
            score=("score", "first"),
            object=("object", "first"),
        )
        pairs = pairs.sort_values("weight", ascending=False, kind="stable").head(CONFUSIONS).reset_index()
        found = []
        for pair in pairs.to_dict("records"):
            example = truth.annotations[objects.records[pair["object"]]]
            entry = {side: truth.categories[pair[side]]["id"] for side in ("true", "predicted")}
            entry |= {f"{side}_name": truth.categories[pair[side]].get("name", "") for side in ("true", "predicted")}
            entry |= {"near_synonym": None if self.related is None else bool(pair["near_synonym"])}
            entry |= {key: int(pair[key]) for key in ("objects", "not_found")}
            entry |= {key: round(float(pair[key]), 4) for key in ("weight", "score")}
            found.append({**entry, "image_id": example["image_id"], "annotation_id": example["id"]})
        return found


def related_categories(parents: Sequence[frozenset[str]]) -> np.ndarray:
    """Which categories share a parent, bool[C, C]; none is related to itself."""
    names = sorted({parent for group in parents for parent in group})
    place = {name: k for k, name in enumerate(names)}
    has = np.zeros((len(parents), len(names)), np.float32)
    for row, group in zip(has, parents):
        row[[place[parent] for parent in group]] = 1
    return (has @ has.T > 0) & ~np.eye(len(parents), dtype=bool)
