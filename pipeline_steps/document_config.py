"""Write what is derived from the declaration of the keys: the tables of config/README.md, a schema for editors.

The tables are committed; a test fails when they differ from the declaration in ``pipeline_steps/recipe``. The JSON
schema is written on request (--schema) and not committed: recipes are checked against the declaration itself, with the
checks that a schema cannot express; 1,800 lines would have to change with every key; and what the workflow catalog
shows of a workflow's configuration is the page with the tables.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.recipe.document import readme_with_keys, schema_text

README = Path("config/README.md")

parser = step_parser("document_config", __doc__)
parser.add_argument("--readme", type=Path, default=README, help="page whose key tables are replaced")
parser.add_argument("--schema", type=Path, metavar="FILE.json", help="write only the JSON schema of recipe files")


def main(arguments: argparse.Namespace) -> None:
    """Write the schema, or else the page."""
    if arguments.schema:
        write_text(arguments.schema, schema_text())
    else:
        write_text(arguments.readme, readme_with_keys(arguments.readme.read_text(encoding="utf-8")))


if __name__ == "__main__":
    run_step(parser, main)
