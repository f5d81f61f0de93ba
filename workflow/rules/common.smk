# Shared by all rules: the checked recipe, which files it has, which files a job reads.
import os
import re
from collections import Counter

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from pipeline_steps.cluster.array_tasks import hand_over
from pipeline_steps.common.atomic import write_json, write_text
from pipeline_steps.common.errors import UserError
from pipeline_steps.cluster.gpus import POOL, usable_gpus
from pipeline_steps.common.interpreter import put_interpreter_first
from pipeline_steps.cluster.queue import refuse_queued_jobs
from pipeline_steps.data.expert_categories import expert_tables
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.provenance.verification import start_command
from pipeline_steps.run import stage_settings
from pipeline_steps.starting.messages import end_banner, failure_message, plan_banner, plan_line, start_banner
from pipeline_steps.recipe.load import recipe_text, resolve_recipe
from pipeline_steps.run.variants import boxes_folder, with_variants
from pipeline_steps.report.figures.captions import CAPTIONS, CaptionTexts
from pipeline_steps.analysis.published import check_tables
from pipeline_steps.estimates.estimates import recipe_estimate
from pipeline_steps.estimates.memory import require_memory
from pipeline_steps.starting.checks import check_devices, check_permissions, check_room, fitted, room_needed
from pipeline_steps.starting.command_line import check_names
from pipeline_steps.starting.named_files import check_named_files
from pipeline_steps.training.schedule import check_batches

put_interpreter_first()
hand_over(sys.argv)

# Without a cluster, jobs share the GPUs of this machine, each with its own, and Snakemake starts no more than there are.
try:
    recipe = resolve_recipe(config, files=REQUEST.configfiles if REQUEST else ())
    LOCAL_GPUS = usable_gpus(recipe.compute.local_gpus) if REQUEST and not REQUEST.cluster else []
    if LOCAL_GPUS:
        recipe = fitted(recipe, len(LOCAL_GPUS), len(os.sched_getaffinity(0)))
        os.environ[POOL] = ",".join(LOCAL_GPUS)
        if "gpu" not in REQUEST.resources:
            workflow.global_resources["gpu"] = len(LOCAL_GPUS)
    validate(recipe.model_dump(), "../schemas/config.schema.yaml")
    check_batches(recipe)
    if recipe.compute.gpu_memory_gb:
        require_memory(recipe, recipe_estimate(recipe, f"results/{recipe.name}"))
    DATA = DatasetPaths(recipe)
    DETECTORS = check_named_files(recipe, DATA)
    check_tables(recipe.report.tables)
except UserError as error:
    raise WorkflowError(str(error)) from None

ENVIRONMENT = "../environment/conda.yaml"  # used with --software-deployment-method conda, ignored otherwise


container: os.environ.get("LVIS_CONTAINER")  # used with --software-deployment-method apptainer (docs/cluster.md)


RESULTS = f"results/{recipe.name}"
RECIPE = f"{RESULTS}/recipe.yaml"  # the resolved recipe: written when a run starts, read by every step
START = start_command(sys.argv, RECIPE)
LOGS, BENCHMARKS = f"{RESULTS}/logs", f"{RESULTS}/benchmarks"
SHARDS = recipe.testing.shards
SPLITS = ["val", "test"]

# Processes of a training job: all GPUs on one node, or on several nodes of which each starts its own processes (the job
# then only calls srun: `mpi`). On a cluster `gpu` is the number over all nodes. None of this makes anything run again.
NODES = recipe.compute.training_nodes
TRAINING_PROCESSES = {"gpu": NODES * recipe.compute.training_gpus, "nodes": NODES}
if NODES > 1:
    TRAINING_PROCESSES |= {
        "mpi": "srun",
        "tasks": NODES,
        "tasks_per_gpu": 0,
        "slurm_extra": f"--gpus-per-node={recipe.compute.training_gpus}",
    }

# Data. What a user has put below datasets_root, and what an earlier run has downloaded, is no rule's output: it is
# checked, and never replaced. Manifests say what was found; the mini world needs none.
DOWNLOADS = recipe.data.source == "download"


def checked(*files):
    """Data files, and the manifests of their checks."""
    return [*files, *(DATA.manifest(file) for file in files if DOWNLOADS)]


OPENIMAGES_TABLES = [
    DATA.openimages_boxes,
    DATA.openimages_labels,
    DATA.openimages_classes,
    DATA.openimages_hierarchy,
    *([DATA.openimages_rotation] if recipe.data.openimages.skip_rotated else []),
]
CATEGORY_TABLES = [DATA.coco_table, DATA.openimages_table]
COCO_IMAGES = [DATA.coco_images_manifest] if DOWNLOADS else []
OPENIMAGES_IMAGES = [DATA.manifest(DATA.openimages_ids.with_suffix(""))] if DOWNLOADS else []
OPENIMAGES_OWN_IMAGES = [DATA.manifest(DATA.openimages_own_ids.with_suffix(""))] if DOWNLOADS else []
USES_OPENIMAGES = recipe.data.openimages.enabled
DATASET_FILES = {
    "lvis_train": [*checked(DATA.lvis_train), *COCO_IMAGES],
    "coco_train": [
        *checked(DATA.coco_train, DATA.lvis_val, DATA.lvis_test_info),
        *COCO_IMAGES,
    ],  # less what is tested on
    "openimages_train": [DATA.openimages_train, *checked(DATA.lvis_train)],  # LVIS numbers its categories
    "openimages_own_train": [DATA.openimages_own_train],
}
USED_DATASETS = {
    name
    for models in (recipe.pretraining, recipe.models, recipe.experts)
    for model in models
    for name in model.datasets
}
SPLIT_FILES = {
    "val": [*checked(DATA.lvis_val), *COCO_IMAGES],
    "test": [*checked(DATA.lvis_test_info), *COCO_IMAGES],
}

# Models, and the detections that are made and evaluated.
STAGES = {
    "pretrain": recipe.pretraining,
    "finetune": recipe.models,
    "experts": recipe.experts,
}
FOLDER = {model.name: folder for folder, models in STAGES.items() for model in models}
MODELS = [model.name for model in recipe.models]
EXPERTS = [expert.name for expert in recipe.experts]
COCO_EXPERTS = [expert.name for expert in recipe.experts if expert.category_table == "coco"]
MAPPED_EXPERTS = [name for name in EXPERTS if name not in COCO_EXPERTS]
EXPERT_CLASSES = [DATA.openimages_classes] if MAPPED_EXPERTS else []  # their places in it are the expert's category ids
MEMBERS = [member.name for member in recipe.ensemble.members]
PREDICTED = list(dict.fromkeys([*MODELS, *MEMBERS]))  # LVIS models are evaluated even when they are no members
STARTS = [recipe.model(name).init for name in PREDICTED]
TRAINED = list(dict.fromkeys([*(start for start in STARTS if start in FOLDER), *PREDICTED]))  # what results need
MASKED = [f"predictions/val/{name}" for name in MODELS] + [f"ensemble/{split}" for split in SPLITS]
TESTED = with_variants(
    recipe
)  # folder of the recipe itself ("") and of each variant of testing and merging -> its recipe
EVALUATED = {name: f"{RESULTS}/predictions/val/{name}/detections.parquet" for name in MODELS}
EVALUATED |= {name: f"{RESULTS}/predictions/val/{name}/boxes.parquet" for name in EXPERTS if name in MEMBERS}
TABLES = [*(f"table{number}" for number in range(1, 6)), "lvis_v1"]  # of the paper, and of later publications
EVALUATED["ensemble"] = f"{RESULTS}/ensemble/val/detections.parquet"
VARIANTS = {name: f"{RESULTS}/variants/{name}/ensemble/val/detections.parquet" for name in recipe.variants}


# Models that are compared over seeds.
ABLATIONS = recipe.report.ablations.comparisons
ABLATED = list(
    dict.fromkeys(
        model.name
        for setting, references in ABLATIONS.items()
        for name in (setting, *references)
        for model in recipe.replicates(name)
    )
)


def one_of(names):
    """Wildcard pattern for exactly these names; matches nothing when there are none."""
    return "|".join(names) or "(?!)"


def shared_recipe(wildcards, output):
    """The recipe for jobs of which the data are shared by all recipes with the same datasets_root.

    As a function of the output it is no setting of which a change makes a job run again: each recipe would make the
    others' data again.
    """
    return RECIPE


def absent(*files):
    """Wildcard pattern for the names of those files that are not on the disk: only these may be a rule's output."""
    return one_of([re.escape(file.name) for file in files if not os.path.lexists(file)])


def model_file(name):
    """Final weights of a model of the recipe."""
    return f"{RESULTS}/{FOLDER[name]}/{name}/model.pth"


def initial_weights(wildcards):
    """Weights that a training starts from; an empty list for random ones."""
    start = recipe.model(wildcards.model).init
    if not start:
        return []
    return model_file(start) if start in FOLDER else f"{RESULTS}/weights/{start}.pth"


def init_argument(wildcards, input):
    return ["--init", input.init] if input.init else []


def data_of_training(name):
    """Annotation files, and manifests of images, that a training reads."""
    model = recipe.model(name)
    files = [file for dataset in model.datasets for file in DATASET_FILES[dataset]]
    if recipe.training_of(model).coco_ignore.enabled and "lvis_train" in model.datasets:
        files.append(DATA.coco_boxes_train)
    return list(dict.fromkeys(files))


def training_data(wildcards):
    return data_of_training(wildcards.model)


def recipe_file(wildcards):
    """Recipe of a job of testing or merging: the recipe itself or a variant."""
    return f"{RESULTS}/{wildcards.variant}recipe.yaml"


def members(wildcards):
    """Names of the members that are merged."""
    return [member.name for member in TESTED[wildcards.variant].ensemble.members]


def members_boxes(wildcards):
    """Their boxes: those of the recipe, or of an earlier variant, where these are made with the same settings."""
    folder = boxes_folder(TESTED, wildcards.variant)
    return [f"{RESULTS}/{folder}predictions/{wildcards.split}/{name}/boxes.parquet" for name in members(wildcards)]


def mask_weights(wildcards):
    """Models that predict the masks of a boxes table: a model its own, all mask models those of the ensemble."""
    owner = Path(wildcards.boxes).name
    return [model_file(name) for name in ([owner] if owner in MODELS else TESTED[wildcards.variant].mask_models())]


def split_of(wildcards):
    return wildcards.boxes.split("/")[1]


def code(*patterns):
    """Files of pipeline_steps as inputs of a cheap job near the end, which then runs again when its code changes.

    Not for jobs that cost GPU hours, or have such below them; those run again on request, with -R.
    """
    folder = Path(workflow.basedir).parent / "pipeline_steps"
    return [os.path.relpath(file) for pattern in patterns for file in sorted(folder.glob(pattern))]


def growing(amount):
    """A resource of which every further attempt of a job gets more: minutes or megabytes."""
    return lambda wildcards, attempt: amount * attempt


def growing_hours(hours):
    """Time limit in minutes that grows with the attempt, up to what the cluster allows."""
    return lambda wildcards, attempt: max(1, round(60 * min(hours * attempt, recipe.compute.longest_hours)))


def table_evaluations(table):
    """Evaluations that stand in a table of the paper, each once."""
    rows = recipe.report.tables.get(table, {})
    return list(dict.fromkeys(name for names in rows.values() for name in names))


def waiting_jobs():
    """Number of jobs of each rule that will run."""
    return Counter(job.rule.name for job in workflow.dag.needrun_jobs() if not job.is_norun)


def rule_graph():
    """All rules of this run with their numbers of jobs and their files of rules, and what uses the outputs of what."""
    rules, edges = {}, set()
    for job in workflow.dag.jobs:
        if job.output:  # without the targets that only collect files
            stage = Path(str(job.rule.snakefile)).stem
            rules.setdefault(job.rule.name, {"jobs": 0, "stage": stage})["jobs"] += 1
            edges |= {(other.rule.name, job.rule.name) for other in workflow.dag.dependencies[job]}
    return {"rules": dict(sorted(rules.items())), "edges": sorted(edges)}


def check_request(request):
    """Refuse targets that no rule makes, and a comparison of nothing."""
    try:
        check_names(request.named, workflow.rules)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    if not ABLATED and "ablations" in request.targets:
        raise WorkflowError(
            f"recipe {recipe.name} names no report.ablations.comparisons; config/mini_ablations.yaml does"
        )


def was_interrupted():
    """Whether the run that has ended was stopped by Ctrl-C or SIGTERM: no job failed, and the executor did not either."""
    return not getattr(workflow.scheduler, "_executor_error", None)


def check_start():
    """Refuse to start without GPUs, permissions or room, or while jobs of an earlier run are in the cluster's queue."""
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_norun]
    cluster = "" if workflow.local_exec else workflow.executor_plugin.name
    try:
        check_devices(recipe, max((asked_gpus(job) for job in jobs), default=0), cluster, LOCAL_GPUS)
        brings_data = any(job.rule.name.startswith(("download_", "make_mini")) for job in jobs)
        check_permissions(recipe, DATA, Path(RESULTS), brings_data)
        if DOWNLOADS and brings_data and recipe.data.download.check_room:
            disk = recipe_estimate(recipe, RESULTS).disk
            check_room(list(room_needed(recipe, DATA, Path(RESULTS), disk.checkpoints + disk.results)))
        if cluster == "slurm":
            refuse_queued_jobs(Path.cwd())
    except UserError as error:
        raise WorkflowError(str(error)) from None


def asked_gpus(job):
    return job.rule.resources["gpu"].value if "gpu" in job.rule.resources else 0


def print_plan():
    """The last line of a plan: what it takes, and on what."""
    if workflow.scheduler is not None:  # else there is no plan: an error has been told
        gpus = f"{REQUEST.cluster} gives GPUs" if REQUEST.cluster else f"{len(LOCAL_GPUS)} GPUs here"
        print(plan_line(recipe, RESULTS, gpus), file=sys.stderr)


def cluster_logs():
    """Folder of what the cluster writes about jobs; None for a run without a cluster."""
    if workflow.executor_plugin.name != "slurm":
        return None
    return Path(workflow.executor_settings.logdir or ".snakemake/slurm_logs")


def named_files(names, files):
    """``NAME=FILE NAME=FILE ...`` for a step's command line, each an argument of its own."""
    return [f"{name}={file}" for name, file in zip(names, files)]


wildcard_constraints:
    variant=rf"(variants/({one_of(recipe.variants)})/)?",
    split=one_of(SPLITS),
    shard=r"\d+",
