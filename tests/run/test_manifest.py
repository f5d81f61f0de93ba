"""Every result says what it was made from, and a submission leads back to its models."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_steps import show_origin
from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import noted_inputs, require_file
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.provenance.environment import code_version, packages
from pipeline_steps.run.provenance.manifest import manifest_path, write_manifest
from pipeline_steps.run.provenance.trace import origins

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The smallest recipe in a working folder of its own, with stand-ins for its data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").symlink_to(ROOT / "config")
    recipe = load_recipe("config/smoke.yaml")
    data = DatasetPaths(recipe)
    for path in (data.lvis_train, data.coco_train, data.openimages_train, data.coco_boxes_train, data.lvis_val):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {path.name}")
    return recipe


def leave(step: str, output: str, recipe=None, content: str = "", read=(), **options) -> dict:
    """Pretend that a step has read some files and written ``output``; returns its manifest."""
    started = time.time() - 1
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or f"{step} {output}")
    options = {"recipe": "recipe.yaml", **options} if recipe else options
    with noted_inputs() as inputs:
        for name in read:
            require_file(name, "file")
    written = write_manifest(step, argparse.Namespace(output=path, **options), recipe, started, inputs)
    assert written == manifest_path(path)
    return json.loads(written.read_text())


def chain(recipe) -> dict:
    """Two models, their shards of detections, and a submission; returns its manifest."""
    data = DatasetPaths(recipe)
    for name in ("basic", "bottleneck"):
        leave("train", f"results/{name}/model.pth", recipe, read=[data.lvis_train], model=name)
        for shard in range(2):
            read = [f"results/{name}/model.pth", data.lvis_val]
            leave("predict_boxes", f"results/{name}/shards/{shard}.parquet", recipe, read=read)
        shards = [f"results/{name}/shards/{shard}.parquet" for shard in range(2)]
        leave("gather_shards", f"results/{name}/boxes.parquet", read=shards)
    members = [f"results/{name}/boxes.parquet" for name in ("basic", "bottleneck")]
    leave("rescore_ensemble", "results/ensemble/boxes.parquet", recipe, read=members)
    return leave("write_submission", "results/submission.json", read=["results/ensemble/boxes.parquet"])


def test_submission_leads_to_every_model_in_it(recipe):
    models = chain(recipe)["models"]
    assert list(models) == ["results/basic/model.pth", "results/bottleneck/model.pth"]
    for path, model in models.items():
        assert model["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert json.loads(Path(model["manifest"]).read_text())["step"] == "train"


def test_manifest_says_what_when_with_which_code_and_where(recipe):
    manifest = leave("train", "results/basic/model.pth", recipe, model="basic")
    assert manifest["recipe"] == recipe.model_dump()
    assert manifest["recipe"]["training"]["schedule"]["momentum"] == 0.9  # a default, named in no recipe file
    assert manifest["outputs"]["results/basic/model.pth"]["bytes"] == len("train results/basic/model.pth")
    assert manifest["packages"]["torch"].startswith("2.")
    assert len(manifest["code"]["digest"]) == 64
    assert manifest["hardware"]["processors"] >= 1
    assert manifest["times"]["seconds"] >= 1


def test_inputs_are_the_files_that_were_read_each_once_with_their_digests(recipe):
    data = DatasetPaths(recipe)
    model = "results/basic/model.pth"
    read = [data.lvis_train, data.coco_train, data.lvis_train.absolute(), model]
    inputs = leave("train", model, recipe, read=read, model="basic")["inputs"]
    assert list(inputs) == [str(data.lvis_train), str(data.coco_train)], "an output is no input of itself"
    assert inputs[str(data.lvis_train)]["sha256"] == hashlib.sha256(data.lvis_train.read_bytes()).hexdigest()


def test_a_file_that_is_gone_when_the_step_ends_such_as_a_checkpoint_is_no_input(recipe):
    Path("model.pth").write_text("model")
    arguments = argparse.Namespace(output=Path("model.pth"), recipe="recipe.yaml", model="basic")
    written = write_manifest("train", arguments, recipe, time.time() - 1, [Path("checkpoint.pth")])
    assert json.loads(written.read_text())["inputs"] == {}


def test_files_are_noted_in_the_innermost_block_only_and_nowhere_outside_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    require_file(one, "file")
    with noted_inputs() as outer:
        with noted_inputs() as inner:
            require_file(one, "file")
        require_file(two, "file")
    assert (list(outer), list(inner)) == ([two], [one])


def test_way_back_is_shown_with_what_has_changed(recipe, capsys):
    chain(recipe)
    run = lambda: call_step(show_origin.parser, show_origin.main, ["results/submission.json"])  # noqa: E731
    assert run() == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == "results/submission.json  (write_submission)"
    assert shown.count("results/basic/model.pth  (train)") == 2
    assert "!" not in shown
    Path("results/basic/model.pth").write_text("trained again")
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 1
    assert "results/basic/model.pth  (train)  as above  ! the file has changed since" in capsys.readouterr().out


def test_same_size_is_not_taken_for_the_same_file(recipe):
    leave("train", "model.pth", recipe, content="aaaa", model="basic")
    leave("predict_boxes", "boxes.parquet", recipe, read=["model.pth"])
    Path("model.pth").write_text("bbbb")
    problems = {str(origin.path): origin.problem for origin in origins(Path("boxes.parquet"))}
    assert problems["model.pth"] == "the file has changed since"


def test_lost_files_are_told(recipe):
    chain(recipe)
    Path("results/basic/shards/0.parquet").unlink()
    manifest_path(Path("results/bottleneck/boxes.parquet")).unlink()
    problems = {str(origin.path): origin.problem for origin in origins(Path("results/submission.json"))}
    assert problems["results/basic/shards/0.parquet"] == "the file is missing"
    assert "bottleneck/boxes.manifest.json is missing" in problems["results/bottleneck/boxes.parquet"]


def test_a_step_that_found_its_output_complete_leaves_the_first_manifest(recipe):
    first = leave("train", "model.pth", recipe, model="basic")
    time.sleep(0.05)
    arguments = argparse.Namespace(output=Path("model.pth"), recipe="recipe.yaml", model="basic")
    assert write_manifest("train", arguments, recipe, time.time(), []) is None
    assert json.loads(manifest_path(Path("model.pth")).read_text()) == first


def test_only_the_first_process_of_a_training_writes(recipe, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    Path("model.pth").write_text("model")
    arguments = argparse.Namespace(output=Path("model.pth"), recipe="recipe.yaml", model="basic")
    assert write_manifest("train", arguments, recipe, time.time() - 1, []) is None


def test_results_of_others_have_no_origin(tmp_path):
    with pytest.raises(UserError, match="no manifest"):
        list(origins(tmp_path / "submission.json"))


def test_failed_steps_leave_no_manifest(tmp_path):
    shard = tmp_path / "shard.parquet"
    shard.write_bytes(b"PAR1 truncated")
    command = [
        sys.executable,
        "-m",
        "pipeline_steps.gather_shards",
        "--inputs",
        shard,
        "--output",
        tmp_path / "all.parquet",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert list(tmp_path.iterdir()) == [shard]


def test_code_digest_follows_every_file(tmp_path):
    (tmp_path / "pipeline_steps").mkdir()
    file = tmp_path / "pipeline_steps/train.py"
    file.write_text("a = 1\n")
    before = code_version(tmp_path)
    assert before["commit"] is None
    file.write_text("a = 2\n")
    assert code_version(tmp_path)["digest"] != before["digest"]


def test_the_code_of_a_result_is_that_of_this_checkout():
    assert code_version() == code_version(ROOT)
    assert code_version()["digest"] != hashlib.sha256().hexdigest()  # of no file


def test_packages_name_the_interpreter_and_what_is_installed():
    assert packages()["python"].startswith("3.")
    assert {"numpy", "pydantic"} <= set(packages())
