"""The one place that knows which results a recipe has and where they lie below ``results/<recipe>/``.

Rules of the workflow, the page of a run, messages, estimates and steps ask here. Files with wildcards are a
:class:`Pattern`, which stands in a rule as it is; its ``of(...)`` names one file. A variant of testing and merging has
the same folders as the recipe itself, below ``variants/<name>/``; boxes that the recipe, or a variant named before,
predicts with the same settings are not predicted again.
"""

from functools import cached_property
from pathlib import Path
from typing import Self

from pipeline_steps.recipe.schema import ENSEMBLE, Recipe, names
from pipeline_steps.run.stage_settings import boxes_settings

SPLITS = ("val", "test")
RECIPE_FILE = "recipe.yaml"
"""The resolved recipe of a run or a variant, in the folder of its results."""
METRICS_FILE, GRADIENTS_FILE = "metrics.jsonl", "gradients.csv"
"""What a training leaves beside its model: its progress, and gradients by category if they are recorded."""


def results_folder(recipe: Recipe) -> Path:
    """Folder of a recipe's results, below the working folder."""
    return Path("results", recipe.name)


def variant_folder(name: str) -> str:
    """Value of the wildcard ``variant`` for a variant of the recipe."""
    return f"variants/{name}/"


class Pattern(str):
    """Names of files, with Snakemake's wildcards; ``variant`` is empty or ``variants/<name>/``."""

    _root: Path
    _name: str

    def __new__(cls, root: Path, name: str) -> Self:
        pattern = super().__new__(cls, f"{root}/{name}")
        pattern._root, pattern._name = root, name
        return pattern

    def of(self, **wildcards: str) -> Path:
        """The file for a value of every wildcard; that of the recipe itself if no ``variant`` is given."""
        return Path(self._root, self._name.format(**{"variant": "", **wildcards}))


class ResultFiles:
    """Names of all results of a recipe; any of the files may be missing.

    Attributes:
        recipe: the recipe.
        root: folder of its results.
    """

    def __init__(self, recipe: Recipe, root: Path | None = None) -> None:
        self.recipe = recipe
        self.root = root = root or results_folder(recipe)
        self.logs, self.benchmarks = root / "logs", root / "benchmarks"
        self.rule_graph = root / "rule_graph.json"
        self.shard = f"{{shard}}-of-{recipe.testing.shards}"

        def pattern(name: str) -> Pattern:
            return Pattern(root, name)

        self.recipe_file = pattern("{variant}" + RECIPE_FILE)
        self.weights = pattern("weights/{name}.pth")
        self.training = {stage: pattern(f"{stage}/{{model}}/model.pth") for stage in recipe.stages}
        self.boxes_shard = pattern(f"{{variant}}predictions/{{split}}/{{member}}/boxes_shards/{self.shard}.parquet")
        self.member_boxes = pattern("{variant}predictions/{split}/{member}/boxes.parquet")
        self.ensemble_boxes = pattern("{variant}ensemble/{split}/boxes.parquet")
        # With masks: `boxes` is one of `masked`.
        self.boxes = pattern("{variant}{boxes}/boxes.parquet")
        self.masks_shard = pattern(f"{{variant}}{{boxes}}/masks_shards/{self.shard}.parquet")
        self.detections = pattern("{variant}{boxes}/detections.parquet")
        analysis = root / "analysis"  # what figures and the comparison of settings are drawn from
        self.ensemble_gain, self.rescoring = analysis / "ensemble_gain.json", analysis / "rescoring.json"
        self.scores, self.ablations_file = analysis / "scores.json", analysis / "ablations.json"
        self.evaluation = root / "evaluation"
        self.metrics = pattern("evaluation/{name}/metrics.json")
        self.categories = pattern("evaluation/{name}/categories.csv")
        self.comparison = self.evaluation / "comparison.json"
        self.submission, self.submission_zip = root / "submission/submission.json", root / "submission/submission.zip"
        report = root / "report"
        self.summary, self.summary_csv = report / "summary.md", report / "summary.csv"
        self.table, self.table_csv = pattern("report/{table}.md"), pattern("report/{table}.csv")
        self.gallery, self.gallery_picture = report / "gallery.html", report / "gallery.png"
        self.samples, self.missing_annotations = report / "samples.json", report / "missing_annotations.html"
        self.figures, self.ablations, self.page = report / "figures", report / "ablations", report / "index.html"
        self.ablations_page = self.ablations / "index.html"

    def log(self, name: str) -> str:
        """Pattern of the logs of a rule's jobs."""
        return f"{self.logs}/{name.replace('{shard}', self.shard)}.log"

    def benchmark(self, name: str) -> str:
        """Pattern of the times of a rule's jobs."""
        return f"{self.benchmarks}/{name.replace('{shard}', self.shard)}.tsv"

    # Trainings

    @cached_property
    def stage_of(self) -> dict[str, str]:
        """Stage of each training."""
        return {name: stage for stage, models in self.recipe.stages.items() for name in names(models)}

    def model(self, name: str) -> Path:
        """Final weights of a model of the recipe, or converted weights."""
        stage = self.stage_of.get(name)
        return self.training[stage].of(model=name) if stage else self.weights.of(name=name)

    def initial_weights(self, name: str) -> list[Path]:
        """Weights that a training starts from; none for random ones."""
        start = self.recipe.model(name).init
        return [self.model(start)] if start else []

    def beside_model(self, name: str, file: str) -> Path:
        """One of the files that a training leaves beside its model."""
        return self.model(name).with_name(file)

    @cached_property
    def predicted(self) -> list[str]:
        """Models with boxes on both splits: members, and LVIS models, which are evaluated even when they are none."""
        return list(dict.fromkeys([*names(self.recipe.models), *names(self.recipe.ensemble.members)]))

    @cached_property
    def trained(self) -> list[str]:
        """Models that results need: :attr:`predicted`, and the pre-trainings that they start from."""
        starts = [self.recipe.model(name).init for name in self.predicted]
        return list(dict.fromkeys([*(start for start in starts if start in self.stage_of), *self.predicted]))

    # Testing and merging

    @cached_property
    def tested(self) -> dict[str, Recipe]:
        """The recipe and its variants by the value of ``variant``: ``""`` is the recipe."""
        return {"": self.recipe} | {variant_folder(name): self.recipe.variant(name) for name in self.recipe.variants}

    @cached_property
    def masked(self) -> list[str]:
        """Values of ``boxes``: folders of boxes that get masks."""
        models = names(self.recipe.models)
        return [*(f"predictions/val/{name}" for name in models), *(f"ensemble/{split}" for split in SPLITS)]

    def members_boxes(self, split: str, variant: str = "") -> dict[str, Path]:
        """Boxes that are merged, by member: those of an earlier variant where these are made with the same settings."""
        settings = boxes_settings(self.tested[variant])
        origin = next(other for other, recipe in self.tested.items() if boxes_settings(recipe) == settings)
        members = names(self.tested[variant].ensemble.members)
        return {name: self.member_boxes.of(variant=origin, split=split, member=name) for name in members}

    def mask_models(self, boxes: str, variant: str = "") -> dict[str, Path]:
        """Models that predict the masks of ``boxes``: a model its own, all mask models those of the ensemble."""
        owner = Path(boxes).name
        own = owner in names(self.recipe.models)
        return {name: self.model(name) for name in ([owner] if own else self.tested[variant].mask_models())}

    def ensemble(self, split: str, variant: str = "") -> Path:
        """Detections of the ensemble."""
        return self.detections.of(variant=variant, boxes=f"ensemble/{split}")

    # Evaluation

    @cached_property
    def evaluated(self) -> dict[str, Path]:
        """Detections of each evaluation: masks of LVIS models and of the ensemble, boxes of experts in it."""
        experts = names(self.recipe.experts)
        return {
            name: self.ensemble("val")
            if name == ENSEMBLE
            else self.member_boxes.of(split="val", member=name)
            if name in experts
            else self.detections.of(boxes=f"predictions/val/{name}")
            for name in self.recipe.evaluations
        }

    @cached_property
    def variants(self) -> dict[str, Path]:
        """Detections of each variant, which are evaluated for tables only."""
        return {name: self.ensemble("val", variant_folder(name)) for name in self.recipe.variants}

    def table_evaluations(self, table: str) -> list[str]:
        """Evaluations that stand in a table of the paper, each once."""
        rows = self.recipe.report.tables.get(table, {})
        return list(dict.fromkeys(name for evaluations in rows.values() for name in evaluations))

    @cached_property
    def compared(self) -> list[str]:
        """Models that are compared over seeds."""
        settings = self.recipe.report.ablations.comparisons.items()
        asked = [name for setting, references in settings for name in (setting, *references)]
        return list(dict.fromkeys(model.name for name in asked for model in self.recipe.replicates(name)))
