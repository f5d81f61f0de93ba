"""Compare the detections of two or more systems on one ground truth: is the difference more than chance?

All systems are evaluated on the same resamples of the images (paired bootstrap), each against the first one: AP and
AP_fixed over all categories and by frequency group, the difference, its 95 % interval, and a verdict: better, worse, or
no difference shown. The interval covers the choice of the images, not another training of the same model; that is what
seeds are for (python -m pipeline_steps.compare_settings).
"""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import write_json
from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("compare_results", __doc__ or "")
parser.add_argument("--annotations", type=Path, required=True, metavar="JSON", help="ground truth in LVIS format")
about = "detections table or results file of each system; the others are compared with the first"
add_named_files(parser, "--detections", "NAME=FILE", about, least=1)
parser.add_argument("--iou-type", choices=("segm", "bbox"), default="segm", help="what overlaps: masks or boxes")
parser.add_argument("--output", type=Path, metavar="JSON", help="also write the comparison")
parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples of the images")
parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the resamples")
parser.add_argument(
    "--max-detections", type=int, default=300, metavar="N", help="LVIS AP: detections per image that count"
)
parser.add_argument(
    "--fixed-per-category", type=int, default=10000, metavar="N", help="AP_fixed: detections per category"
)


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.evaluation.comparison import compare_systems, comparison_text

    if min(arguments.max_detections, arguments.fixed_per_category) < 1 or arguments.bootstrap < 2 or arguments.seed < 0:
        raise UserError("--bootstrap needs at least 2 resamples, caps at least 1, and --seed a number from 0")
    if len(arguments.detections) < 2:
        raise UserError("--detections needs two or more systems: NAME=FILE NAME=FILE")
    comparison = compare_systems(
        arguments.annotations,
        arguments.detections,
        arguments.iou_type,
        arguments.max_detections,
        arguments.fixed_per_category,
        arguments.bootstrap,
        arguments.seed,
    )
    if arguments.output:
        write_json(arguments.output, comparison, indent=1)
    print(comparison_text(comparison))


if __name__ == "__main__":
    run_recorded_step(parser, main)
