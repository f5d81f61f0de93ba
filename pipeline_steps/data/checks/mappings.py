"""Checks of category tables, as the steps that map categories make them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.category_tables import VERDICTS, map_categories, read_category_table
from pipeline_steps.data.checks.check import Checked
from pipeline_steps.data.checks.findings import REFUSED, Check, Findings
from pipeline_steps.recipe.base import LVIS_VERSIONS

REFUSED_TABLE = Check("no category table for a recipe", REFUSED)


def check_table(path: Path, annotation_files: Iterable[Checked], examples: int = 3) -> tuple[str, Findings]:
    """Check a category table.

    Args:
        path: CSV file.
        annotation_files: checked files; those of LVIS must have the synsets that the table names for their release.
        examples: examples kept of each kind.

    Returns:
        a line that sums the table up; the problems.
    """
    findings = Findings(examples)
    try:
        rows = read_category_table(path)
        verdicts = Counter(row.verdict for row in rows)
        told = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS)
        line = f"{path}: category table: {len(rows)} rows: {told}"
        for checked in annotation_files:
            version = checked.style.removeprefix("LVIS ")
            if version in LVIS_VERSIONS:
                categories = CategoryList(checked.categories.values(), str(checked.path))
                mapping = map_categories(rows, categories, version, ["equal"], ["use"], str(path))
                if any(row.source_id.isdecimal() for row in mapping.rows):
                    mapping.by_number()
    except UserError as error:
        line = f"{path}: category table"
        findings.add(REFUSED_TABLE, [error])
    return line, findings
