"""A run starts only as it was meant: a chosen recipe, and files and targets that exist."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from pipeline_steps.analysis.published import check_tables
from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import load_recipe, resolve_recipe
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.starting.command_line import read_request
from pipeline_steps.starting.configfiles import check_recipes, is_dry_run, named_recipes, quiet_about
from pipeline_steps.starting.named_files import check_named_files
from tests.workflow.checkout import ROOT

WAYS = ("make demo", "snakemake --profile slurm", "snakemake --profile workstation", "config/challenge.yaml")
CHALLENGE = {"extends": "challenge.yaml"}


def test_without_a_choice_nothing_starts_and_the_ways_to_start_are_told(checkout):
    result = checkout.run("--cores", "1", "inspect")
    assert result.returncode == 1
    assert all(f"{way} inspect\n" in result.stdout for way in WAYS[1:3])
    assert all(way in result.stdout for way in WAYS)
    assert "Traceback" not in result.stdout
    assert not (checkout.folder / "results").exists()


def refusal(*arguments: str) -> str | None:
    request = read_request(["/bin/snakemake", *arguments])
    return request and request.refuse_without_choice()


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)


def test_what_is_refused_without_a_recipe_and_what_is_not(at_root, monkeypatch):
    for arguments in (["--cores", "1"], ["--cores", "1", "inspect"], ["-n"], ["--cores", "1", "--config", "seed=3"]):
        assert refusal(*arguments), arguments
    assert "--profile slurm table3\n" in refusal("--cores", "1", "table3")
    looks = (["--lint"], ["--report", "r.html"], ["--unlock"], ["--list-rules"], ["--dag"], ["--summary"], ["--touch"])
    for arguments in (["--profile", "slurm", "all"], ["--profile", "workstation"], ["-n", "table5"], *looks):
        assert refusal(*arguments) is None, arguments
    assert refusal("--cores", "1", "all", "--mode", "remote") is None  # a job
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "slurm")
    assert refusal("all") is None
    assert read_request(["/somewhere/uses_snakemake.py", "--cores", "1"]) is None


def test_a_plan_counts_the_jobs_of_each_rule_and_ends_with_what_they_take(checkout):
    result = checkout.run("--profile", "slurm", "-n")
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stdout
    assert len(lines) < 150
    assert "predict_boxes 256" in [" ".join(line.split()) for line in lines]
    assert lines[-1].startswith("recipe challenge: ")
    assert all(word in lines[-1] for word in ("GPU hours", "slurm"))
    assert not (checkout.folder / "results").exists()


def test_details_of_a_plan_are_shown_where_they_are_asked_for():
    assert quiet_about(["-n", "all"])
    assert quiet_about(["--dry-run"])
    for arguments in (["all"], ["-np"], ["-n", "-p"], ["-n", "--printshellcmds"], ["-n", "--verbose"]):
        assert quiet_about(arguments) is None


@pytest.mark.parametrize("arguments", [["-n"], ["all", "--dry-run"], ["--dryrun"], ["-np", "all"], ["-Fn"]])
def test_dry_runs_are_recognised(arguments):
    assert is_dry_run(arguments)


@pytest.mark.parametrize("arguments", [["all"], ["--lint"], ["--cores", "n"], ["-j", "4"], ["--config", "name=n"]])
def test_other_runs_are_not_taken_for_dry_runs(arguments):
    assert not is_dry_run(arguments)


def test_recipes_of_a_command_line_are_all_words_up_to_the_next_option():
    line = ["--configfile", "a.yaml", "b.yaml", "--cores", "2", "all", "--configfiles=c.yaml", "d", "--", "e"]
    assert list(named_recipes(line)) == ["a.yaml", "b.yaml", "c.yaml", "d"]


def test_target_that_was_taken_for_a_recipe_is_told_with_the_command_to_write(checkout):
    result = checkout.run("--cores", "1", "--configfile", "config/mini.yaml", "all")
    assert result.returncode != 0
    assert "'all' was read as another recipe" in result.stdout
    assert "snakemake --configfile config/mini.yaml ... -- all" in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1\nb: [1\nc: 2\n", "line 3, column 2: not valid YAML"),
        ("name: x\n\tseed: 1\n", "line 2, column 1: not valid YAML"),
        ("[1]", "expected keys and values, found list"),
        ("name: é\n", "is not valid YAML"),
    ],
)
def test_recipe_that_cannot_be_read_is_named_with_its_line(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError) as error:
        check_recipes(["--cores", "1", "--configfile", str(path)])
    assert str(error.value).startswith(str(path))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_broken_recipe_stops_snakemake_before_its_own_message(checkout):
    (checkout.folder / "mine.yaml").write_text("a: [1\nb: {\n")
    result = checkout.run("--cores", "1", "--configfile", "mine.yaml", "--", "all")
    assert result.returncode != 0
    assert "error: mine.yaml, line 2, column 2: not valid YAML" in result.stdout


def test_misspelt_recipe_is_told_with_the_nearest_one(at_root):
    with pytest.raises(UserError, match=r"not found: config/minni\.yaml; did you mean config/mini\.yaml\?"):
        check_recipes(["--configfile", "config/minni.yaml"])


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("-R", "rescor_ensemble", "--", "all"), "did you mean rescore_ensemble"),
        (("--", "evaluation", "results/smoke/report/sumary.md"), "did you mean results/smoke/report/summary.md"),
    ],
)
def test_misspelt_target_is_told_with_the_nearest_names(checkout, arguments, near):
    result = checkout.run("--configfile", "config/smoke.yaml", "--cores", "1", *arguments)
    assert result.returncode != 0
    assert near in result.stdout, result.stdout
    assert "did you mean" in result.stdout


MISSPELT = [
    ({"models": [{"name": "x101", "detector": "config/detectors/x101_dnc_fpn.yaml"}]}, "config/detectors/x101_dcn_fpn"),
    ({"data": {"coco_to_lvis": "config/categories/coco_to_lvsi.csv"}}, "config/categories/coco_to_lvis.csv"),
    ({"data": {"openimages_to_lvis": "config/categorys/openimages_to_lvis.csv"}}, "config/categories"),
    ({"data": {"parents": "config/categories/parent.csv"}}, "config/categories/parents.csv"),
    ({"data": {"download": {"sources": "config/source.csv"}}}, "config/sources.csv"),
    (
        {
            "weights": [
                {"name": "imagenet_x101", "file": "{datasets_root}/weights/resnext101_64x4d-173b62bb.pth"}
                | {"layout": "torchvision_resnext"},
                {"name": "imagenet_se154", "file": "{datasets_root}/weights/legacy_senet154-e9eb9fe6.pth"}
                | {"layout": "timm_senet154"},
            ]
        },
        "datasets/weights/resnext101_64x4d-173b62eb.pth",
    ),
]


@pytest.mark.parametrize(("changes", "near"), MISSPELT)
def test_every_file_that_a_recipe_names_is_looked_for_and_the_nearest_name_told(at_root, changes, near):
    small = {"pretraining": [], "experts": [], "ensemble": {"members": [{"name": "x101"}]}}
    recipe = resolve_recipe({**CHALLENGE, **(small if "models" in changes else {}), **changes})
    with pytest.raises(UserError) as error:
        check_named_files(recipe, DatasetPaths(recipe))
    assert f"did you mean {near}" in str(error.value)


@pytest.mark.parametrize("name", ["challenge", "mini", "smoke", "ablations", "table4", "mini_crowded"])
def test_files_of_the_recipes_in_config_are_all_there(at_root, name):
    recipe = load_recipe(f"config/{name}.yaml")
    detectors = check_named_files(recipe, DatasetPaths(recipe))
    assert {model.name for model in recipe.models} <= detectors.keys()
    assert all(Path(file).is_file() for files in detectors.values() for file in files)


@pytest.mark.parametrize(
    ("tables", "near"),
    [({"tabel4": {}}, "table4"), ({"table5": {"vall": ["ensemble"]}}, "no row 'vall'; did you mean")],
)
def test_misspelt_table_or_row_is_told_before_the_run_and_not_at_its_end(tables, near):
    with pytest.raises(UserError, match=near):
        check_tables(tables)


def test_tables_of_the_recipes_in_config_are_published(at_root):
    for path in Path("config").glob("*.yaml"):
        check_tables(load_recipe(path).report.tables)


MODULE = """
module lvis:
    snakefile: "workflow/Snakefile"
    config: {"extends": "mini.yaml"}

use rule * from lvis as lvis_*

rule mine:
    default_target: True
    input: "results/mini/submission/submission.json"
    output: touch("done")
"""


def test_another_workflow_uses_this_one_as_a_module_with_targets_of_its_own(checkout):
    (checkout.folder / "Outer.smk").write_text(MODULE)
    result = checkout.run("-s", "Outer.smk", "--cores", "1", "-n", "-p", "--", "mine")
    assert result.returncode == 0, result.stdout[-3000:]
    assert "rule lvis_write_submission:" in result.stdout
    assert "make_mini --recipe results/mini/recipe.yaml --output datasets/mini" in result.stdout


@pytest.mark.slow
def test_misspelt_detector_of_a_finished_run_is_no_nothing_to_be_done(smoke):
    experts = yaml.safe_load((smoke.folder / "results/smoke/recipe.yaml").read_text())["experts"]
    experts[0]["detector"] = "config/detectors/mini_botleneck_fpn.yaml"
    (smoke.folder / "misspelt.yaml").write_text(yaml.safe_dump({"experts": experts}))
    result = smoke.run("--configfile", "config/smoke.yaml", "misspelt.yaml", "--cores", "1", "--", "all")
    assert result.returncode != 0
    assert "did you mean config/detectors/mini_bottleneck_fpn.yaml?" in result.stdout


def test_entry_that_replaces_an_inherited_list_is_explained(tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("extends: mini.yaml\nmodels:\n- {name: third, detector: config/detectors/mini_basic_fpn.yaml}\n")
    with pytest.raises(UserError) as error:
        load_recipe(overlay)
    assert "ensemble member 'basic' is neither a model" in str(error.value)
    assert f"`models` of {overlay} replaces the inherited list as a whole, which had basic, bottleneck" in str(
        error.value
    )
    with pytest.raises(UserError) as other:
        resolve_recipe({"extends": "mini.yaml", "ensemble": {"members": [{"name": "nobody"}]}})
    assert "replaces" not in str(other.value)


def test_entry_that_replaces_a_list_of_another_recipe_on_the_command_line_is_explained(checkout):
    (checkout.folder / "more.yaml").write_text(
        "models: [{name: third, detector: config/detectors/mini_basic_fpn.yaml}]"
    )
    result = checkout.run("--configfile", "config/mini.yaml", "more.yaml", "--cores", "1", "--", "all")
    assert result.returncode != 0
    assert "`models` of more.yaml replaces the inherited list as a whole, which had basic, bottleneck" in result.stdout


def test_after_ctrl_c_nothing_is_said_to_be_mended(checkout):
    command = checkout.command("--configfile", "config/mini.yaml", "--cores", "1", "--", "pretrain")
    process = subprocess.Popen(
        command,
        cwd=checkout.folder,
        env=checkout.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    log = checkout.folder / "results/mini/logs/make_mini.log"
    deadline = time.monotonic() + 120
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Stopped. To continue, run the same command again" in output
    assert "Fix the cause" not in output
