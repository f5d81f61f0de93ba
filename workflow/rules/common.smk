# Shared by all rules: the checked recipe, which files it has, what jobs ask for, what is said before and after a run.
import os
import re

from snakemake.exceptions import WorkflowError

from pipeline_steps.analysis.published import check_tables
from pipeline_steps.cluster.array_tasks import hand_over
from pipeline_steps.cluster.gpus import POOL, usable_gpus
from pipeline_steps.cluster.resources import growing, growing_hours, processes
from pipeline_steps.common.atomic import write_json, write_text
from pipeline_steps.common.cli import name_files
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.interpreter import put_interpreter_first
from pipeline_steps.data.expert_categories import expert_tables
from pipeline_steps.estimates.estimates import recipe_estimate
from pipeline_steps.estimates.memory import require_memory
from pipeline_steps.recipe.load import recipe_text, resolve_recipe
from pipeline_steps.recipe.schema import ENSEMBLE, names
from pipeline_steps.report.figures.captions import CAPTIONS, CaptionTexts
from pipeline_steps.run import stage_settings
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.provenance.verification import start_command
from pipeline_steps.run.result_files import GRADIENTS_FILE, METRICS_FILE, SPLITS, ResultFiles
from pipeline_steps.run.step_code import step_code
from pipeline_steps.starting import jobs
from pipeline_steps.starting.checks import check_start, fitted
from pipeline_steps.starting.command_line import check_names
from pipeline_steps.starting.messages import end_banner, failure_message, plan_banner, plan_line, start_banner
from pipeline_steps.starting.named_files import check_named_files
from pipeline_steps.training.schedule import check_batches

put_interpreter_first()
hand_over(sys.argv)

# Without a cluster, jobs share the GPUs of this machine, each with its own, and Snakemake starts no more than there are.
try:
    recipe = resolve_recipe(CHANGES, files=FILES)
    LOCAL_GPUS = usable_gpus(recipe.compute.local_gpus) if REQUEST and not REQUEST.cluster else []
    if LOCAL_GPUS:
        recipe = fitted(recipe, len(LOCAL_GPUS), len(os.sched_getaffinity(0)))
        os.environ[POOL] = ",".join(LOCAL_GPUS)
        if "gpu" not in REQUEST.resources:
            workflow.global_resources["gpu"] = len(LOCAL_GPUS)
    check_batches(recipe)
    RESULT = ResultFiles(recipe)  # every result that rules name
    DATA = DatasetPaths(recipe)  # every file below datasets_root
    if recipe.compute.gpu_memory_gb:
        require_memory(recipe, recipe_estimate(recipe, RESULT.root))
    DETECTORS = check_named_files(recipe, DATA)
    check_tables(recipe.report.tables)
except UserError as error:
    raise WorkflowError(str(error)) from None

ENVIRONMENT = "../environment/conda.yaml"  # used with --software-deployment-method conda, ignored otherwise


container: os.environ.get("LVIS_CONTAINER")  # used with --software-deployment-method apptainer (docs/cluster.md)


RECIPE = str(RESULT.recipe_file.of())  # the resolved recipe: written when a run starts, read by every step
START = start_command(sys.argv, "" if AS_MODULE else RECIPE)
SHARDS = recipe.testing.shards
TESTED_DATA = {split: DATA.for_testing(split) for split in SPLITS}
TABLES = [*(f"table{number}" for number in range(1, 6)), "lvis_v1"]  # of the paper, and of later publications
INFERENCE_TIME = growing_hours(recipe.compute.inference_hours, recipe.compute.longest_hours)

# `params.settings` of a rule is what decides its result, as text (run/stage_settings.py); no step reads it. Snakemake
# runs a job again when a value of `params` changes, so a key of the recipe reruns the stages that it decides, and no other.


def one_of(choices):
    """Wildcard pattern for exactly these names; matches nothing when there are none."""
    return "|".join(choices) or "(?!)"


def absent(*files):
    """Wildcard pattern for the names of those files that are not on the disk: only these may be a rule's output."""
    return one_of([re.escape(file.name) for file in files if not os.path.lexists(file)])


def shared_recipe(wildcards, output):
    """The recipe for jobs of which the data are shared by all recipes with the same datasets_root.

    As a function of the output it is no setting of which a change makes a job run again: each recipe would make the
    others' data again.
    """
    return RECIPE


def recipe_file(wildcards):
    """Recipe of a job of testing or merging: the recipe itself or a variant."""
    return str(RESULT.recipe_file.of(variant=wildcards.variant))


def split_of(wildcards):
    return wildcards.boxes.split("/")[1]


def vocabulary(wildcards):
    """Whose categories are evaluated: an expert's are those of its data set."""
    return recipe.expert_vocabularies.get(wildcards.name, "lvis")


def check_request(request):
    """Refuse targets that no rule makes, and a comparison of nothing."""
    try:
        check_names(request.named, workflow.rules)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    if not RESULT.compared and "ablations" in request.targets:
        raise WorkflowError(
            f"recipe {recipe.name} names no report.ablations.comparisons; config/mini_ablations.yaml does"
        )


def prepare_run():
    """Refuse to start where jobs would fail; then write what they find beside the recipe's results."""
    try:
        check_start(recipe, DATA, RESULT.root, workflow, LOCAL_GPUS)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    write_run_files()


def write_run_files():
    """What jobs expect to find, besides their inputs."""
    # Where derived files are is decided now, for all jobs.
    DATA.coco_boxes_train.parent.mkdir(parents=True, exist_ok=True)
    for variant, own in RESULT.tested.items():
        write_text(RESULT.recipe_file.of(variant=variant), recipe_text(own))


def print_plan():
    """The last line of a plan: what it takes, and on what."""
    if workflow.scheduler is not None:  # else there is no plan: an error has been told
        gpus = f"{REQUEST.cluster} gives GPUs" if REQUEST.cluster else f"{len(LOCAL_GPUS)} GPUs here"
        print(plan_line(RESULT, gpus), file=sys.stderr)


wildcard_constraints:
    variant=rf"(variants/({one_of(recipe.variants)})/)?",
    split=one_of(SPLITS),
    shard=r"\d+",
