"""What Snakemake was asked for: a choice of recipe is required, and names of targets are checked."""

import contextlib
import difflib
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_steps.common.errors import UserError

LOOKS = (
    *("lint", "list_target_rules", "list_rules", "print_compilation", "containerize", "reporter", "report"),
    *("generate_unit_tests", "dag", "rulegraph", "filegraph", "d3dag", "unlock", "cleanup_metadata", "cleanup_shadow"),
    *("conda_cleanup_envs", "conda_create_envs_only", "list_conda_envs", "container_cleanup_images", "list_changes"),
    *("list_input_changes", "list_params_changes", "list_untracked", "summary", "detailed_summary", "archive"),
    *("delete_all_output", "delete_temp_output", "touch"),
)
"""Options of Snakemake with which it runs no job."""

WAYS = """\
Nothing was started, because no recipe was chosen. The challenge recipe downloads all data and trains for weeks of GPU
time, so it does not run by default. Choose one:

  make demo
      the whole recipe on a small data set that it draws itself: no GPU, no data, minutes
      a part of it: snakemake --configfile config/mini.yaml --cores all -- {targets}
  snakemake --profile slurm {targets}
      the challenge recipe on a Slurm cluster
  snakemake --profile workstation {targets}
      the challenge recipe on this machine and its GPUs

Your own recipe: --configfile FILE (the challenge's is config/challenge.yaml). With -n each shows its plan.
"""


@dataclass(frozen=True)
class Request:
    """A command line of Snakemake, with what its profiles add."""

    targets: tuple[str, ...]  # rules and files that are asked for; none for the default target
    named: tuple[str, ...]  # these, and the rules and files named by -R, --until and --omit-from
    profile: bool  # whether there is a profile besides the workflow's own
    cluster: str  # name of the executor; empty where jobs run on this machine
    resources: frozenset[str]  # names of the resources that are limited
    runs: bool  # whether jobs are run, or would be if this were no dry run
    dry_run: bool  # whether only the plan is wanted

    def refuse_without_choice(self) -> str | None:
        """What to say where no recipe is chosen; None where nothing costly would start."""
        if self.profile or not self.runs or (self.dry_run and self.targets):
            return None
        return WAYS.format(targets=shlex.join(self.targets) or "all").rstrip()


def read_request(argv: Sequence[str]) -> Request | None:
    """The command line ``sys.argv``; None for one of Snakemake's own jobs and for programs that use it."""
    program = Path(argv[0])
    if "snakemake" not in (program.name, program.parent.name):
        return None
    from snakemake.cli import parse_args
    from snakemake_interface_executor_plugins.settings import ExecMode

    with contextlib.redirect_stderr(io.StringIO()):  # names the profiles once more
        _, arguments = parse_args(list(argv[1:]))
    if arguments.mode != ExecMode.DEFAULT:
        return None
    targets = tuple(map(str, arguments.targets))
    others = (arguments.forcerun, arguments.until, arguments.omit_from)
    return Request(
        targets=targets,
        named=tuple(dict.fromkeys([*targets, *(str(name) for names in others for name in sorted(names or ()))])),
        profile=bool(arguments.profile),
        cluster="" if arguments.executor in (None, "local") else arguments.executor,
        resources=frozenset(arguments.resources or ()),
        runs=not any(getattr(arguments, option, None) for option in LOOKS),
        dry_run=bool(arguments.dryrun),
    )


def check_names(named: Iterable[str], rules: Iterable[Any]) -> None:
    """Refuse targets, and names given to options, that no rule has and no rule makes; names the nearest ones.

    Raises:
        UserError: one of the names is unknown.
    """
    rules = list(rules)
    names = [rule.name for rule in rules]
    files = [str(file) for rule in rules for file in rule.output if "{" not in str(file)]
    for name in named:
        if name in names or any(rule.is_producer(name) for rule in rules) or Path(name).exists():
            continue
        near = difflib.get_close_matches(name, [*names, *files], n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"rules: {', '.join(names)}"
        raise UserError(f"{name!r} is neither a rule nor a file that a rule of this recipe makes; {hint}")
