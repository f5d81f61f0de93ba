"""Which files a step writes, from its command line."""

import argparse
from pathlib import Path

OUTPUT_OPTIONS = ("output", "list_only", "summary", "per_category", "csv", "zip", "picture", "page")
"""Options that name files which a step writes; the first gives the manifest its name."""

BESIDE = "beside"
"""Attribute of a parsed command line with further files that a step has left beside its output, to be recorded too."""


def written_files(arguments: argparse.Namespace) -> list[Path]:
    """Outputs on a command line that exist now; the main one first."""
    values = (getattr(arguments, name, None) for name in OUTPUT_OPTIONS)
    return [Path(value) for value in values if value and Path(value).exists()]
