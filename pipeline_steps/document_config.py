"""Write what is derived from the typed recipe: the JSON schema of the workflow and the key table of config/README.md.

Both files are committed; a test fails when they differ from the declaration in ``pipeline_steps/recipe``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.recipe.document import readme_with_keys, schema_text

SCHEMA = Path("workflow/schemas/config.schema.yaml")
README = Path("config/README.md")


def build_parser() -> argparse.ArgumentParser:
    """Command line of this step."""
    parser = step_parser("document_config", __doc__ or "")
    parser.add_argument("--schema", type=Path, default=SCHEMA, help="JSON schema to write")
    parser.add_argument("--readme", type=Path, default=README, help="page whose key table is replaced")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Write both files."""
    write_text(arguments.schema, schema_text())
    write_text(arguments.readme, readme_with_keys(arguments.readme.read_text(encoding="utf-8")))


if __name__ == "__main__":
    run_step(build_parser(), main)
