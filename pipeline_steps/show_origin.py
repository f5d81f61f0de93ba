"""Show where a result comes from: the steps and files back to the models and the data.

Reads the manifests beside the results, and says which files have changed or are missing. Exit code 1 if there is
such a file.
"""

import argparse
import sys
from pathlib import Path

from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.run.provenance.trace import origins

parser = step_parser("show_origin", __doc__)
parser.add_argument("result", type=Path, help="any result, e.g. results/challenge/submission/submission.json")
parser.add_argument("--quick", action="store_true", help="compare sizes only, not digests")


def main(arguments: argparse.Namespace) -> None:
    wrong = 0
    for origin in origins(arguments.result, check=not arguments.quick):
        step = f"  ({origin.step})" if origin.step else ""
        again = "  as above" if origin.repeated else ""
        problem = f"  ! {origin.problem}" if origin.problem else ""
        print(f"{'  ' * origin.depth}{origin.path}{step}{again}{problem}")
        wrong += bool(origin.problem)
    if wrong:
        print(f"{wrong} files have changed since the result was made", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_step(parser, main)
