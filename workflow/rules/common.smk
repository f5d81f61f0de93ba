# Shared by all rules: the checked recipe, where files are, how a step is started.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

sys.path.insert(0, str(Path(workflow.basedir).parent))

from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.paths import DatasetPaths
from pipeline_steps.recipe import slices
from pipeline_steps.recipe.banners import end_banner, failure_hint, start_banner
from pipeline_steps.recipe.detectors import detector_files
from pipeline_steps.recipe.load import recipe_text, resolve_recipe

try:
    recipe = resolve_recipe(config)
    validate(recipe.model_dump(), "../schemas/config.schema.yaml")
except UserError as error:
    raise WorkflowError(str(error)) from None

RESULTS = f"results/{recipe.name}"
RECIPE = f"{RESULTS}/recipe.yaml"  # the resolved recipe: written when a run starts, read by every step
LOGS, BENCHMARKS = f"{RESULTS}/logs", f"{RESULTS}/benchmarks"
DATA = DatasetPaths(recipe)
SHARDS = recipe.testing.shards
SPLITS = ["val", "test"]

STAGES = {"pretrain": recipe.pretraining, "finetune": recipe.models, "experts": recipe.experts}
FOLDER = {model.name: folder for folder, models in STAGES.items() for model in models}
MODELS = [model.name for model in recipe.models]
EXPERTS = [expert.name for expert in recipe.experts]
MEMBERS = [member.name for member in recipe.ensemble.members]

# Steps print to the terminal and to their log; the pipe ignores Ctrl-C so that a step's last words are kept.
STEP = f"{sys.executable} -m pipeline_steps"
LOG = "2>&1 | tee -i"


def one_of(names):
    """Wildcard pattern for exactly these names; matches nothing when there are none."""
    return "|".join(names) or "(?!)"


def model_file(name):
    """Final weights of a model of the recipe."""
    return f"{RESULTS}/{FOLDER[name]}/{name}/model.pth"


def initial_weights(name):
    """Weights that the training of ``name`` starts from; an empty list for random ones."""
    start = recipe.model(name).init
    if not start:
        return []
    return model_file(start) if start in FOLDER else f"{RESULTS}/weights/{start}.pth"


def training_resources(wildcards, attempt):
    return round(60 * recipe.compute.training_hours * attempt)


def inference_resources(wildcards, attempt):
    return round(60 * recipe.compute.inference_hours * attempt)


wildcard_constraints:
    split=one_of(SPLITS),
    shard=r"\d+",
