"""Candidate rows for the category tables, from names, synonyms, plurals, spaces and hierarchy; people then review them.

Candidates are never used by themselves: a row without a verdict makes a table unreadable for the pipeline. Nothing
here runs when a recipe runs.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import csv_text
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.category_tables import COLUMNS, VERSIONS_COLUMN, TableRow, parse_rows
from pipeline_steps.data.openimages_classes import Vocabulary
from pipeline_steps.data.records import Category

log = logging.getLogger(__name__)

_IRREGULAR = {"knives": "knife", "shelves": "shelf", "mice": "mouse", "geese": "goose", "leaves": "leaf", "men": "man"}


@dataclass(frozen=True)
class SourceCategory:
    """A category of COCO or OpenImages: ``parents`` are the ids of the next broader ones."""

    id: str
    name: str
    parents: tuple[str, ...] = ()


def plain(name: str) -> str:
    """``Orange_(fruit)`` -> ``orange``: lower case, single spaces, without explanations in brackets."""
    without_brackets = re.sub(r"\([^)]*\)", " ", name.lower())
    return " ".join(re.sub(r"[^a-z0-9]+", " ", without_brackets).split())


def singular(name: str) -> str:
    """``wine glasses`` -> ``wine glass``: the last word in the singular, by the regular rules of English."""
    *rest, last = name.split() or [""]
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif re.search(r"(ch|sh|x|ss)es$", last):
        last = last[:-2]
    elif re.search(r"[^aeiou]ies$", last) and len(last) > 4:
        last = last[:-3] + "y"
    elif re.search(r"[^us]s$", last) and len(last) > 3:
        last = last[:-1]
    return " ".join([*rest, last])


def squashed(name: str) -> str:
    """``Hair_dryer`` -> ``hairdryer``: names that agree but for case, plural, spaces and brackets have the same."""
    return singular(plain(name)).replace(" ", "")


def _agreement(source: str, name: str) -> str:
    """How two names with the same :func:`squashed` form agree: ``name``, ``plural`` or ``spaces``."""
    first, second = plain(source), plain(name)
    return "name" if first == second else "plural" if singular(first) == singular(second) else "spaces"


def match_names(sources: Sequence[SourceCategory], lists: Mapping[str, CategoryList]) -> list[TableRow]:
    """Rows for all pairs of a source and an LVIS category of which the name or a synonym agrees."""
    index: defaultdict[str, list[tuple[Category, str]]] = defaultdict(list)
    for categories in lists.values():
        for category in categories.categories:
            for name in (category.name, *category.synonyms):
                index[squashed(name)].append((category, name))
    found: dict[tuple[str, str], TableRow] = {}
    for source in sources:
        for category, name in index[squashed(source.name)]:
            alias = "" if plain(name) == plain(category.name) else f", synonym of {category.name}"
            note = f"same {_agreement(source.name, name)}{alias}"
            row = TableRow(0, source.id, source.name, category.synset, "equal", "", note)
            found.setdefault((source.id, category.synset), row)
    return list(found.values())


def match_hierarchy(sources: Sequence[SourceCategory], rows: Sequence[TableRow]) -> list[TableRow]:
    """Rows ``narrower`` for sources without a row that is not refused, from their nearest ancestors that have one."""
    by_id = {source.id: source for source in sources}
    accepted: defaultdict[str, list[TableRow]] = defaultdict(list)
    for row in rows:
        if row.verdict != "no" and row.relation in ("equal", "narrower"):
            accepted[row.source_id].append(row)
    found = []
    for source in sources:
        level, seen = [source.id], {source.id}
        while level and not any(accepted[key] for key in level):
            level = [parent for key in level if key in by_id for parent in by_id[key].parents if parent not in seen]
            seen.update(level)
        for key in dict.fromkeys(level):
            if key != source.id:
                for row in accepted[key]:
                    note = f"hierarchy: kind of {row.source_name}"
                    found.append(TableRow(0, source.id, source.name, row.lvis_synset, "narrower", "", note))
    return found


def propose_rows(
    sources: Sequence[SourceCategory], lists: Mapping[str, CategoryList], reviewed: Sequence[TableRow] = ()
) -> list[TableRow]:
    """The table to be reviewed next: all rows of ``reviewed`` as they are, and candidates that are not in it yet.

    Args:
        sources: source categories, in the order that the table shall have.
        lists: LVIS categories by version, e.g. ``{"v0.5": ..., "v1": ...}``.
        reviewed: rows of the existing table; verdicts, relations and notes are kept, rows added by hand too.

    Returns:
        Rows sorted by source, with ``lvis_versions`` filled in.

    Raises:
        UserError: a reviewed row whose source or synset no list has.
    """
    order = {source.id: index for index, source in enumerate(sources)}
    versions: defaultdict[str, list[str]] = defaultdict(list)
    for version, categories in lists.items():
        for category in categories.categories:
            versions[category.synset].append(version)
    lost = [row for row in reviewed if row.source_id not in order or row.lvis_synset not in versions]
    if lost:
        raise UserError(f"reviewed rows that are in no list: {listing(lost)}; correct or remove them by hand")
    rows = {(row.source_id, row.lvis_synset): row for row in reviewed}
    for row in match_names(sources, lists):
        rows.setdefault((row.source_id, row.lvis_synset), row)
    for row in match_hierarchy(sources, list(rows.values())):
        rows.setdefault((row.source_id, row.lvis_synset), row)
    ordered = sorted(rows.values(), key=lambda row: (order[row.source_id], row.lvis_synset))
    return [replace(row, lvis_versions=tuple(versions[row.lvis_synset])) for row in ordered]


def coco_sources(categories: CategoryList) -> list[SourceCategory]:
    """The categories of COCO, by id."""
    return [SourceCategory(str(category.id), category.name) for category in categories.categories]


def openimages_sources(vocabulary: Vocabulary) -> list[SourceCategory]:
    """The classes of OpenImages, by name."""
    return [
        SourceCategory(mid, name, vocabulary.parents.get(mid, ()))
        for mid, name in sorted(vocabulary.names.items(), key=lambda item: (item[1].lower(), item[0]))
    ]


def format_table(rows: list[TableRow]) -> str:
    """The rows as CSV text."""
    cells = ([*(getattr(row, column) for column in COLUMNS), " ".join(row.lvis_versions)] for row in rows)
    return csv_text([*COLUMNS, VERSIONS_COLUMN], cells)


def update_table(path: Path, sources: list[SourceCategory], lists: dict[str, CategoryList]) -> None:
    """Write the table at ``path`` with the candidates that it does not have yet."""
    reviewed = parse_rows(path) if path.exists() else []
    rows = propose_rows(sources, lists, reviewed)
    write_text(path, format_table(rows))
    waiting = sum(not row.verdict for row in rows)
    log.info("%s: %d rows, %d kept, %d without a verdict", path, len(rows), len(reviewed), waiting)
