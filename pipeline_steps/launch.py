"""Run a step once for each GPU of a job, on one node or several: python -m pipeline_steps.launch --gpus 8 train ...

Without GPUs, or with one, the step runs as it is. With several on one node the processes are started as torchrun does;
with several nodes srun starts them on every node of the Slurm job, and they meet at the first one. The exit code is
that of the step; with several nodes it may be 143 instead, when srun ended a node that was slower to leave. On a
machine without a cluster the workflow names the GPUs of its run, and a job takes as many of them for itself as it asks
for.
"""

import argparse
import os
import sys

from pipeline_steps.cluster.gpus import take_gpus
from pipeline_steps.cluster.launching import Layout, node_of_task, run_on_node, srun_command, step_command
from pipeline_steps.common.cli import run_step, step_parser

parser = step_parser("launch", __doc__)
parser.add_argument("--gpus", type=int, default=0, help="GPUs of the job, over all nodes")
parser.add_argument("--nodes", type=int, default=1, help="nodes of the job")
parser.add_argument("--threads", type=int, default=1, help="CPU threads on each node")
parser.add_argument("--one-process", action="store_true", help="a single process, whatever the number of GPUs")
parser.add_argument("--on-each-node", action="store_true", help=argparse.SUPPRESS)  # given by srun_command only
parser.add_argument("step", help="step to run, for example train")
parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")


def _replace_process(command: list[str]) -> None:
    """Become ``command``: signals and the exit code need no go-between then."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(command[0], command)


def main(arguments: argparse.Namespace) -> None:
    layout = Layout(arguments.gpus, arguments.nodes, arguments.threads)
    step, rest = arguments.step, arguments.arguments
    if arguments.on_each_node:
        sys.exit(run_on_node(layout, step, rest, node_of_task()))
    if layout.nodes > 1:
        _replace_process(srun_command(layout, step, rest))
    take_gpus(layout.gpus)
    if layout.processes_per_node > 1 and not arguments.one_process:
        sys.exit(run_on_node(layout, step, rest))
    os.environ["OMP_NUM_THREADS"] = str(layout.threads)
    _replace_process(step_command(step, rest))


if __name__ == "__main__":
    run_step(parser, main)
