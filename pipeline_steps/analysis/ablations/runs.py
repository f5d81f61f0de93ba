"""The runs of a comparison: files of each replicate, read when they are asked for; what is missing is told.

A *setting* is a model of the recipe with ``seeds``, or a single model; its *runs* are the models that it stands for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline_steps.analysis.measured import Measured, read_measured
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.training import Model

METRICS = {"AP": "AP", "APr": "AP_r", "APc": "AP_c", "APf": "AP_f", "AP_fixed": "AP_fixed"}
"""Key in metrics files -> column of the tables."""


@dataclass(frozen=True)
class Runs:
    """Files of the compared models; every one may be missing."""

    recipe: Recipe
    metrics: dict[str, Path] = field(default_factory=dict)  # metrics.json by model
    detections: dict[str, Path] = field(default_factory=dict)  # detections table on val by model
    gradients: dict[str, Path] = field(default_factory=dict)  # gradients.csv by model

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """Pairs of a setting and what it is compared with."""
        named = self.recipe.report.ablations.comparisons
        return [(setting, reference) for setting, references in named.items() for reference in references]

    @property
    def settings(self) -> list[str]:
        """All settings, in the order of the recipe's models."""
        named = {name for pair in self.comparisons for name in pair}
        order = [name for model in self.recipe.models for name in (model.replicate_of, model.name)]
        return [name for name in dict.fromkeys(order) if name in named]

    def models(self, setting: str) -> dict[int, Model]:
        """The runs of a setting by seed."""
        return {self.recipe.seed_of(model): model for model in self.recipe.replicates(setting)}

    def all(self) -> Iterator[tuple[str, int, Model]]:
        """Setting, seed and model of every run."""
        return ((setting, seed, model) for setting in self.settings for seed, model in self.models(setting).items())

    def existing(self, files: Mapping[str, Path]) -> Iterator[tuple[str, int, Path]]:
        """Setting, seed and file of every run that has one of a kind."""
        for setting, seed, model in self.all():
            if model.name in files and files[model.name].is_file():
                yield setting, seed, files[model.name]

    def has_loss(self, setting: str, loss: str) -> bool:
        """Whether all runs of a setting train with this loss."""
        return {self.recipe.training_of(model).loss for model in self.models(setting).values()} == {loss}

    @property
    def equalized(self) -> list[tuple[str, str]]:
        """Comparisons of EQL with the sigmoid loss."""
        return [(a, b) for a, b in self.comparisons if self.has_loss(a, "eql") and self.has_loss(b, "sigmoid")]

    @cached_property
    def measured(self) -> dict[str, Measured]:
        """Metrics by model, missing ones included."""
        return {
            model.name: read_measured(model.name, self.metrics[model.name], self.recipe)
            if model.name in self.metrics
            else Measured(model.name, missing="no metrics given")
            for _, _, model in self.all()
        }

    def missing(self) -> dict[str, str]:
        """Models without usable metrics, and why."""
        return {
            name: entry.missing or "no mask AP by the LVIS protocol"
            for name, entry in self.measured.items()
            if not entry.is_lvis_mask_ap
        }
