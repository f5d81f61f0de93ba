"""Before the first job: GPUs or a cluster, permissions, and room on the disk for the whole recipe."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import resolve_recipe
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.starting import checks
from tests.workflow.checkout import ROOT

CHALLENGE = {"extends": "challenge.yaml"}


def write(folder: Path, size: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(bytes(size))
    return folder


def test_a_run_that_needs_gpus_and_has_none_is_refused_before_it_starts(checkout):
    empty = checkout.folder / "bin"
    empty.mkdir()
    result = subprocess.run(
        checkout.command("--profile", "workstation", "all"),
        cwd=checkout.folder,
        env={**checkout.environment(), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "need up to 8 GPUs, but this machine has none" in result.stderr
    assert not (checkout.folder / "datasets/archives").exists()


def test_devices_are_asked_for_only_by_jobs_that_need_them(monkeypatch, tmp_path):
    recipe = resolve_recipe(CHALLENGE)
    checks.check_devices(recipe, 0, "", [])
    checks.check_devices(recipe, 8, "", ["0"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch"):
        checks.check_devices(recipe, 8, "slurm", [])


def test_room_is_that_of_the_whole_recipe_and_folders_of_one_disk_count_together(tmp_path, monkeypatch):
    free = checks.shutil.disk_usage(tmp_path).free
    data, results = tmp_path / "data", tmp_path / "results"
    checks.check_room([(data, free // 4), (results, free // 4)])
    with pytest.raises(UserError, match=r"needs .* in .*data and .* in .*results, but only"):
        checks.check_room([(data, free // 3 * 2), (results, free // 3 * 2)])


def test_room_counts_what_is_missing_and_not_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = resolve_recipe({**CHALLENGE, "datasets_root": str(tmp_path / "data")})
    paths = DatasetPaths(recipe)
    first = dict(checks.room_needed(recipe, paths, tmp_path / "results", 1000))
    assert first[tmp_path / "results"] == 1000
    archives = 19_336_861_798 + 815_585_330 + 6_646_970_404
    assert first[paths.root] > 2 * archives + 220_000 * 300_000  # images of the OpenImages expert included
    for name in ("train2017", "val2017", "test2017"):
        write(tmp_path / "data/coco" / name, 1)
    write(tmp_path / "results/stage", 400)
    second = dict(checks.room_needed(recipe, paths, tmp_path / "results", 1000))
    assert second[tmp_path / "results"] == 600
    assert first[paths.root] - second[paths.root] == pytest.approx(2.02 * archives, rel=0.001)


def test_folders_that_cannot_be_written_are_named_with_what_belongs_there(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = resolve_recipe({**CHALLENGE, "datasets_root": str(tmp_path / "data"), "data": {"derived_root": "m"}})
    paths = DatasetPaths(recipe)
    checks.check_permissions(recipe, paths, tmp_path / "results", brings_data=True)
    monkeypatch.setattr(checks, "is_writable", lambda folder: folder != paths.root)
    with pytest.raises(UserError, match=r"no permission to write to .*data \(data that are not there"):
        checks.check_permissions(recipe, paths, tmp_path / "results", brings_data=True)
    checks.check_permissions(recipe, paths, tmp_path / "results", brings_data=False)
