"""Join the tables of all shards of predict_boxes or predict_masks.

The images of the result are ordered by id; its bytes do not depend on the number of shards. Streaming: memory does
not grow with the number of images.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import step_parser
from pipeline_steps.inference.gathering import gather_shards
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("gather_shards", __doc__)
parser.add_argument("--inputs", required=True, nargs="+", type=Path, metavar="SHARD.parquet", help="all shards")
parser.add_argument("--output", required=True, type=Path, metavar="FILE.parquet", help="table to write")


def main(arguments: argparse.Namespace) -> None:
    gather_shards(arguments.inputs, arguments.output)


if __name__ == "__main__":
    run_recorded_step(parser, main)
