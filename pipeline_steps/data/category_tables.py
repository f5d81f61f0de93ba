"""Reviewed category tables: which COCO or OpenImages category is which LVIS category.

A table is a CSV file. Every row is a claim that a person has reviewed; nothing is matched by name at run time.

=============  ======================================================================================================
source_id      COCO category id, or OpenImages MID such as ``/m/0k4j``
source_name    its name, for the reader
lvis_synset    synset of the LVIS category (a category of another LVIS version may have another synset)
relation       ``equal``; ``narrower``: the source is a kind of the LVIS category; ``broader``: the other way round
verdict        ``use``, ``doubtful`` or ``no``; empty means not reviewed, and the table is refused
note           the reason
lvis_versions  optional: LVIS versions that have the synset, e.g. ``v0.5 v1``; without it every version must have it
=============  ======================================================================================================
"""

from __future__ import annotations

import graphlib
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import csv_records, require_file
from pipeline_steps.data.categories import GROUPS, CategoryList
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.base import LVIS_VERSIONS
from pipeline_steps.run.data_files import DatasetPaths

COLUMNS = ("source_id", "source_name", "lvis_synset", "relation", "verdict", "note")
VERSIONS_COLUMN = "lvis_versions"
RELATIONS = ("equal", "narrower", "broader")
VERDICTS = ("use", "doubtful", "no")
REPORTED_SHARED_CATEGORIES = 110
"""Categories that LVIS shares with OpenImages according to the paper, section 3.3; it does not list them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableRow:
    """One reviewed row; ``line`` is its line in the file."""

    line: int
    source_id: str
    source_name: str
    lvis_synset: str
    relation: str
    verdict: str
    note: str
    lvis_versions: tuple[str, ...] = ()

    def applies_to(self, lvis_version: str) -> bool:
        """Whether the row's synset belongs to this LVIS version."""
        return not self.lvis_versions or lvis_version in self.lvis_versions

    def __str__(self) -> str:
        return f"line {self.line} ({self.source_name} -> {self.lvis_synset})"


@dataclass(frozen=True)
class CategoryMapping:
    """The rows of a table that a recipe uses, for one LVIS category list."""

    rows: tuple[TableRow, ...]  # the rows, in file order
    lvis_ids: dict[str, int]  # LVIS category id by source id
    # sources that are equal to or broader than their LVIS category: an image without the source has none of the LVIS
    # category either. The absence of a narrower source says nothing.
    covering_sources: frozenset[str]
    # sources that are equal to or narrower than it: where the source is, the category is
    contained_sources: frozenset[str]

    def by_number(self) -> dict[int, int]:
        """LVIS category id by numeric source id (COCO)."""
        if wrong := [row for row in self.rows if not row.source_id.isdecimal()]:
            raise UserError(f"COCO category ids are whole numbers, not {listing(f'{r.source_id}, {r}' for r in wrong)}")
        return {int(source): lvis_id for source, lvis_id in self.lvis_ids.items()}

    def restricted_to(self, lvis_ids: Collection[int]) -> CategoryMapping:
        """The part of the mapping that leads to ``lvis_ids``."""
        kept = {source: lvis_id for source, lvis_id in self.lvis_ids.items() if lvis_id in lvis_ids}
        return CategoryMapping(
            rows=tuple(row for row in self.rows if row.source_id in kept),
            lvis_ids=kept,
            covering_sources=self.covering_sources & kept.keys(),
            contained_sources=self.contained_sources & kept.keys(),
        )

    @property
    def known_lvis_ids(self) -> list[int]:
        """Sorted LVIS ids that the source's vocabulary covers."""
        return sorted(set(self.lvis_ids.values()))


def _check_cells(rows: Iterable[TableRow], path: Path) -> None:
    unreviewed, wrong, repeated, unversioned = [], [], [], []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if not row.verdict:
            unreviewed.append(row)
        elif row.relation not in RELATIONS or row.verdict not in VERDICTS or not (row.source_id and row.lvis_synset):
            wrong.append(row)
        if not set(row.lvis_versions) <= set(LVIS_VERSIONS):
            unversioned.append(f"{row}: {' '.join(row.lvis_versions)}")
        if (row.source_id, row.lvis_synset) in seen:
            repeated.append(row)
        seen.add((row.source_id, row.lvis_synset))
    if unreviewed:
        raise UserError(
            f"{path}: rows without a verdict: {listing(unreviewed)}; review them and write use, doubtful or no"
        )
    if wrong:
        raise UserError(
            f"{path}: a row needs source_id, lvis_synset, a relation of {', '.join(RELATIONS)} and a verdict of "
            f"{', '.join(VERDICTS)}: {listing(wrong)}"
        )
    if unversioned:
        raise UserError(
            f"{path}: {VERSIONS_COLUMN} may name {' and '.join(LVIS_VERSIONS)} only: {listing(unversioned)}"
        )
    if repeated:
        raise UserError(f"{path}: duplicate rows: {listing(repeated)}")


def check_consistent(rows: Iterable[TableRow], origin: str, parents: dict[str, Collection[str]] | None = None) -> None:
    """Refuse claims that contradict each other. Rows with the verdict ``no`` claim nothing.

    ``rows`` are of one LVIS version; ``parents`` are the broader source categories of a source category, where the
    source has a hierarchy; ``origin`` names the file in messages.

    Raises:
        UserError: two sources equal to one LVIS category or the reverse, or a cycle: following "is a kind of" through
            relations and hierarchy leads back to the start.
    """
    claims = [row for row in rows if row.verdict != "no"]
    partner: dict[str, TableRow] = {}
    for row in claims:
        if row.relation == "equal":
            for key in (f"source {row.source_id}", f"synset {row.lvis_synset}"):
                if key in partner:
                    raise UserError(f"{origin}: {row} and {partner[key]} cannot both be equal")
                partner[key] = row

    def node(key: str) -> str:
        """Equal source and synset are one node."""
        return f"synset {partner[key].lvis_synset}" if key in partner else key

    broader_than: defaultdict[str, set[str]] = defaultdict(set)
    for row in claims:
        source, synset = node(f"source {row.source_id}"), node(f"synset {row.lvis_synset}")
        if row.relation == "narrower":
            broader_than[source].add(synset)
        elif row.relation == "broader":
            broader_than[synset].add(source)
    for child, above in (parents or {}).items():
        broader_than[node(f"source {child}")].update(node(f"source {parent}") for parent in above)
    try:
        graphlib.TopologicalSorter(broader_than).prepare()
    except graphlib.CycleError as error:
        raise UserError(
            f"{origin}: circular hierarchy, each is a kind of the next: {' > '.join(error.args[1])}"
        ) from None


def parse_rows(path: str | Path) -> list[TableRow]:
    """The rows of a table file as they stand, reviewed or not.

    Raises:
        UserError: the file or a column is missing, or a row has another number of cells.
    """
    path = require_file(path, "category table", "see data.coco_to_lvis and data.openimages_to_lvis in the recipe")
    rows = []
    for line, cells in csv_records(path, COLUMNS, [VERSIONS_COLUMN]):
        versions = tuple(cells.get(VERSIONS_COLUMN, "").split())
        rows.append(TableRow(line, **{column: cells[column] for column in COLUMNS}, lvis_versions=versions))
    return rows


def read_category_table(path: str | Path) -> list[TableRow]:
    """Read and check a category table.

    Raises:
        UserError: missing columns, unreviewed rows, unknown relations or verdicts, rows that occur twice or contradict
            each other.
    """
    path = Path(path)
    rows = parse_rows(path)
    _check_cells(rows, path)
    for version in sorted({version for row in rows for version in row.lvis_versions}) or ["any version"]:
        check_consistent([row for row in rows if row.applies_to(version)], f"{path} ({version})")
    return rows


def map_categories(
    rows: Iterable[TableRow],
    categories: CategoryList,
    lvis_version: str,
    relations: Collection[str],
    verdicts: Collection[str],
    origin: str = "category table",
) -> CategoryMapping:
    """The mapping that the selected rows give for one LVIS category list, by synset.

    Args:
        rows: a checked table; ``origin`` names it in messages.
        categories: LVIS categories of the data in use.
        lvis_version: ``v0.5`` or ``v1``; rows for other versions are left out.
        relations, verdicts: those to use.

    A source with several selected rows stands for its closest LVIS category: equal before narrower before broader.

    Raises:
        UserError: a row names a synset that is not in ``categories``; a source has two selected rows of one relation.
    """
    by_synset: defaultdict[str, list[int]] = defaultdict(list)
    for category in categories.categories:
        by_synset[category.synset].append(category.id)
    applicable = [row for row in rows if row.applies_to(lvis_version)]
    unknown = [row for row in applicable if len(by_synset.get(row.lvis_synset, ())) != 1]
    if unknown:
        raise UserError(
            f"{origin}: not exactly one category of {categories.origin} has the synset of {listing(unknown)}"
        )
    closest: dict[str, TableRow] = {}
    for row in sorted(applicable, key=lambda row: RELATIONS.index(row.relation)):
        if row.relation not in relations or row.verdict not in verdicts:
            continue
        other = closest.setdefault(row.source_id, row)
        if other is not row and other.relation == row.relation:
            raise UserError(
                f"{origin}: with relations {', '.join(relations)} and verdicts {', '.join(verdicts)}, "
                f"{row.source_name} ({row.source_id}) stands for two LVIS categories: {other} and {row}"
            )
    used = tuple(sorted(closest.values(), key=lambda row: row.line))
    return CategoryMapping(
        rows=used,
        lvis_ids={row.source_id: by_synset[row.lvis_synset][0] for row in used},
        covering_sources=frozenset(row.source_id for row in used if row.relation != "narrower"),
        contained_sources=frozenset(row.source_id for row in used if row.relation != "broader"),
    )


def load_mapping(recipe: Recipe, source: Literal["coco", "openimages"], categories: CategoryList) -> CategoryMapping:
    """The category mapping of a recipe; prints how many categories it shares.

    ``categories`` are those of LVIS in the data in use.
    """
    paths = DatasetPaths(recipe)
    if source == "coco":
        path, relations, verdicts = paths.coco_table, recipe.data.coco_relations, recipe.data.coco_verdicts
        groups: Collection[str] = GROUPS
    else:
        settings = recipe.data.openimages
        path, relations, verdicts = paths.openimages_table, settings.relations, settings.verdicts
        groups = settings.frequency_groups
    mapping = map_categories(
        read_category_table(path), categories, recipe.lvis_version, relations, verdicts, origin=str(path)
    )
    if len(groups) < len(GROUPS):
        mapping = mapping.restricted_to(set(categories.ids[np.isin(categories.frequencies, list(groups))].tolist()))
    beside = f" (the paper: {REPORTED_SHARED_CATEGORIES})" if source == "openimages" else ""
    log.info(
        "%s: %d source categories stand for %d LVIS categories%s; relations %s, verdicts %s, groups %s",
        *(path.name, len(mapping.lvis_ids), len(mapping.known_lvis_ids), beside),
        *("+".join(names) for names in (relations, verdicts, groups)),
    )
    return mapping
