"""The recipe as a whole, with the checks that need more than one section."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe.base import LvisVersion, PathText, Section
from pipeline_steps.recipe.data import Data
from pipeline_steps.recipe.layers import explain, merged
from pipeline_steps.recipe.replicates import expand_replicates
from pipeline_steps.recipe.testing import Compute, Ensemble, Evaluation, Report, Testing, Variant
from pipeline_steps.recipe.training import NAME, Expert, Model, Name, Precision, Training, Weights

Entry = TypeVar("Entry", Model, Expert, Weights)


ENSEMBLE = "ensemble"
"""Name of the ensemble's evaluation."""


class Named(Protocol):
    """An entry of one of a recipe's lists."""

    @property
    def name(self) -> str: ...


def names(entries: Iterable[Named]) -> list[str]:
    """Names of models, members or other entries of a recipe."""
    return [entry.name for entry in entries]


class Recipe(Section):
    """A recipe: everything between an empty disk and a submission."""

    name: str = Name
    """Name of the recipe; its outputs are below ``results/<name>/``."""
    recipe_version: int = Field(1, ge=1)
    """Raise it to train everything again although no setting has changed."""
    lvis_version: LvisVersion = "v0.5"
    """LVIS release."""
    datasets_root: PathText = Field("datasets", min_length=1)
    """Folder of all data sets."""
    seed: int = Field(0, ge=0)
    """Seed of trainings that do not give their own."""
    data: Data = Data()
    """Data stage."""
    training: Training = Training()
    """Training defaults; each model may override keys."""
    weights: list[Weights] = []
    """Public weights to convert."""
    pretraining: list[Model] = []
    """COCO pre-trainings."""
    models: list[Model] = Field(min_length=1)
    """LVIS models: fine-tuned, evaluated, and available to the ensemble."""
    experts: list[Expert] = []
    """Expert models for the ensemble."""
    testing: Testing = Testing()
    """Test inference."""
    ensemble: Ensemble
    """Ensemble."""
    variants: dict[str, Variant] = {}
    """Further ways of testing and merging, by name; evaluated where ``report.tables`` names them."""
    evaluation: Evaluation = Evaluation()
    """Evaluation."""
    report: Report = Report()
    """Report."""
    compute: Compute = Compute()
    """Resources."""

    @model_validator(mode="before")
    @classmethod
    def _replicates(cls, values: Any) -> Any:
        return expand_replicates(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _references(self) -> Self:
        if "{" in self.datasets_root:
            raise ValueError(f"datasets_root: {self.datasets_root!r} contains braces, which are wildcards in Snakemake")
        used = names((*self.trained, *self.weights))
        for name in used:
            if used.count(name) > 1:
                raise ValueError(f"the name {name!r} is used twice among pretraining, models, experts and weights")
        starts = {"", *names(self.pretraining), *names(self.weights)}
        for model in self.trained:
            if model.init not in starts:
                raise ValueError(f"{model.name}: init {model.init!r} is neither a model of pretraining nor of weights")
            self.training_of(model)
        self._check_tested(self.testing, self.ensemble)
        for name in self.variants:
            self._check_tested(*self._sections_of(name), f"variants.{name}: ")
        self._check_evaluations()
        self._check_ablations()
        if not self.data.openimages.enabled:
            for model in self.trained:
                if images := [name for name in model.datasets if name.startswith("openimages")]:
                    raise ValueError(f"{model.name} trains on {images[0]}, but data.openimages.enabled is false")
        return self

    def _check_tested(self, testing: Testing, ensemble: Ensemble, origin: str = "") -> None:
        models = names(self.models)
        for member in ensemble.members:
            if member.name not in (*models, *names(self.experts)):
                raise ValueError(f"{origin}ensemble member {member.name!r} is neither a model nor an expert")
        for name in testing.mask_models:
            if name not in models:
                raise ValueError(f"{origin}testing.mask_models: {name!r} is not a model")

    def _check_evaluations(self) -> None:
        taken = {ENSEMBLE, *names((*self.models, *self.experts))}
        for name in self.variants:
            if name in taken or not re.fullmatch(NAME, name):
                raise ValueError(f"variants: {name!r} is not valid: use letters, digits and _, and a name of its own")
        known = {*self.evaluations, *self.variants}
        for table, rows in self.report.tables.items():
            for row, evaluations in rows.items():
                if strangers := [name for name in evaluations if name not in known]:
                    raise ValueError(
                        f"report.tables.{table}.{row}: {strangers[0]!r} is neither a model nor a variant, "
                        "neither an expert of the ensemble nor 'ensemble'"
                    )

    def _sections_of(self, variant: str) -> tuple[Testing, Ensemble]:
        """``testing`` and ``ensemble`` with the overrides of a variant."""
        overrides = self.variants[variant]

        def overridden(section: BaseModel, key: str) -> Any:
            place, kind = f"variants.{variant}.{key}", type(section)
            values = merged(section.model_dump(), getattr(overrides, key), kind, f"{place}.")
            try:
                return kind.model_validate(values)
            except ValidationError as error:
                raise ValueError(f"{place}: {explain(error, kind)}") from None

        return overridden(self.testing, "testing"), overridden(self.ensemble, "ensemble")

    def variant(self, name: str) -> Self:
        """This recipe with the testing and ensembling of one of its ``variants``, without variants and tables."""
        testing, ensemble = self._sections_of(name)
        report = self.report.model_copy(update={"tables": {}})
        return self.model_copy(update={"testing": testing, "ensemble": ensemble, "report": report, "variants": {}})

    def _check_ablations(self) -> None:
        settings = {name for model in self.models for name in (model.name, model.replicate_of) if name}
        for setting, references in self.report.ablations.comparisons.items():
            for name in (setting, *references):
                if name not in settings:
                    raise ValueError(f"report.ablations.comparisons: {name!r} is not a model")

    @property
    def stages(self) -> dict[str, list[Model]]:
        """What is trained, by stage, which is also the folder of the results."""
        return {"pretrain": self.pretraining, "finetune": self.models, "experts": [*self.experts]}

    @property
    def trained(self) -> list[Model]:
        """All that is trained: pre-trainings, models and experts."""
        return [model for models in self.stages.values() for model in models]

    @property
    def expert_vocabularies(self) -> dict[str, str]:
        """Data set of the categories of each expert, by its name."""
        return {expert.name: expert.category_table for expert in self.experts}

    @property
    def evaluations(self) -> list[str]:
        """What is evaluated on val: LVIS models, experts in the ensemble, the ensemble."""
        members = names(self.ensemble.members)
        experts = [expert.name for expert in self.experts if expert.name in members]
        return [*names(self.models), *experts, ENSEMBLE]

    def _entry(self, what: str, name: str, entries: Sequence[Entry]) -> Entry:
        for entry in entries:
            if entry.name == name:
                return entry
        raise UserError(
            f"recipe {self.name} has no {what} {name!r}; it has {', '.join(entry.name for entry in entries) or 'none'}"
        )

    def model(self, name: str) -> Model:
        """The model, expert or pre-training called ``name`` (UserError if there is none)."""
        return self._entry("model", name, self.trained)

    def tested(self, name: str) -> Model:
        """The model or expert called ``name`` (UserError if there is none)."""
        return self._entry("model or expert", name, [*self.models, *self.experts])

    def expert(self, name: str) -> Expert:
        """The expert called ``name`` (UserError if there is none)."""
        return self._entry("expert", name, self.experts)

    def weights_entry(self, name: str) -> Weights:
        """The entry of ``weights`` called ``name`` (UserError if there is none)."""
        return self._entry("weights", name, self.weights)

    def training_of(self, model: Model) -> Training:
        """The training settings of ``model``: the recipe's defaults with the model's overrides."""
        values = merged(self.training.model_dump(), model.training, Training, f"training of {model.name}: ")
        try:
            return Training.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"training of {model.name}: {explain(error, Training)}") from None

    def replicates(self, setting: str) -> list[Model]:
        """The models that are runs of ``setting``: its replicates, or the one model of this name."""
        return [model for model in self.models if setting in (model.name, model.replicate_of)]

    def images_seen(self, model: Model) -> int:
        """Images that ``model`` is trained on, those of its pre-training in this recipe included."""
        images = self.training_of(model).schedule.images
        starts = [start for start in self.pretraining if start.name == model.init]
        return images + sum(self.images_seen(start) for start in starts)

    def seed_of(self, model: Model) -> int:
        """Seed of the training of ``model``."""
        return self.seed if model.seed is None else model.seed

    def test_precision(self, name: str) -> Precision:
        """Autocast precision of the inference of the model or expert called ``name``."""
        chosen = self.testing.precision
        return self.training_of(self.model(name)).precision if chosen == "as_trained" else chosen

    def mask_models(self) -> list[str]:
        """Names of the models whose soft masks are averaged."""
        return list(self.testing.mask_models) or [model.name for model in self.models]

    def path(self, text: str) -> str:
        """``text`` with ``{datasets_root}`` replaced."""
        return text.replace("{datasets_root}", self.datasets_root)
