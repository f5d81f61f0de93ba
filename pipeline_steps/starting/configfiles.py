"""Recipes on the command line are looked at before Snakemake reads them, which does not say what is wrong with them.

The workflow's own profile (``workflow/profiles/default``) calls this: it is the only place that comes before.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline_steps.common.errors import EXIT_USER_ERROR, UserError
from pipeline_steps.common.files import nearest_file

OPTION = re.compile(r"--configfiles?(?:=(.*))?", re.DOTALL)
_DRY_RUN = re.compile(r"--dry-?run|-[a-zA-Z]*n[a-zA-Z]*")
_DETAILS = re.compile(r"--printshellcmds|--verbose|--debug-dag|-[a-zA-Z]*p[a-zA-Z]*")


def named_recipes(arguments: Sequence[str]) -> Iterator[str]:
    """The values of ``--configfile`` (or ``--configfiles``): all words up to the next option."""
    taking = False
    for argument in arguments:
        if match := OPTION.fullmatch(argument):
            taking = True
            if match.group(1) is not None:
                yield match.group(1)
        elif argument.startswith("-") and len(argument) > 1:
            taking = False
        elif taking:
            yield argument


def check_recipes(arguments: Sequence[str]) -> None:
    """Refuse recipes that are not there or cannot be read.

    Raises:
        UserError: names file and line; for a target that was taken for a recipe, how to write it.
    """
    from pipeline_steps.recipe.load import read_yaml

    recipes = list(named_recipes(arguments))
    for name in recipes:
        if Path(name).exists():
            read_yaml(Path(name))
        elif name != recipes[0] and not name.endswith((".yaml", ".yml", ".json")):
            first, rest = recipes[: recipes.index(name)], recipes[recipes.index(name) :]
            raise UserError(
                f"{name!r} was read as another recipe, because --configfile takes a list. Put -- before targets: "
                f"snakemake --configfile {' '.join(first)} ... -- {' '.join(rest)}"
            )
        else:
            raise UserError(f"recipe not found: {name}{nearest_file(name)}")


def check_before_start(arguments: Sequence[str]) -> None:
    """:func:`check_recipes`; ends the process with a message where it refuses."""
    try:
        check_recipes(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def is_dry_run(arguments: Sequence[str]) -> bool:
    """Whether Snakemake's command line asks for the plan only."""
    return any(_DRY_RUN.fullmatch(argument) for argument in arguments)


def quiet_about(arguments: Sequence[str]) -> list[str] | None:
    """What a plan leaves out: it counts the jobs of each rule; with -p it shows every one. None for anything else."""
    details = any(_DETAILS.fullmatch(argument) for argument in arguments)
    return ["rules", "reason"] if is_dry_run(arguments) and not details else None
