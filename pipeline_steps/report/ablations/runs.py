"""The runs of a comparison: files of each replicate, read when they are asked for; what is missing is told.

A *setting* is a model of the recipe with ``seeds``, or a single model; its *runs* are the models that it stands for.
"""

from __future__ import annotations

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
    metrics: dict[str, Path] = field(default_factory=dict)
    """metrics.json by model."""
    detections: dict[str, Path] = field(default_factory=dict)
    """Detections table on val by model."""
    gradients: dict[str, Path] = field(default_factory=dict)
    """gradients.csv by model."""

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

    @cached_property
    def _measured(self) -> dict[str, Measured]:
        names = [model.name for setting in self.settings for model in self.models(setting).values()]
        return {
            name: read_measured(name, self.metrics[name], self.recipe)
            if name in self.metrics
            else Measured(name, missing="no metrics given")
            for name in dict.fromkeys(names)
        }

    def measured(self, setting: str) -> dict[int, Measured]:
        """Metrics of each run of a setting by seed, missing ones included."""
        return {seed: self._measured[model.name] for seed, model in self.models(setting).items()}

    def values(self, setting: str, metric: str) -> dict[int, float]:
        """A metric by seed, for the runs that have it."""
        found = {seed: entry.get(metric) for seed, entry in self.measured(setting).items() if entry.is_lvis_mask_ap}
        return {seed: value for seed, value in found.items() if value is not None}

    def missing(self) -> dict[str, str]:
        """Models without usable metrics, and why."""
        return {
            name: entry.missing or "no mask AP by the LVIS protocol"
            for name, entry in self._measured.items()
            if not entry.is_lvis_mask_ap
        }

    def files(self, which: dict[str, Path], setting: str) -> dict[int, Path]:
        """Existing files of one kind by seed."""
        found = {seed: which.get(model.name) for seed, model in self.models(setting).items()}
        return {seed: path for seed, path in found.items() if path is not None and path.is_file()}
