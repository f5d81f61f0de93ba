"""Check that finished results are undamaged, and were made from one another.

Snakemake looks at times; this reads every byte that a manifest names, from the data to the submission: a flipped byte,
a file that was exchanged, edited or deleted, and a result that was made from another version of its input are named,
with the command that makes them again. The exit code is not 0 then.

Images are counted and their sizes added up, and compared with what was noted when they came; those of the mini world
are read. Files that no step has declared (checkpoints, logs, benchmarks) are left alone.

One core hashes about 1.3 GB a second, several files at once; the challenge recipe has some 15 GB of annotations, models
and tables, so that the disk decides.
"""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.progress import format_bytes
from pipeline_steps.data.images_on_disk import image_problems
from pipeline_steps.recipe import Recipe, load_recipe
from pipeline_steps.run.provenance.record import root_of
from pipeline_steps.run.provenance.verification import Verification, start_command, verify_results
from pipeline_steps.run.result_files import RECIPE_FILE

parser = step_parser("verify", __doc__)
parser.add_argument("results", type=Path, metavar="RESULTS", help="results of a recipe, e.g. results/mini")
parser.add_argument(
    "--only", nargs="+", default=[], metavar="FILE", help="only these results and what they were made from; no images"
)
parser.add_argument("--expected", nargs="*", default=[], metavar="FILE", help="results that should be there")
parser.add_argument(
    "--start",
    metavar="COMMAND",
    help="how the workflow is started, for the commands that are shown "
    "(default: snakemake --configfile RESULTS/recipe.yaml --cores all)",
)


def remedies(outcome: Verification, start: str) -> list[str]:
    """Lines with the commands that fix what was found."""

    def command(names: list[str]) -> str:
        # What no expected result rests on is no part of `all`: it has to be asked for.
        alone = [
            name for name in names if not any(path == name or path.startswith(f"{name}/") for path in outcome.reached)
        ]
        return f"  {start} -R {shlex.join(names)} -- {shlex.join([*alone, 'all'])}"

    again = list(dict.fromkeys(name for finding in outcome.findings for name in finding.again))
    meant = list(dict.fromkeys(name for finding in outcome.findings for name in finding.if_meant))
    lines = []
    if again:
        lines += ["To make it again, and everything made from it:", command(again)]
    if meant:
        changed = ", ".join(finding.path for finding in outcome.findings if finding.if_meant)
        lines += [
            f"Put back {changed} (downloaded data: delete it, and `{start} -- data` fetches it again).",
            "Or, if the change is intended, make everything again that was made from it:",
            command(meant),
        ]
    return lines


def _recipe_of(results: Path) -> Recipe | None:
    """The recipe of the results, which names the images; None if there is none, or one of another version."""
    try:
        return load_recipe(results / RECIPE_FILE)
    except UserError as error:
        print(f"images are not checked: {error}", file=sys.stderr)
        return None


def main(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    root = root_of(arguments.results)
    results = arguments.results.absolute().relative_to(root)
    os.chdir(root)  # all names are relative to it
    recipe = _recipe_of(results)
    drawn = ""
    if recipe and recipe.data.source == "mini":
        data = Path(recipe.datasets_root)
        drawn = str(data.relative_to(Path.cwd()) if data.is_relative_to(Path.cwd()) else data)
    start = arguments.start or start_command([], str(results / RECIPE_FILE))
    outcome = verify_results(results, arguments.expected, arguments.only, drawn)
    images = image_problems(recipe, start) if recipe and not arguments.only else {}
    named = {folder for finding in outcome.findings for folder in Path(finding.path).parents}
    images = {folder: problem for folder, problem in images.items() if folder not in named}
    for name, problem in [*((finding.path, finding.problem) for finding in outcome.findings), *images.items()]:
        print(f"{name}: {problem}")
    for name in outcome.not_made:
        print(f"{name}: not made yet (no result here was made from it)")
    print("".join(f"{line}\n" for line in remedies(outcome, start)), end="")
    seconds = time.monotonic() - started
    read = f"{outcome.files} files of {outcome.results} results, {format_bytes(outcome.bytes)}, read in {seconds:.1f} s"
    wrong = len(outcome.findings) + len(images)
    if wrong:
        raise UserError(f"{results}: {wrong} of its files or folders are damaged or missing ({read})")
    print(f"{results}: undamaged, from the data to the results ({read})")


if __name__ == "__main__":
    run_step(parser, main)
