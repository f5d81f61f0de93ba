"""What figures are drawn from: files of a run, read when a figure asks for them."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from pipeline_steps.analysis.measured import Measured, read_measured
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import note_input
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.lvis import read_categories
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.result_files import METRICS_FILE, ResultFiles


@dataclass(frozen=True)
class Inputs:
    """Files of a run; every one may be missing."""

    recipe: Recipe
    metrics: dict[str, Path] = field(default_factory=dict)  # metrics.json by evaluation
    categories: dict[str, Path] = field(default_factory=dict)  # categories.csv by evaluation
    trainings: dict[str, Path] = field(default_factory=dict)  # metrics.jsonl by model
    ensemble_gain: Path | None = None  # result of the measure_ensemble_gain step
    rescoring: Path | None = None  # result of the sweep_rescoring step
    scores: Path | None = None  # result of the judge_detections step
    samples: Path | None = None  # counts of the count_samples step

    @classmethod
    def of(cls, files: ResultFiles) -> "Inputs":
        """What a run has left, or will."""
        evaluations = files.recipe.evaluations
        return cls(
            recipe=files.recipe,
            metrics={name: files.metrics.of(name=name) for name in evaluations},
            categories={name: files.categories.of(name=name) for name in evaluations},
            trainings={name: files.beside_model(name, METRICS_FILE) for name in files.trained},
            ensemble_gain=files.ensemble_gain,
            rescoring=files.rescoring,
            scores=files.scores,
            samples=files.samples,
        )

    @cached_property
    def paths(self) -> DatasetPaths:
        """Names of the data files."""
        return DatasetPaths(self.recipe)

    @cached_property
    def train_categories(self) -> CategoryList:
        """Categories of the train file, with their image counts."""
        return read_categories(self.paths.lvis_train)

    @cached_property
    def lvis_evaluations(self) -> list[Measured]:
        """Evaluations by the LVIS protocol that can be read, in the order given."""
        every = [read_measured(name, path, self.recipe) for name, path in self.metrics.items()]
        found = [entry for entry in every if entry.metrics.get("format") == "lvis"]
        if not found:
            raise UserError("; ".join(e.missing for e in every if e.missing) or "no metrics of an LVIS evaluation")
        return found

    def category_results(self) -> dict[str, pd.DataFrame]:
        """Per-category results of LVIS evaluations that can be read, by evaluation."""
        tables = {}
        for name, path in self.categories.items():
            try:
                table = pd.read_csv(note_input(path), keep_default_na=False, na_values=[""])
            except (OSError, ValueError):
                continue
            complete = {"AP", "AP_fixed", "frequency", "category_id"} <= set(table)
            if complete and table["frequency"].isin(["r", "c", "f"]).all():
                tables[name] = table
        if not tables:
            raise UserError("no per-category results of an LVIS evaluation")
        return tables

    def training_curves(self) -> dict[str, pd.DataFrame]:
        """Lines of metrics.jsonl by model; a line that was cut off is left out."""
        curves = {}
        for name, path in self.trainings.items():
            if not path.is_file():
                continue
            lines = []
            for text in note_input(path).read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except json.JSONDecodeError:
                    continue
                if isinstance(line, dict) and "images" in line:
                    lines.append(line)
            if lines:
                curves[name] = pd.DataFrame(lines)
        if not curves:
            raise UserError("no training metrics (metrics.jsonl)")
        return curves
