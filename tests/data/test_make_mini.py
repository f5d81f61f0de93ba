"""The step make_mini: same seed same bytes, complete or absent, harmless to repeat, clear about misuse."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import folder_digest
from pipeline_steps.make_mini import main, parser
from pipeline_steps.mini_world import PARTS, World
from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.data import MiniWorld
from pipeline_steps.run.data_files import MINI_WORLD
from tests.data.mini_worlds import SMALL, make, write_recipe

TINY = (
    "\n  mini: {image_size: 64, train_images: 12, val_images: 4, test_images: 4, openimages_images: 8, "
    "shapes: 4, hues: 2, coco_matching: 4, openimages_shared: 0.5%s}\n"
)
GOLDEN = "the annotation files of the small world changed: if that was meant, write the new digest here"
GOLDEN_DIGEST = "3ac3661e2f02e58b5d2979959ad5658717c7f06e93662ea0759bc72ca4d280e8"


def run(recipe: Path, output: Path, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline_steps.make_mini", "--recipe", str(recipe), "--output", str(output)]
    return subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE)


def digests(root: Path) -> dict[str, str]:
    return {part: folder_digest(root / part) for part in PARTS}


def annotations_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(
        [*root.glob("lvis/*.json"), *root.glob("coco/annotations/*.json"), *root.glob("openimages/*bbox*")]
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def test_annotations_of_the_small_world_are_known_to_the_last_byte(tmp_path: Path) -> None:
    assert annotations_digest(make(tmp_path, SMALL)) == GOLDEN_DIGEST, GOLDEN


def test_the_same_seed_gives_the_same_bytes_whatever_the_processor_can_do(tmp_path: Path) -> None:
    """Vector instructions of OpenCV, numpy and libjpeg are turned off in the second run."""
    recipe = write_recipe(tmp_path / "tiny.yaml", TINY % "")
    plain = {
        "OPENCV_IPP": "disabled",
        "OPENCV_CPU_DISABLE": "AVX512_SKX,AVX2,FP16,AVX",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 X86_V3",
        "JSIMD_FORCENONE": "1",
    }
    processes = [run(recipe, tmp_path / "fast"), run(recipe, tmp_path / "plain", **plain)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert digests(tmp_path / "fast") == digests(tmp_path / "plain")


def test_another_seed_gives_another_world(tmp_path: Path) -> None:
    for name, seed in (("first", ""), ("second", ", seed: 1")):
        (tmp_path / name).mkdir()
        make(tmp_path / name, TINY % seed)
    first, second = digests(tmp_path / "first" / "world"), digests(tmp_path / "second" / "world")
    assert all(first[part] != second[part] for part in PARTS)


def test_a_picture_does_not_depend_on_those_before_it() -> None:
    settings = MiniWorld(train_images=33, val_images=4, test_images=4, openimages_images=8)
    world, again = World(settings), World(settings)
    pictures = [world.scene("train", index).image for index in range(4)]
    assert (again.scene("train", 3).image == pictures[3]).all()
    assert not np.array_equal(pictures[2], pictures[3])


def test_a_second_run_changes_nothing_and_leaves_derived_files_alone(tmp_path: Path) -> None:
    root = make(tmp_path, TINY % "")
    derived = root / "derived" / "openimages_lvis.json"
    derived.parent.mkdir()
    derived.write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    make(tmp_path, TINY % "")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "no manifest", "broken manifest"])
def test_a_damaged_world_is_made_again(tmp_path: Path, damage: str) -> None:
    root = make(tmp_path, TINY % "")
    expected = digests(root)
    target = root / "lvis" / "lvis_v0.5_val.json"
    (root / "derived").mkdir()
    if damage == "missing":
        target.unlink()
    elif damage == "truncated":
        target.write_bytes(target.read_bytes()[:-10])
    elif damage == "no manifest":
        (root / MINI_WORLD).unlink()
        next((root / "coco" / "train2017").iterdir()).unlink()
    else:
        (root / MINI_WORLD).write_text('{"settings":')
    make(tmp_path, TINY % "")
    assert digests(root) == expected
    assert sorted(path.name for path in root.iterdir()) == sorted([*PARTS, MINI_WORLD, "derived"])


def test_changed_settings_replace_the_world(tmp_path: Path) -> None:
    root = make(tmp_path, TINY % "")
    make(tmp_path, TINY % ", jpeg_quality: 80")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert digests(make(fresh, TINY % ", jpeg_quality: 80")) == digests(root)


def test_a_killed_run_leaves_no_folder_that_looks_complete_and_the_next_run_finishes(tmp_path: Path) -> None:
    root = tmp_path / "world"
    process = run(write_recipe(tmp_path / "large.yaml", "\n  mini: {train_images: 2000}\n"), root)
    deadline = time.monotonic() + 60
    while not list(root.glob(".coco*/train2017/*.jpg")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert not any((root / name).exists() for name in (*PARTS, MINI_WORLD))
    assert list(root.iterdir())  # what the killed run had begun
    assert run(write_recipe(tmp_path / "tiny.yaml", TINY % ""), root).wait(120) == 0
    assert sorted(path.name for path in root.iterdir()) == sorted([*PARTS, MINI_WORLD])


def test_an_error_on_the_way_keeps_the_old_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path, TINY % "")
    before = digests(root)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline_steps.mini_world.world.write_category_tables", full_disk)
    with pytest.raises(OSError, match="No space"):
        make(tmp_path, TINY % ", seed: 5")
    assert digests(root) == before
    assert sorted(path.name for path in root.iterdir()) == sorted([*PARTS, MINI_WORLD])


@pytest.mark.parametrize("below", ["", "deeper/world"])
def test_an_output_that_is_a_file_is_refused(tmp_path: Path, below: str) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", TINY % "")
    file = tmp_path / "taken"
    file.write_text("mine")
    with pytest.raises(UserError, match="taken is a file"):
        main(parser.parse_args(["--recipe", str(recipe), "--output", str(file / below)]))
    assert file.read_text() == "mine"


def test_misuse_ends_with_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--recipe", str(tmp_path / "none.yaml"), "--output", str(tmp_path / "world")]
    assert call_step(parser, main, arguments) == 2
    assert capsys.readouterr().err == f"error: recipe not found: {tmp_path / 'none.yaml'}\n"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train_images: 8, shapes: 12, hues: 8", "cannot show all 96 categories: at least 32 are needed"),
        ("coco_matching: 7, shapes: 3, hues: 2", "coco_matching is 7, but there are 6 categories"),
        ("rare_max_images: 20, common_max_images: 20", "rare_max_images must be below common_max_images"),
        ("hue: 3", "did you mean 'hues'"),
    ],
)
def test_impossible_settings_are_refused_with_the_reason(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(write_recipe(tmp_path / "bad.yaml", f"\n  mini: {{{setting}}}\n"))


def test_the_smallest_world_has_every_category_in_train_at_least_once(tmp_path: Path) -> None:
    world = World(MiniWorld(image_size=64, train_images=12, shapes=12, hues=3, val_images=4, test_images=4))
    shown = set()
    for index in range(12):
        scene = world.scene("train", index)
        labels = world.federated_labels("train", index, scene)
        shown |= {scene.objects[k].wish.key for k in labels.annotated}
    assert shown == set(range(36))
