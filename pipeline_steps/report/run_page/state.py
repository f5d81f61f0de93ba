"""How far a run is: which trainings are complete, which were interrupted, what is missing."""

from dataclasses import dataclass

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe.training import Model
from pipeline_steps.report.figures.inputs import Inputs
from pipeline_steps.report.grid import Grid, number
from pipeline_steps.run.result_files import ResultFiles

STAGE_NAMES = {"pretrain": "COCO pre-training", "finetune": "LVIS model", "experts": "expert"}


@dataclass(frozen=True)
class TrainingState:
    """One training of a run."""

    model: Model
    stage: str
    images: int  # images of the schedule
    seen: int | None  # images at the last report of the training; None if it has reported nothing
    complete: bool

    @property
    def problem(self) -> str:
        """Empty if the model is there."""
        if self.complete:
            return ""
        if self.seen is None:
            return f"{self.model.name}: the model is missing; it has not been trained yet"
        return (
            f"{self.model.name}: the training was interrupted after {self.seen:,} of {self.images:,} images and the "
            "model is missing; start the workflow again, it goes on from the last checkpoint"
        )


def training_states(files: ResultFiles) -> list[TrainingState]:
    """All trainings that the results of a recipe need."""
    try:
        curves = Inputs.of(files).training_curves()
    except UserError:
        curves = {}
    models = [files.recipe.model(name) for name in files.trained]
    return [
        TrainingState(
            model=model,
            stage=STAGE_NAMES[files.stage_of[model.name]],
            images=files.recipe.training_of(model).schedule.images,
            seen=int(curves[model.name]["images"].iloc[-1]) if model.name in curves else None,
            complete=files.model(model.name).is_file(),
        )
        for model in models
    ]


def trainings_grid(files: ResultFiles, states: list[TrainingState]) -> Grid:
    """A table of the trainings."""
    rows = []
    for state in states:
        model, recipe = state.model, files.recipe
        reached = "complete" if state.complete else ("interrupted" if state.seen is not None else "missing")
        learned = [model.init or "random weights", " + ".join(model.datasets), recipe.training_of(model).loss]
        seen = [str(recipe.seed_of(model)), number(state.seen), number(state.images)]
        rows.append([model.name, state.stage, reached, *learned, *seen])
    header = ["model", "kind", "state", "starts from", "data", "loss", "seed", "images seen", "of"]
    return Grid("Trainings", header, rows, 6, [])
