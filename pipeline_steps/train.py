"""Train one model of a recipe: pre-training, LVIS model or expert.

Reads the training sets of the recipe and, with --init, the weights to start from. Writes model.pth; checkpoints,
metrics.jsonl and TensorBoard events go to the same folder. Interrupted at any moment, the same command continues from
the last checkpoint and ends with the same weights. One process per GPU: torchrun --nproc_per_node=8 -m
pipeline_steps.train ...; batch size and learning rate do not depend on their number.

Exit codes: 0 model.pth is complete; 2 something to fix, see the message; 75 stopped early by a signal or
--stop-before-minutes with a checkpoint saved.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.cli import step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.manifest import BESIDE
from pipeline_steps.run.provenance.step import run_recorded_step
from pipeline_steps.run.result_files import GRADIENTS_FILE, METRICS_FILE

parser = step_parser("train", __doc__)
parser.add_argument("--recipe", required=True, type=Path, help="recipe file")
parser.add_argument("--model", required=True, help="name of a model, expert or pre-training of the recipe")
parser.add_argument("--init", type=Path, help="weights to start from: another model.pth, or converted weights")
parser.add_argument("--output", required=True, type=Path, help="file of the final model, e.g. results/x/model.pth")
parser.add_argument(
    "--stop-before-minutes",
    type=float,
    metavar="M",
    help="save a checkpoint and stop before M minutes have passed (for jobs with a time limit)",
)
parser.add_argument(
    "--on-mismatch",
    choices=["refuse", "discard"],
    default="refuse",
    help="what to do if the folder holds a model or checkpoints of a training with other settings: stop and name "
    "the differences, or throw them away",
)


def main(arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe)
    from pipeline_steps.estimates.memory import require_training_memory
    from pipeline_steps.training.run import Job, train  # imports torch and detectron2: seconds

    results = arguments.output.absolute().parent.parent.parent
    train(
        Job(
            recipe=recipe,
            model_name=arguments.model,
            output=arguments.output,
            init=arguments.init,
            stop_before_minutes=arguments.stop_before_minutes,
            on_mismatch=arguments.on_mismatch,
            check_memory=lambda images, on_gpu: require_training_memory(
                recipe, arguments.model, images, results, on_gpu
            ),
        )
    )
    records = (arguments.output.with_name(name) for name in (METRICS_FILE, GRADIENTS_FILE))
    setattr(arguments, BESIDE, [path for path in records if path.is_file()])  # what figures are made from


if __name__ == "__main__":
    run_recorded_step(parser, main)
