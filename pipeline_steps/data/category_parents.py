"""Which categories are kinds of the same thing: a table of the parents of each category.

A table is a CSV file with the columns ``category`` (the synset of an LVIS category, or its name where it has none) and
``parent`` (any name); a category with several parents has several rows. The table for LVIS holds the direct hypernyms
of WordNet 3.0 (Princeton University), whose synsets name the categories of LVIS.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import csv_records, csv_text, require_file
from pipeline_steps.data.categories import CategoryList

COLUMNS = ("category", "parent")


def read_parents(path: str | Path, categories: Sequence[Mapping[str, Any]]) -> list[frozenset[str]] | None:
    """The parents of each category.

    Args:
        path: the table.
        categories: category records with ``synset``, or ``name`` alone.

    Returns:
        One set per category, empty if the table does not have it; None if it has none of them.

    Raises:
        UserError: no such file, or it has other columns or empty cells.
    """
    parents: defaultdict[str, set[str]] = defaultdict(set)
    for line, record in csv_records(require_file(path, "table of parents"), COLUMNS):
        if not all(record[column] for column in COLUMNS):
            raise UserError(f"{path}, line {line}: a row needs category and parent")
        parents[record["category"]].add(record["parent"])
    found = [frozenset(parents.get(c.get("synset") or c.get("name", ""), ())) for c in categories]
    return found if any(found) else None


def wordnet_parents(folder: str | Path, synsets: Iterable[str]) -> list[tuple[str, str]]:
    """Rows of a table from the database files of WordNet (``index.noun``, ``data.noun``).

    Args:
        synsets: names such as ``aerosol.n.02``: lemma, part of speech, number of the sense. Others have no rows.

    Returns:
        Pairs of a synset and one of its direct hypernyms, in the order of ``synsets``.

    Raises:
        UserError: a file is missing.
    """
    senses: dict[str, list[str]] = {}
    for line in require_file(Path(folder, "index.noun"), "WordNet index").read_text().splitlines():
        if not line.startswith(" "):
            fields = line.split()
            senses[fields[0]] = fields[-int(fields[2]) :]  # offsets, most frequent sense first
    entries = {}
    for line in require_file(Path(folder, "data.noun"), "WordNet data").read_text().splitlines():
        if not line.startswith(" "):
            entries[line[:8]] = line.split(" | ")[0].split()

    def name(offset: str) -> str:
        lemma = entries[offset][4].lower()
        return f"{lemma}.n.{senses[lemma].index(offset) + 1:02d}"

    rows = []
    for synset in synsets:
        lemma, part, number = synset.rsplit(".", 2)
        offsets = senses.get(lemma.lower(), []) if part == "n" else []
        if 0 < int(number) <= len(offsets):
            fields = entries[offsets[int(number) - 1]]
            pointers = fields[5 + 2 * int(fields[3], 16) :]  # symbol, offset, part of speech, source and target
            rows += [(synset, name(pointers[k + 1])) for k in range(0, len(pointers) - 3, 4) if pointers[k] == "@"]
    return rows


def update_parents(path: Path, lists: Mapping[str, CategoryList], wordnet: str | Path) -> None:
    """Write the table of all LVIS categories: ``lists`` by version, ``wordnet`` the folder of the database files."""
    synsets = sorted({category.synset for listed in lists.values() for category in listed.categories})
    write_text(path, csv_text(COLUMNS, wordnet_parents(wordnet, synsets)))
