"""The workflow runs from any folder: as a module of another workflow, and by the path of its Snakefile."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline_steps.recipe.load import load_recipe
from tests.workflow.checkout import ROOT, Checkout

MODULE = """
module lvis:
    snakefile: {snakefile!r}
    config: {config}

use rule * from lvis{names}
"""
BOXES = "data/smoke/derived/coco_boxes_train.json"
CONFIG = {"extends": "smoke.yaml", "datasets_root": "data/smoke"}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Checkout:
    """A checkout in a folder with a name that shells trip over; commands run in another, empty folder."""
    checkout = Checkout(tmp_path / "it's a checkout")
    checkout.folder = tmp_path / "empty"
    checkout.folder.mkdir()
    return checkout


def snakefile(elsewhere: Checkout) -> Path:
    return elsewhere.folder.parent / "it's a checkout/workflow/Snakefile"


@pytest.mark.parametrize("names", ["", " as lvis_*"])
def test_rules_of_a_module_run_in_an_empty_folder(elsewhere, names):
    text = MODULE.format(snakefile=str(snakefile(elsewhere)), config=CONFIG, names=names)
    (elsewhere.folder / "Snakefile").write_text(text)
    planned = elsewhere.run("--cores", "1", "-n", "--", BOXES)
    assert planned.returncode == 0, planned.stdout[-3000:]
    assert not (elsewhere.folder / "results").exists()
    result = elsewhere.run("--cores", "1", "--", BOXES)
    assert result.returncode == 0, result.stdout[-3000:]
    assert (elsewhere.folder / BOXES).stat().st_size > 0
    # With the resolved recipe, which steps read; in the checkout nothing was made.
    assert load_recipe(elsewhere.folder / "results/smoke/recipe.yaml").datasets_root == "data/smoke"
    assert not {"results", "datasets", "data"} & {path.name for path in snakefile(elsewhere).parents[1].iterdir()}


def test_the_snakefile_runs_by_its_path_and_finds_its_own_files(elsewhere):
    (elsewhere.folder / "mine.yaml").write_text(yaml.safe_dump(CONFIG))
    start = ("--snakefile", str(snakefile(elsewhere)))
    result = elsewhere.run(*start, "--configfile", "mine.yaml", "--cores", "1", "--", BOXES)
    assert result.returncode == 0, result.stdout[-3000:]
    assert (elsewhere.folder / BOXES).stat().st_size > 0
    # Detectors, category tables and the table of sources of the default recipe, which a profile chooses.
    profile = ("--profile", str(snakefile(elsewhere).parents[1] / "slurm"))
    result = elsewhere.run(*start, *profile, "-n", "-p", "--", "submission")
    assert result.returncode == 0, result.stdout[-3000:]
    assert "config/detectors/x101_dcn_fpn.yaml" in result.stdout
    assert "config/categories/openimages_to_lvis.csv" in result.stdout


def test_the_catalog_of_workflows_finds_what_it_expects():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    assert usage["software-stack-deployment"] == {"conda": True}
    assert usage["report"] is True
    for file in ("workflow/Snakefile", "config/README.md", "README.md", "LICENSE", "workflow/environment/conda.yaml"):
        assert (ROOT / file).is_file()
