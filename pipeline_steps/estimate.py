"""What a recipe takes before anything has run: FLOPs, GPU memory, files, GPU hours of V100, A100 and H100, disk.

Needs no data and no GPU: the detectors are traced on fake tensors. Those of the recipes in config/ have been; others
are traced now (some 10 seconds each) and kept in results/traces.json, where the plan of `snakemake -n` finds them.
Exits with an error if the recipe does not fit compute.gpu_memory_gb.
"""

import argparse
import sys
from pathlib import Path

from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.estimates.estimates import own_traces, recipe_estimate
from pipeline_steps.estimates.memory import require_memory
from pipeline_steps.estimates.text import table_lines
from pipeline_steps.estimates.traces import SHIPPED, Trace, known_traces, make_trace, write_traces
from pipeline_steps.recipe import Recipe, load_recipe
from pipeline_steps.recipe.load import CONFIG_FOLDER
from pipeline_steps.run.result_files import results_folder

parser = step_parser("estimate", __doc__)
what = parser.add_mutually_exclusive_group(required=True)
what.add_argument("--recipe", type=Path, help="recipe file")
what.add_argument("--shipped", action="store_true", help="trace the detectors of all recipes of config/ again")


def _add_missing(recipe: Recipe, traces: dict[str, Trace], new: dict[str, Trace]) -> None:
    """Trace what the estimate of ``recipe`` lacks in ``traces`` and put it into both."""
    for wanted, name in recipe_estimate(recipe, results_folder(recipe), traces=traces).unknown.items():
        if wanted.key not in traces:  # two members can be of one kind
            print(f"tracing {name}: {wanted.purpose}, {wanted.images} images of {wanted.size}", file=sys.stderr)
            traces[wanted.key] = new[wanted.key] = make_trace(recipe, name, wanted)


def main(arguments: argparse.Namespace) -> None:
    if arguments.shipped:
        traces: dict[str, Trace] = {}
        for path in sorted(CONFIG_FOLDER.glob("*.yaml")):
            _add_missing(load_recipe(path), traces, traces)
        write_traces(SHIPPED, traces)
        print(f"wrote {SHIPPED}: {len(traces)} traces")
        return
    recipe = load_recipe(arguments.recipe)
    results = results_folder(recipe)
    own: dict[str, Trace] = {}
    traces = known_traces(own_traces(results))
    _add_missing(recipe, traces, own)
    if own:
        shipped = known_traces()
        write_traces(own_traces(results), {key: trace for key, trace in traces.items() if key not in shipped})
    estimate = recipe_estimate(recipe, results, traces=traces)
    print(f"recipe {recipe.name}")
    print("\n".join(table_lines(estimate, str(arguments.recipe))))
    require_memory(recipe, estimate)


if __name__ == "__main__":
    run_step(parser, main)
