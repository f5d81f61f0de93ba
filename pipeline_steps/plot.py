"""Step: the figures of a run as SVG and PNG.

Any input may be missing: figures that need it are left out, and figures.json says what is missing.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import atomic_directory
from pipeline_steps.common.cli import add_named_files, step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("plot", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run; names the data")
add_named_files(parser, "--metrics", "NAME=JSON", "metrics.json of each evaluation")
add_named_files(parser, "--categories", "NAME=CSV", "categories.csv of each evaluation")
add_named_files(parser, "--training", "NAME=JSONL", "metrics.jsonl of each training")
for option, step in (
    ("--ensemble-gain", "measure_ensemble_gain"),
    ("--rescoring", "sweep_rescoring"),
    ("--scores", "judge_detections"),
    ("--samples", "count_samples"),
):
    parser.add_argument(option, type=Path, metavar="JSON", help=f"result of the {step} step")
parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the figures")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.report.figures.index import draw_figures
    from pipeline_steps.report.figures.inputs import Inputs

    recipe = load_recipe(arguments.recipe)
    inputs = Inputs(
        recipe=recipe,
        metrics=arguments.metrics,
        categories=arguments.categories,
        trainings=arguments.training,
        ensemble_gain=arguments.ensemble_gain,
        rescoring=arguments.rescoring,
        scores=arguments.scores,
        samples=arguments.samples,
    )
    with atomic_directory(arguments.output) as folder:
        drawn = draw_figures(inputs, folder).drawn
    print(f"{arguments.output}: {len(drawn)} figures ({', '.join(drawn) or 'no inputs'})")


if __name__ == "__main__":
    run_recorded_step(parser, main)
