"""Damaged, exchanged, edited and deleted results are found by their bytes, whatever their time stamps say."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import time
from pathlib import Path

import pytest

from pipeline_steps import verify
from pipeline_steps.common.cli import call_step
from pipeline_steps.common.files import file_digest
from pipeline_steps.data.images_on_disk import image_problems
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.provenance.manifest import manifest_path, write_manifest
from pipeline_steps.run.provenance.verification import start_command, verify_results
from tests.run.test_manifest import chain, leave, recipe  # noqa: F401  (a fixture)

SUBMISSION = "results/submission.json"
MODEL = "results/basic/model.pth"
SHARD = "results/basic/shards/0.parquet"


@pytest.fixture
def results(recipe) -> Path:  # noqa: F811
    """A chain of results from data to submission."""
    chain(recipe)
    return Path("results")


def run(*options: str, results: str = "results") -> int:
    try:
        return call_step(verify.parser, verify.main, [results, "--start", "snakemake", *options])
    except SystemExit as end:
        return int(end.code)


def command_of(text: str) -> list[str]:
    """Words of the last command that is shown."""
    (*_, line) = (line for line in text.splitlines() if line.startswith("  snakemake "))
    return shlex.split(line)


def change(path: str, content: bytes) -> None:
    """Other bytes under the old time stamp."""
    before = Path(path).stat()
    Path(path).write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flipped(content: bytes) -> bytes:
    return content[:3] + bytes([content[3] ^ 1]) + content[4:]


def test_untouched_results_pass(results, capsys):
    assert run("--expected", SUBMISSION) == 0
    assert "results: undamaged, from the data to the results (" in capsys.readouterr().out


@pytest.mark.parametrize("name", [MODEL, SHARD, "results/bottleneck/boxes.parquet", SUBMISSION])
@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-1], lambda content: content + b" "])
def test_every_damaged_result_is_named_with_the_command_that_makes_it_again(results, capsys, name, damage):
    change(name, damage(Path(name).read_bytes()))
    assert run("--expected", SUBMISSION) == 2
    shown = capsys.readouterr()
    assert f"{name}: has changed since " in shown.out
    assert "error: results: 1 of its files or folders are damaged or missing (" in shown.err
    assert command_of(shown.out) == ["snakemake", "-R", name, "--", "all"]


def test_deleted_intermediate_result_is_said(results, capsys):
    Path(SHARD).unlink()
    assert run("--expected", SUBMISSION) == 2
    shown = capsys.readouterr().out
    assert f"{SHARD}: is missing\n" in shown
    assert command_of(shown) == ["snakemake", "-R", SHARD, "--", "all"]
    manifest_path(Path(SHARD)).unlink()
    assert run("--expected", SUBMISSION) == 2
    shown = capsys.readouterr().out
    assert f"{SHARD}: is missing, and its manifest too\n" in shown
    assert command_of(shown) == ["snakemake", "-R", SHARD, "--", "all"]


def test_lost_and_damaged_manifests_are_said(results, capsys):
    manifest_path(Path(SHARD)).unlink()
    assert run() == 2
    assert f"{SHARD}: has lost its manifest\n" in capsys.readouterr().out
    manifest_path(Path(MODEL)).write_text('{"step": "train"')
    assert run() == 2
    assert f"{manifest_path(Path(MODEL))}: is not a complete manifest" in capsys.readouterr().out


def test_result_of_an_older_input_breaks_the_chain(recipe, results, capsys):  # noqa: F811
    """The model was trained again, and its manifest with it: every file is what its own manifest says."""
    leave("train", MODEL, recipe, "trained again", model="basic", init=None)
    assert run("--expected", SUBMISSION) == 2
    shown = capsys.readouterr().out
    shards = [f"results/basic/shards/{number}.parquet" for number in range(2)]
    for shard in shards:
        assert f"{shard}: was not made from the current {MODEL}, but from another version" in shown
    assert command_of(shown) == ["snakemake", "-R", *shards, "--", "all"]


def test_edited_result_with_an_edited_manifest_breaks_the_chain(results, capsys):
    change(MODEL, b"forged")
    manifest = json.loads(manifest_path(Path(MODEL)).read_text())
    manifest["outputs"][MODEL] = {"bytes": 6, "sha256": file_digest(MODEL)}
    manifest_path(Path(MODEL)).write_text(json.dumps(manifest))
    assert run() == 2
    assert f"was not made from the current {MODEL}" in capsys.readouterr().out


def test_only_the_first_of_damaged_results_is_made_again(results, capsys):
    for name in (MODEL, SHARD, SUBMISSION):
        change(name, b"damaged")
    assert run("--expected", SUBMISSION) == 2
    assert command_of(capsys.readouterr().out) == ["snakemake", "-R", MODEL, "--", "all"]


def test_changed_data_are_put_back_or_meant(recipe, results, capsys):  # noqa: F811
    data = str(DatasetPaths(recipe).lvis_val)
    change(data, b"other annotations")
    outcome = verify_results(results, [SUBMISSION])
    (finding,) = outcome.findings
    assert (finding.path, finding.problem) == (data, "has changed since results were made from it")
    assert set(finding.if_meant) == {f"results/{m}/shards/{k}.parquet" for m in ("basic", "bottleneck") for k in (0, 1)}
    lines = verify.remedies(outcome, "snakemake")
    assert lines[0].startswith(
        f"Put back {data} (downloaded data: delete it, and `snakemake -- data` fetches it again)"
    )
    assert lines[2].startswith("  snakemake -R results/")
    assert verify_results(results, [SUBMISSION], drawn="datasets/smoke").findings[0].again == (data,)


def test_only_what_a_result_rests_on(results, capsys):
    other = leave("gather_shards", "results/other.parquet", read=[SHARD])
    assert other["inputs"]
    change("results/other.parquet", b"x")
    assert run("--only", SUBMISSION) == 0
    assert run("--expected", SUBMISSION) == 2
    shown = capsys.readouterr().out
    assert command_of(shown) == ["snakemake", "-R", "results/other.parquet", "--", "results/other.parquet", "all"]
    change(MODEL, b"x")
    assert run("--only", SUBMISSION) == 2


def test_expected_results_are_there_with_a_manifest_or_not_made_yet(results, capsys):
    assert run("--expected", SUBMISSION, "results/report/index.html") == 0
    assert "results/report/index.html: not made yet" in capsys.readouterr().out
    Path("results/report").mkdir()
    Path("results/report/index.html").write_text("page")
    assert run("--expected", SUBMISSION, "results/report/index.html") == 2
    assert "results/report/index.html: has no manifest" in capsys.readouterr().out


def test_files_that_nobody_declared_are_left_alone(results):
    Path("results/basic/checkpoint_1.pth").write_text("checkpoint")
    Path("results/logs").mkdir()
    Path("results/logs/train.log").write_text("log")
    assert run("--expected", SUBMISSION) == 0


def test_every_file_of_a_folder_is_covered(recipe, results, capsys):  # noqa: F811
    folder = Path("results/figures")
    folder.mkdir()
    for name in ("a.svg", "b.svg"):
        (folder / name).write_text(name)
    write_manifest("plot", argparse.Namespace(output=folder), None, time.time() - 1, [])
    assert run("--expected", SUBMISSION, "results/figures") == 0
    change("results/figures/b.svg", b"c.svg")
    assert run("--expected", SUBMISSION, "results/figures") == 2
    shown = capsys.readouterr().out
    assert "results/figures/b.svg: has changed since plot wrote it" in shown
    assert command_of(shown) == ["snakemake", "-R", "results/figures", "--", "all"]


def test_records_beside_a_model_are_covered_and_made_again_with_it(recipe, results, capsys):  # noqa: F811
    metrics = Path("results/third/metrics.jsonl")
    metrics.parent.mkdir()
    metrics.write_text('{"loss": 1}\n')
    leave("train", "results/third/model.pth", recipe, model="basic", init=None, beside=[metrics])
    assert run() == 0
    change(str(metrics), b'{"loss": 2}\n')
    assert run() == 2
    shown = capsys.readouterr().out
    assert f"{metrics}: has changed since train wrote it" in shown
    assert command_of(shown)[:3] == ["snakemake", "-R", "results/third/model.pth"]


def test_results_are_found_from_another_folder_but_not_moved(results, tmp_path, monkeypatch, capsys):
    change(SHARD, b"x")
    monkeypatch.chdir("/")
    assert run(results=str(tmp_path / "results")) == 2
    assert f"{SHARD}: has changed" in capsys.readouterr().out
    (tmp_path / "results/basic/shards").rename(tmp_path / "results/basic/moved")
    (tmp_path / "results/basic").rename(tmp_path / "basic")
    assert run(results=str(tmp_path / "basic")) == 2
    assert "the results were moved or renamed" in capsys.readouterr().err


def test_step_that_was_run_by_hand_from_another_folder_belongs_to_the_chain(results, tmp_path, monkeypatch):
    name = "results/basic/boxes.parquet"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    shards = [tmp_path / f"results/basic/shards/{number}.parquet" for number in range(2)]
    manifest = leave("gather_shards", str(tmp_path / name), content=f"gather_shards {name}", read=shards)
    assert list(manifest["outputs"]) == [str(tmp_path / name)]
    assert run("--expected", SUBMISSION, results=str(tmp_path / "results")) == 0
    change(str(shards[0]), b"x")
    assert run("--expected", SUBMISSION, results=str(tmp_path / "results")) == 2


def test_wrong_folders_are_told(tmp_path, capsys):
    assert run(results=str(tmp_path / "none")) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert run(results=str(tmp_path)) == 2
    assert "has no manifests" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cores", "1", "verify"], "snakemake --configfile 'results/a b/recipe.yaml' --cores all"),
        (["--profile", "slurm", "all"], "snakemake --profile slurm --configfile 'results/a b/recipe.yaml'"),
        (["--profile=x y"], "snakemake --profile 'x y' --configfile 'results/a b/recipe.yaml'"),
    ],
)
def test_commands_start_the_workflow_as_it_was_started(arguments, words):
    assert start_command(["snakemake", *arguments], "results/a b/recipe.yaml") == words


@pytest.mark.parametrize("damage", ["delete", "truncate", "add"])
def test_images_are_counted_and_their_sizes_added_up(recipe, damage):  # noqa: F811
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": "download"})})
    paths = DatasetPaths(recipe)
    folders = {"coco/val2017": paths.coco_root / "val2017", "openimages/train": paths.openimages_images}
    for folder in folders.values():
        folder.mkdir(parents=True)
        for name in "abc":
            (folder / f"{name}.jpg").write_bytes(b"image")
    paths.coco_images_manifest.parent.mkdir(parents=True)
    manifest = paths.manifest(paths.openimages_ids.with_suffix(""))
    manifest.parent.mkdir(parents=True)
    paths.coco_images_manifest.write_text(json.dumps({"folders": {"coco/val2017": {"files": 3, "bytes": 15}}}))
    manifest.write_text(json.dumps({"images": 4, "bytes": 15, "failed": {"d": "status 404"}}))
    paths.openimages_ids.write_text("train/a\ntrain/b\ntrain/c\ntrain/d\n")
    assert image_problems(recipe, "snakemake") == {}
    for folder in folders.values():
        match damage:
            case "delete":
                (folder / "b.jpg").unlink()
            case "truncate":
                (folder / "b.jpg").write_bytes(b"im")
            case "add":
                (folder / "e.jpg").write_bytes(b"image")
    found = image_problems(recipe, "snakemake")
    wrong = [folders["coco/val2017"]] if damage == "add" else [*folders.values()]  # other recipes add to openimages/
    assert list(found) == wrong
    assert all("of 15" in problem and problem.endswith("then snakemake -- data") for problem in found.values())


def test_commands_name_the_snakefile_where_the_workflow_runs_from_another_folder():
    given = ["snakemake", "-s", "/a b/Snakefile", "--profile=/p"]
    assert start_command(given, "r.yaml") == "snakemake --snakefile '/a b/Snakefile' --profile /p --configfile r.yaml"
    assert start_command(["snakemake", "--cores", "1"], "") == "snakemake --cores all"  # configured by another workflow
