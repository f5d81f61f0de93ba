"""Turn public ImageNet weights into a backbone file that ``train --init`` reads."""

import argparse
import logging

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.cli import step_parser
from pipeline_steps.common.errors import listing
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

log = logging.getLogger(__name__)

parser = step_parser("convert_weights", __doc__)
parser.add_argument("--recipe", required=True, help="recipe file")
parser.add_argument("--name", required=True, help="name of an entry of the recipe's weights")
parser.add_argument("--output", required=True, help="file to write, e.g. results/challenge/weights/NAME.pth")


def main(arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe)
    entry = recipe.weights_entry(arguments.name)
    import torch

    from pipeline_steps.modeling.conversion import convert, converted_file, read_public_weights

    path = recipe.path(entry.file)
    state, digest = read_public_weights(path, entry.sha256)
    weights, unused = convert(state, entry.layout, path)
    with atomic_output(arguments.output) as temporary:
        torch.save(converted_file(weights, unused, entry.layout, entry.file, digest), temporary)
    log.info("%s: converted %d tensors of %s", arguments.output, len(weights), path)
    log.info("not used: %s", listing(unused) or "nothing")


if __name__ == "__main__":
    run_recorded_step(parser, main)
