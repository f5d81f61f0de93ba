"""Check annotation files in LVIS or COCO format, and tell how long their tail is.

Problems are listed by kind with examples. Errors (they break training or evaluation) make the exit code non-zero,
warnings do not. Image files are looked for only with --images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.checks.check import check_file
from pipeline_steps.data.checks.long_tail import plot_distribution, summary_lines


def build_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = step_parser("check_dataset", __doc__ or "")
    parser.add_argument("files", metavar="FILE", nargs="+", help="annotation files or image information")
    parser.add_argument("--split", choices=("train", "val", "test"), help="split; without it the file name tells")
    parser.add_argument("--images", metavar="DIR", type=Path, help="datasets_root: every image file must be below it")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="figure of the category distribution (one FILE only)")
    parser.add_argument("--examples", metavar="N", type=int, default=3, help="examples shown of each kind of problem")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Run the step."""
    if arguments.plot and len(arguments.files) > 1:
        raise UserError("--plot draws one data set: give one FILE")
    faulty = []
    for path in arguments.files:
        checked = check_file(path, arguments.split, arguments.images, arguments.examples)
        print("\n".join([*summary_lines(checked), *checked.findings.lines()]), flush=True)
        if arguments.plot:
            with atomic_output(arguments.plot) as temporary:
                plot_distribution(checked, temporary)
        errors = checked.findings.count("error")
        if errors:
            faulty.append(f"{path} ({errors})")
    if faulty:
        raise UserError(f"files with errors: {', '.join(faulty)}")


if __name__ == "__main__":
    run_step(build_parser(), main)
