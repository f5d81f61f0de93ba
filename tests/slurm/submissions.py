"""Print, as JSON, the sbatch calls of every job that Snakemake would submit: python submissions.py ARGUMENTS...

A dry run with the profile, and the Slurm executor plugin's own builder of submit commands; no Slurm is needed.
"""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

from snakemake import cli
from snakemake.executors import dryrun
from snakemake_executor_plugin_slurm import ExecutorSettings
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry


class Submissions:
    """Collects the jobs of a dry run."""

    def __init__(self, settings: ExecutorSettings) -> None:
        self.settings = settings
        self.found: list[dict[str, Any]] = []

    def add(self, job: Any) -> None:
        """Note how the first three attempts of ``job`` would be submitted; jobs of local rules have no calls."""
        entry: dict[str, Any] = {"rule": job.rule.name, "wildcards": dict(job.wildcards_dict), "calls": []}
        if not (job.rule.name in job.dag.workflow._localrules or job.is_norun):  # is_local: all, in a dry run
            entry["shell"] = job.shellcmd
            for attempt in (1, 2, 3):
                job.attempt = attempt
                validate_slurm_extra(job)
                call = get_submit_command(job, self._names(job), settings=self.settings)
                entry["calls"].append(shlex.split(call + set_gres_string(job)))
            job.attempt = 1
        self.found.append(entry)

    def _names(self, job: Any) -> dict[str, str]:
        def site(option: str, resource: str) -> str:
            value = job.resources.get(resource)
            return f"{option} {value}" if value else ""

        return {
            "run_uuid": "run",
            "slurm_logfile": f"logs/rule_{job.rule.name}/%j.log",
            "comment_str": f"rule_{job.rule.name}",
            "account": site("-A", "slurm_account"),
            "partition": site("-p", "slurm_partition"),
            "workdir": "",
        }


def main() -> None:
    arguments = [
        "--dry-run",
        "--quiet",
        "all",
        "--cores",
        "1024",
        *sys.argv[1:],
    ]  # a dry run would cap threads at its own
    _, parsed = cli.parse_args(arguments)
    settings = ExecutorPluginRegistry().get_plugin("slurm").get_settings(parsed)
    submissions = Submissions(settings)
    run_job = dryrun.Executor.run_job

    def noting(self: dryrun.Executor, job: Any) -> None:
        submissions.add(job)
        run_job(self, job)

    dryrun.Executor.run_job = noting
    output, sys.stdout = sys.stdout, sys.stderr
    try:
        cli.main(arguments)
    except SystemExit as end:
        if end.code:
            raise
    print(json.dumps(submissions.found, indent=1), file=output)


if __name__ == "__main__":
    main()
