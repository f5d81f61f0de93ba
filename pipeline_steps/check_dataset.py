"""Check annotation files in LVIS or COCO format, and category tables, and show how long the tail is.

Problems are listed by kind with examples. Errors make the exit code non-zero: they name what training or evaluation
would refuse, leave out or misread. Warnings do not. Image files are looked for only with --images. A file
that ends in .csv is a category table; its synsets are looked up in the LVIS files that are checked with it.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.checks.check import Checked, check_file, check_table
from pipeline_steps.data.checks.long_tail import plot_distribution, summary_lines

parser = step_parser("check_dataset", __doc__)
parser.add_argument("files", metavar="FILE", nargs="+", help="annotation files, image information, .csv tables")
parser.add_argument("--split", choices=("train", "val", "test"), help="split (default: from the file name)")
parser.add_argument("--images", metavar="DIR", type=Path, help="datasets_root: every image file must be below it")
parser.add_argument("--plot", metavar="FILE", type=Path, help="figure of the category distribution (one FILE only)")
parser.add_argument("--examples", metavar="N", type=int, default=3, help="examples shown for each kind of problem")


def _is_table(path: str) -> bool:
    return Path(path).suffix.lower() == ".csv"


def main(arguments: argparse.Namespace) -> None:
    if arguments.plot and (len(arguments.files) > 1 or _is_table(arguments.files[0])):
        raise UserError("--plot draws a single data set: give one FILE")
    faulty: list[str] = []
    annotation_files: list[Checked] = []
    for path in sorted(arguments.files, key=_is_table):
        if _is_table(path):
            line, findings = check_table(Path(path), annotation_files, arguments.examples)
            lines = [line]
        else:
            checked = check_file(path, arguments.split, arguments.images, arguments.examples)
            annotation_files.append(checked)
            lines, findings = summary_lines(checked), checked.findings
            if arguments.plot:
                with atomic_output(arguments.plot) as temporary:
                    plot_distribution(checked, temporary)
        print("\n".join([*lines, *findings.lines()]), flush=True)
        if errors := findings.count("error"):
            faulty.append(f"{path} ({errors})")
    if faulty:
        raise UserError(f"files with errors: {', '.join(faulty)}")


if __name__ == "__main__":
    run_step(parser, main)
