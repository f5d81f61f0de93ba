"""Files that a recipe names are looked for when it is read.

Not when Snakemake asks a rule for its inputs: what is raised there is swallowed as soon as the rule's output exists,
and a misspelt name then passes as "nothing to be done".
"""

import difflib
from pathlib import Path

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import nearest_file, require_file
from pipeline_steps.data.sources.source import Source, read_sources
from pipeline_steps.recipe.detectors import detector_files
from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.run.data_files import DatasetPaths


def check_named_files(recipe: Recipe, paths: DatasetPaths) -> dict[str, list[str]]:
    """Look for every file that ``recipe`` names and no stage makes.

    Returns:
        The detector file of each model and those that it is based on, by the model's name.

    Raises:
        UserError: a file is not there; the message names key and nearest existing name.
    """
    detectors = {model.name: detector_files(recipe, model.name) for model in recipe.trained}
    sources = read_sources(recipe.data.download.sources) if recipe.data.source == "download" else []
    if recipe.data.source == "download":  # the mini world has tables of its own
        require_file(paths.coco_table, "category table", "check data.coco_to_lvis")
        require_file(paths.openimages_table, "category table", "check data.openimages_to_lvis")
        require_file(paths.parents, "table of parents", "check data.parents")
    _check_weights(recipe, sources)
    return detectors


def _check_weights(recipe: Recipe, sources: list[Source]) -> None:
    """Every file of ``weights`` is on the disk or comes from one of the sources."""
    root = Path(recipe.datasets_root)
    fetched = [str(root / source.file) for source in sources if source.group == "weights"]
    for entry in recipe.weights:
        file = recipe.path(entry.file)
        if Path(file).is_file() or str(Path(file)) in fetched:
            continue
        near = difflib.get_close_matches(str(Path(file)), fetched, n=1, cutoff=0.8)
        hint = f"; did you mean {near[0]}?" if near else nearest_file(file)
        raise UserError(
            f"weights.{entry.name}: {file} is neither on the disk nor in a row of {recipe.data.download.sources} "
            f"with group weights{hint}"
        )
