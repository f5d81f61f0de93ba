"""Step: the pictures that explain the pipeline and the equalization loss, as SVG, from the workflow and from the loss.

Both files are committed; a test fails when they differ from what is drawn here.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.cli import run_step, step_parser

parser = step_parser("document_pictures", __doc__)
parser.add_argument("--output", type=Path, default=Path("docs/pictures"), metavar="DIR", help="folder of the pictures")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.report.explained import eql_svg, pipeline_svg, workflow_rules

    arguments.output.mkdir(parents=True, exist_ok=True)
    write_text(arguments.output / "pipeline.svg", pipeline_svg(workflow_rules(Path.cwd())))
    write_text(arguments.output / "eql.svg", eql_svg())


if __name__ == "__main__":
    run_step(parser, main)
