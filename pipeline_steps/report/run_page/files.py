"""Where the files of a run lie below its results folder; any of them may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.training import Model
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.tables import ENSEMBLE


@dataclass(frozen=True)
class RunFiles:
    """Names of the files that the workflow makes."""

    recipe: Recipe
    root: Path
    """``results/<recipe>``."""

    @cached_property
    def stages(self) -> dict[str, str]:
        """Folder of each model: ``pretrain``, ``finetune`` or ``experts``."""
        recipe = self.recipe
        stages: dict[str, Sequence[Model]] = {
            "pretrain": recipe.pretraining,
            "finetune": recipe.models,
            "experts": recipe.experts,
        }
        return {model.name: folder for folder, models in stages.items() for model in models}

    @cached_property
    def trained(self) -> list[Model]:
        """Models that the results need: LVIS models, members, and the pre-trainings that they start from."""
        members = [member.name for member in self.recipe.ensemble.members]
        predicted = list(dict.fromkeys([*(model.name for model in self.recipe.models), *members]))
        starts = [self.recipe.model(name).init for name in predicted]
        names = dict.fromkeys([*(start for start in starts if start in self.stages), *predicted])
        return [self.recipe.model(name) for name in names]

    @cached_property
    def evaluated(self) -> list[str]:
        """Evaluations: of LVIS models, of experts in the ensemble, of the ensemble."""
        members = {member.name for member in self.recipe.ensemble.members}
        experts = [expert.name for expert in self.recipe.experts if expert.name in members]
        return [*(model.name for model in self.recipe.models), *experts, ENSEMBLE]

    def training(self, name: str) -> Path:
        """Folder of a training."""
        return self.root / self.stages[name] / name

    def metrics_of(self, name: str) -> Path:
        """metrics.json of an evaluation."""
        return self.root / "evaluation" / name / "metrics.json"

    @property
    def metrics(self) -> dict[str, Path]:
        """metrics.json of each of :attr:`evaluated`."""
        return {name: self.metrics_of(name) for name in self.evaluated}

    @property
    def detections(self) -> Path:
        """The ensemble's detections on val."""
        return self.root / "ensemble/val/detections.parquet"

    @property
    def figures(self) -> Path:
        """Folder of figures."""
        return self.root / "report/figures"

    @property
    def gallery(self) -> Path:
        """Page of pictures."""
        return self.root / "report/gallery.html"

    @property
    def samples(self) -> Path:
        """Counted samples of the box head."""
        return self.root / "report/samples.json"

    @property
    def missing_annotations(self) -> Path:
        """Page of missing annotations."""
        return self.root / "report/missing_annotations.html"

    @property
    def ablations(self) -> Path:
        """Page of settings compared over seeds; most recipes compare none."""
        return self.root / "report/ablations/index.html"

    @property
    def rule_graph(self) -> Path:
        """Rules of the workflow and what they need of each other."""
        return self.root / "rule_graph.json"

    def inputs(self) -> Inputs:
        """What figures are drawn from."""
        return Inputs(
            recipe=self.recipe,
            metrics=self.metrics,
            categories={name: path.with_name("categories.csv") for name, path in self.metrics.items()},
            trainings={model.name: self.training(model.name) / "metrics.jsonl" for model in self.trained},
            detections=self.detections,
            boxes={
                m.name: self.root / "predictions/val" / m.name / "boxes.parquet" for m in self.recipe.ensemble.members
            },
            samples=self.samples,
        )
