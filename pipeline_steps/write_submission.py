"""Write the results file for the LVIS evaluator or test server, or validate one with --check.

Writing takes the detections table with masks; ``score`` in the file is the table's ``rank_score``, and at most
--max-detections are written per image. --check reads any results file, ours or not, as .json or in a .zip, lists every
kind of violation with counts and examples and what the evaluator would do with it, and exits non-zero if there is one.
"""

import argparse

from pipeline_steps.common.cli import step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.detections.submission import write_submission
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("write_submission", __doc__)
parser.add_argument(
    "--annotations", required=True, metavar="LVIS.json", help="LVIS annotations or image information of the split"
)
parser.add_argument("--detections", metavar="FILE.parquet", help="detections table with masks, to write")
parser.add_argument("--output", metavar="FILE.json", help="results file to write")
parser.add_argument("--zip", metavar="FILE.zip", help="zipped copy to write")
parser.add_argument("--check", metavar="FILE", help="results file to validate (.json or .zip) instead of writing")
parser.add_argument("--iou-type", choices=("segm", "bbox"), default="segm", help="what --check expects")
parser.add_argument("--max-detections", type=int, default=300, help="detections per image at most")


def main(arguments: argparse.Namespace) -> None:
    writing = [name for name in ("detections", "output", "zip") if getattr(arguments, name)]
    if arguments.check and writing:
        raise UserError(f"--check validates a file: remove {', '.join(f'--{name}' for name in writing)}")
    if not arguments.check and not (arguments.detections and arguments.output):
        raise UserError("give --detections and --output to write a file, or --check to validate one")
    if arguments.max_detections < 1:
        raise UserError(f"--max-detections must be at least 1, not {arguments.max_detections}")
    dataset = read_lvis(arguments.annotations, "test_info")
    sizes = {image.id: (image.height, image.width) for image in dataset.images}
    categories = dataset.category_ids
    if not arguments.check:
        write_submission(
            arguments.detections, arguments.output, sizes, categories, arguments.max_detections, arguments.zip
        )
        return
    from pipeline_steps.detections.submission_check import check_results  # compiled code, which writing does without

    report = check_results(arguments.check, sizes, categories, arguments.iou_type, arguments.max_detections)
    print(report.text(), flush=True)
    if not report.valid:
        raise UserError(f"{arguments.check} is not a valid results file: see the list above")


if __name__ == "__main__":
    run_recorded_step(parser, main)
