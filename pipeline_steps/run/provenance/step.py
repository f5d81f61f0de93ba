"""Entry point of steps that leave results: runs the step, then writes the manifest beside its output."""

import argparse
import time
from collections.abc import Callable
from typing import NoReturn

from pipeline_steps.common.cli import run_step
from pipeline_steps.common.files import noted_inputs
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.manifest import write_manifest


def run_recorded_step(parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> NoReturn:
    """As :func:`pipeline_steps.common.cli.run_step`, with a manifest of what came out if all went well."""

    def recorded(arguments: argparse.Namespace) -> None:
        started = time.time()
        with noted_inputs() as inputs:
            main(arguments)
        recipe = getattr(arguments, "recipe", None)
        step = parser.prog.rpartition(".")[2]
        write_manifest(step, arguments, load_recipe(recipe) if recipe else None, started, inputs)

    run_step(parser, recorded)
